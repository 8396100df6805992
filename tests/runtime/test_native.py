"""The native step gives what ONNX Runtime gives, the same bits on any number of threads, or says why not."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from hrm_edge import zoo
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.manifest import STEP_FILE, read_manifest, write_manifest
from hrm_edge.runtime import open_artifact, open_step
from hrm_edge.runtime.choose import candidates
from hrm_edge.runtime.native import compile as compiling
from hrm_edge.runtime.native.session import available, why_unsupported
from hrm_edge.solve import solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from tests.artifacts import write_random_artifact, write_singles_artifact
from tests.runtime.native import MARCHES, boards, changed, compiled_for, negate_the_logits, processor_runs, run

NANO = variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3))
PUZZLE_VECTOR = variant_spec(
    "full", vocab=7, seq_len=30, hidden=64, heads=4, h_layers=1, l_layers=2, puzzle_dim=100, puzzles=5
)  # rotary positions, two puzzle positions, an odd number of layers in a step
LEARNED = variant_spec(
    "full", vocab=20, seq_len=17, hidden=128, heads=1, h_layers=2, l_layers=1, h_cycles=1, puzzle_dim=0,
    positions="learned", q_outputs=1,
)  # fmt: skip
REDUCED = variant_spec("reduced", vocab=11, seq_len=81, grid=(9, 9, 3, 3), hidden=64, heads=4, h_layers=2, l_layers=1)
SPECS = {
    "nano": NANO, "puzzle vector": PUZZLE_VECTOR, "learned positions": LEARNED, "reduced": REDUCED,
    "reduced, head by head": REDUCED.model_copy(update={"grid_heads": True, "grid_positions": True}),
    "biases, rotary": PUZZLE_VECTOR.model_copy(update={"bias": True, "mlp": "gelu", "halt_head": "pooled"}),
    "one stack": variant_spec("trm", vocab=11, seq_len=16, hidden=64, heads=4, l_cycles=2, puzzle_dim=64, puzzle_len=2),
}  # fmt: skip
# Of a step's length. Sums in another order now and then round an activation to the next integer, and attention spreads
# that: ONNX Runtime's own answer moves by up to 0.05 where its input moves by 1e-6. Inexact products: 0.11 to 0.48.
CLOSE = 0.08


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("int8")
    return {name: write_random_artifact(root / name, spec, "int8") for name, spec in SPECS.items()}


@pytest.mark.parametrize("name", SPECS)
def test_a_step_is_onnxruntimes(folders, name):
    manifest = read_manifest(folders[name])
    tokens, ids = boards(manifest.spec, 5)
    ours = run(open_step(folders[name], manifest, 2, "native"), tokens, ids, 1)
    theirs = run(open_step(folders[name], manifest, 1, "onnxruntime"), tokens, ids, 1)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= CLOSE * np.linalg.norm(b)


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


@pytest.mark.parametrize("name", ["nano", "reduced"])
@pytest.mark.parametrize("march", MARCHES)
def test_every_set_of_instructions_is_exact(tmp_path, monkeypatch, march, name):
    """Weights of every value that a byte has, -128 too: the same integers as the runtime's exact products."""
    if not processor_runs(march):
        pytest.skip(f"this processor does not run {march}")
    folder = write_random_artifact(tmp_path / "a", SPECS[name], "int8")
    manifest, graph, rng = read_manifest(folder), onnx.load(folder / STEP_FILE), np.random.default_rng(0)
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("weight_int8"):
            values = rng.choice(np.array([-128, -127, 127, 0, 5], np.int8), tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, folder / STEP_FILE)
    manifest = write_manifest(folder, manifest)
    tokens, ids = boards(manifest.spec, 2)
    theirs = run(open_step(folder, manifest, 1, "onnxruntime"), tokens, ids, 1)
    compiled_for(march, monkeypatch)
    for ours, wanted in zip(run(open_step(folder, manifest, 1, "native"), tokens, ids, 1), theirs, strict=True):
        assert np.linalg.norm(ours - wanted) < CLOSE * np.linalg.norm(wanted)


def test_more_threads_than_rows_and_cores(folders):
    manifest = read_manifest(folders["learned positions"])
    session = open_step(folders["learned positions"], manifest, 64, "native")
    assert session.threads == LEARNED.total_len
    tokens, ids = boards(LEARNED, 3)
    want = run(open_step(folders["learned positions"], manifest, 1, "native"), tokens, ids, 2)
    assert all((a == b).all() for a, b in zip(run(session, tokens, ids, 2), want, strict=True))


