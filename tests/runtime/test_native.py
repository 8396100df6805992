"""Our own INT8 step gives what ONNX Runtime gives, the same bits on any number of threads, or says why not."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from hrm_edge import zoo
from hrm_edge.errors import UserError
from hrm_edge.manifest import STEP_FILE, read_manifest, write_manifest
from hrm_edge.runtime import open_artifact, open_step
from hrm_edge.runtime.choose import candidates
from hrm_edge.runtime.native import compile as compiling
from hrm_edge.runtime.native.session import available, unfit
from hrm_edge.solve import solve
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from tests.artifacts import write_random_artifact, write_singles_artifact

NANO = variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3))
PUZZLE_VECTOR = variant_spec(
    "full", vocab=7, seq_len=30, hidden=64, heads=4, h_layers=1, l_layers=2, puzzle_dim=100, puzzles=5
)  # rotary positions, two puzzle positions, an odd number of layers in a step
LEARNED = variant_spec(
    "full", vocab=20, seq_len=17, hidden=128, heads=1, h_layers=2, l_layers=1, h_cycles=1, puzzle_dim=0,
    positions="learned", q_outputs=1,
)  # fmt: skip
SPECS = {"nano": NANO, "puzzle vector": PUZZLE_VECTOR, "learned positions": LEARNED}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("int8")
    return {name: write_random_artifact(root / name, spec, "int8") for name, spec in SPECS.items()}


def boards(spec: ModelSpec, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [N, S] and puzzle ids [N]."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, spec.vocab, (count, spec.seq_len)).astype(np.uint8)
    return tokens, rng.integers(0, spec.puzzles, count).astype(np.int32)


def run(session, tokens, ids, steps):
    """What the last of some steps gave: z_h, z_l, logits, q."""
    carry = session.initial_carry(len(tokens))
    for _ in range(steps):
        carry, logits, q = session.step(tokens, ids, carry)
    return [*carry, logits, q]


@pytest.mark.parametrize("name", SPECS)
def test_a_step_is_onnxruntimes(folders, name):
    """Sums in another order now and then round an activation to the next integer, which attention spreads a little."""
    manifest = read_manifest(folders[name])
    tokens, ids = boards(manifest.spec, 5)
    ours = run(open_step(folders[name], manifest, 2, "native"), tokens, ids, 1)
    theirs = run(open_step(folders[name], manifest, 1, "onnxruntime"), tokens, ids, 1)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        scale = np.sqrt(np.square(b).mean())
        assert np.sqrt(np.square(a - b).mean()) < 0.05 * scale
        assert np.median(np.abs(a - b)) < 0.01 * scale


@pytest.mark.parametrize("name", SPECS)
def test_neither_threads_nor_the_batch_change_a_bit(folders, name):
    manifest = read_manifest(folders[name])
    tokens, ids = boards(manifest.spec, 7)
    want = run(open_step(folders[name], manifest, 1, "native"), tokens, ids, 4)
    for threads in (2, 3, 5):
        session = open_step(folders[name], manifest, threads, "native")
        for found, expected in zip(run(session, tokens, ids, 4), want, strict=True):
            assert (found == expected).all()
        for row in range(3):
            alone = run(session, tokens[row : row + 1], ids[row : row + 1], 4)
            assert all((a[0] == b[row]).all() for a, b in zip(alone, want, strict=True))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86's instruction sets")
def test_without_the_instructions_it_counts_on(folders, monkeypatch):
    """The plain loops, as on a processor without VNNI: the same integers, and the same sums of floats."""
    manifest = read_manifest(folders["nano"])
    tokens, ids = boards(NANO, 2)
    want = run(open_step(folders["nano"], manifest, 1, "native"), tokens, ids, 1)
    plain = tuple("-march=x86-64-v3" if flag == "-march=native" else flag for flag in compiling.FLAGS)
    monkeypatch.setattr(compiling, "FLAGS", plain)
    found = run(open_step(folders["nano"], manifest, 1, "native"), tokens, ids, 1)
    for a, b in zip(found, want, strict=True):
        assert np.sqrt(np.square(a - b).mean()) < 0.05 * np.sqrt(np.square(b).mean())


def test_more_threads_than_rows_and_cores(folders):
    manifest = read_manifest(folders["learned positions"])
    session = open_step(folders["learned positions"], manifest, 64, "native")
    assert session.threads == LEARNED.total_len
    tokens, ids = boards(LEARNED, 3)
    want = run(open_step(folders["learned positions"], manifest, 1, "native"), tokens, ids, 2)
    assert all((a == b).all() for a, b in zip(run(session, tokens, ids, 2), want, strict=True))


def test_a_shipped_model_solves_as_with_onnxruntime():
    from hrm_edge.data.puzzles import load_puzzles

    folder = zoo.folder_of("sudoku-nano-int8")
    path = sample_file("sudoku")
    assert folder is not None
    assert path is not None
    task = get_task("sudoku")
    puzzles = load_puzzles(path, task, 64)
    found = {}
    for backend in ("native", "onnxruntime"):
        session, _ = open_artifact(folder, threads=2, backend=backend)  # type: ignore[arg-type]
        found[backend] = solve(session, task, puzzles.givens, slots=16)
    ours, theirs = found["native"], found["onnxruntime"]
    assert session.backend == "onnxruntime-cpu"
    assert ours.verified.mean() >= theirs.verified.mean() - 0.05  # a puzzle in doubt may go either way
    both = ours.verified & theirs.verified
    assert both.mean() > 0.8
    assert (ours.answers[both] == theirs.answers[both]).all()
    assert abs(ours.steps[both].mean() - theirs.steps[both].mean()) < 0.5


def test_a_carry_outlives_the_next_step(folders):
    session = open_step(folders["nano"], read_manifest(folders["nano"]), 1, "native")
    tokens, ids = boards(NANO, 2)
    first = run(session, tokens, ids, 1)
    kept = [array.copy() for array in first]
    run(session, tokens[::-1], ids, 1)
    assert all((a == b).all() for a, b in zip(kept, first, strict=True))


def test_two_callers_at_once(folders):
    """ctypes lets go of Python's lock."""
    session = open_step(folders["nano"], read_manifest(folders["nano"]), 2, "native")
    given = [boards(NANO, 1 + caller, seed=caller) for caller in range(4)]
    want = [run(session, *each, 3) for each in given]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: [run(session, *each, 3) for _ in range(10)], given))
    for runs, expected in zip(found, want, strict=True):
        assert all((a == b).all() for arrays in runs for a, b in zip(arrays, expected, strict=True))