def test_a_shipped_model_solves_as_with_onnxruntime():
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
        (variant_spec("trm-mixer", vocab=11, seq_len=16), "it has mixing=mlp"),
        (NANO.model_copy(update={"norm": "cube"}), "it has norm=cube"),
        (variant_spec("full", vocab=11, seq_len=16, hidden=96, heads=6), "its hidden size of 96 is no multiple of 64"),
        (variant_spec("full", vocab=11, seq_len=16, hidden=64, heads=8), "its heads of 8 are no multiple of 16"),
    ],
)
def test_models_of_another_kind(folders, spec, why):
    manifest = read_manifest(folders["nano"]).model_copy(update={"spec": spec})
    assert why_unsupported(manifest) == why
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


def test_the_library_is_kept_and_a_torn_one_made_anew(monkeypatch, tmp_path):
    """A cut-off library that is loaded ends the process in a bus error: its hash is compared first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in compiling.FLAGS))
    place = tmp_path / "hrm-edge" / "native"
    compiling.library()
    (kept,) = place.iterdir()
    made = kept.stat().st_ino
    compiling.library()
    (kept,) = place.iterdir()
    assert kept.stat().st_ino == made
    whole = kept.read_bytes()
    kept.unlink()  # this process has it mapped
    kept.write_bytes(whole[: len(whole) // 2])
    compiling.library()
    (kept,) = place.iterdir()
    assert kept.stat().st_size == len(whole)


def test_threads_that_cannot_start(folders):
    """A limit on memory leaves no room for their stacks: an error, not an end of the process."""
    program = (
        "import resource\n"
        "from hrm_edge.errors import UserError\n"
        "from hrm_edge.runtime import open_artifact\n"
        f"open_artifact({str(folders['nano'])!r}, threads=1, backend='native')\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), resource.RLIM_INFINITY))\n"
        f"open_artifact({str(folders['nano'])!r}, threads=64, backend='native')\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads the memory in use from Linux's /proc")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "--backend native: 64 threads cannot be started here\nask for fewer, --threads 1" in done.stderr


def rename_a_layer(graph: onnx.GraphProto) -> None:
    """As a policy file would have it: the layer stays in float."""
    for tensor in graph.initializer:
        if tensor.name.startswith("H_level.layers.0.mlp.down_proj.weight"):
            tensor.name = f"kept.{tensor.name}"


def swap_inputs(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Sub")
    node.input[:] = list(node.input)[::-1]


def set_attribute(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Softmax")
    node.attribute[0].i = 2


def set_constant(graph: onnx.GraphProto) -> None:
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == "rms_eps"]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(1e-6), "rms_eps"))


def change_the_mask(graph: onnx.GraphProto) -> None:
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == "head_mask"]
    mask = onnx.numpy_helper.to_array(tensor).copy()
    mask[0, 0, 1] = -1e4
    tensor.CopyFrom(onnx.numpy_helper.from_array(mask, "head_mask"))


def skip_a_residual(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Add" and "layers" in node.name)
    node.input[0] = node.input[1]


def exchange_outputs(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        swap = {"z_h_next": "z_l_next", "z_l_next": "z_h_next"}
        node.output[:] = [swap.get(name, name) for name in node.output]


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("nano", rename_a_layer, "it has no 'H_level.layers.0.mlp.down_proj.weight_int8'"),
        ("nano", negate_the_logits, "it has a Neg more|its outputs are computed as"),
        ("puzzle vector", swap_inputs, "'L_level.layers.0/Sub_.*' is not the Sub of .* that is expected"),
        ("nano", set_attribute, "is not the Softmax of"),
        ("nano", set_constant, "its constant 'rms_eps' has another value"),
        ("nano", change_the_mask, "its constant 'head_mask' has another value"),
        ("reduced", skip_a_residual, "is not the Add of"),
        ("reduced", exchange_outputs, "its outputs are computed as"),
    ],
)
def test_a_graph_that_computes_something_else(folders, tmp_path, name, change, why):
    folder = changed(folders[name], tmp_path / "a", change)
    with pytest.raises(UserError, match=rf"is not the graph that --backend native computes: .*({why})"):
        open_artifact(folder, backend="native")


def test_without_onnx(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is not installed, which --backend native needs\npip install onnx"):
        open_artifact(folders["nano"], backend="native")