def test_a_token_that_is_none(folders):
    session = open_step(folders["nano"], read_manifest(folders["nano"]), 1, "native")
    with pytest.raises(ValueError, match="token 11 is beyond the vocabulary of 11"):
        run(session, np.full((1, 81), 11, np.uint8), np.zeros(1, np.int32), 1)


def test_sessions_come_and_go(folders):
    """Threads of a session end with it."""
    manifest = read_manifest(folders["nano"])
    before = threads_of_this_process()
    for _ in range(20):
        session = open_step(folders["nano"], manifest, 4, "native")
        run(session, *boards(NANO, 1), 1)
        assert threads_of_this_process() == before + 3
        del session
    assert threads_of_this_process() == before


def threads_of_this_process() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("counts threads in Linux's /proc")
    return int(status.read_text().split("Threads:")[1].split()[0])


def test_the_choice_tries_it(folders):
    ways = candidates(folders["nano"], read_manifest(folders["nano"]))
    assert "native" in {way.backend for way in ways}


# -- what it refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (variant_spec("reduced", vocab=11, seq_len=16), "it has LayerNorm"),
        (variant_spec("full", vocab=11, seq_len=16, bias=True), "it has biases"),
        (variant_spec("full", vocab=11, seq_len=16, mlp="gelu"), "its MLP is GELU"),
        (variant_spec("full", vocab=11, seq_len=16, connections=True), "it has connections between its levels"),
        (variant_spec("full", vocab=11, seq_len=16, halt_head="pooled"), "its halting head is pooled"),
        (variant_spec("full", vocab=11, seq_len=16, hidden=96, heads=6), "its hidden size of 96 is no multiple of 64"),
        (variant_spec("full", vocab=11, seq_len=16, hidden=64, heads=8), "its heads of 8 are no multiple of 16"),
    ],
)
def test_models_of_another_kind(folders, spec, why):
    manifest = read_manifest(folders["nano"]).model_copy(update={"spec": spec})
    assert unfit(manifest) == why
    assert not available(manifest)


def test_another_precision(tmp_path):
    folder = write_singles_artifact(tmp_path / "singles", get_task("mini-sudoku"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--backend native does not run singles: it is fp32, not int8\n.*onnxruntime"):
        open_artifact(folder, backend="native")


def test_no_compiler(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"there is no C\+\+ compiler here\ninstall a C\+\+ compiler.*g\+\+"):
        open_artifact(folders["nano"], backend="native")
    assert not available(read_manifest(folders["nano"]))


def test_a_compiler_that_fails(folders, monkeypatch, tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: out of ideas' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(UserError, match=r"broken-c\+\+ does not compile the step: fatal error: out of ideas"):
        open_artifact(folders["nano"], backend="native")


def test_the_library_is_kept_and_a_torn_one_named(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiling.library()
    (kept,) = (tmp_path / "hrm-edge" / "native").iterdir()
    made = kept.stat().st_mtime_ns
    compiling.library()
    assert kept.stat().st_mtime_ns == made
    # in a process of its own: this one has the library loaded
    kept.unlink()  # this process has it mapped
    kept.write_bytes(b"torn")
    program = f"from hrm_edge.runtime import open_artifact; open_artifact({str(folders['nano'])!r}, backend='native')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"--backend native: {kept} cannot be loaded" in done.stderr
    assert f"remove it: rm {kept}" in done.stderr


def test_a_graph_with_a_layer_in_float(tmp_path):
    """As a policy file would have it: the native step has no such layer."""
    folder = write_random_artifact(tmp_path / "a", NANO, "int8")
    manifest, graph = read_manifest(folder), onnx.load(folder / STEP_FILE)
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("H_level.layers.0.mlp.down_proj.weight"):
            tensor.name = f"kept.{tensor.name}"
    onnx.save(graph, folder / STEP_FILE)
    write_manifest(folder, manifest)
    with pytest.raises(UserError, match=r"has no 'H_level.layers.0.mlp.down_proj.weight_int8', which --backend native"):
        open_artifact(folder, backend="native")


def test_without_onnx(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is not installed, which --backend native needs\npip install onnx"):
        open_artifact(folders["nano"], backend="native")
