"""The real builder of TensorRT-RTX, without a GPU: engines, identity, cache, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from hrm_edge import zoo
from hrm_edge.cli.main import main
from hrm_edge.errors import UserError
from hrm_edge.export.graph import StepGraph
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, read_manifest, write_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.runtime.trt import api as api_module
from hrm_edge.runtime.trt import build as build_module
from hrm_edge.runtime.trt.api import Messages, find_api, logger_for
from hrm_edge.runtime.trt.build import BuildOptions, _run_worker, build_engine
from hrm_edge.runtime.trt.device import Gpu
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE, BatchRange, Options, read_engine
from hrm_edge.runtime.trt.worker import Request
from hrm_edge.spec import variant_spec
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_graph, singles_spec, write_singles_artifact

pytestmark = pytest.mark.rtx
MINI = Sudoku(2, 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hrm-edge" / "engines"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_singles_artifact(tmp_path_factory.mktemp("artifact") / "a", MINI)


def request_for(artifact: Path, plan: Path, sms: tuple[int, ...] = (86,)) -> Request:
    options = Options(precision="fp32", optimization_level=1, workspace_mib=256, batch=BatchRange(min=1, opt=2, max=4))
    return Request(
        step=artifact / STEP_FILE, plan=plan, runtime="tensorrt_rtx", sms=sms, options=options, timing_cache=None,
        plugin=None,
    )  # fmt: skip


def test_export_builds_an_engine_and_the_next_time_copies_it(
    artifact: Path, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command: folder, sidecar, cache, the table, the next command."""
    out = tmp_path / "engine"
    command = ["export", str(artifact), "--backend", "tensorrt", "--sm", "86,8.9", "--max-batch", "16", "--out"]
    assert main([*command, str(out)]) == 0
    said = capsys.readouterr().out
    assert "GPUs of SM86, SM89" in said
    assert said.splitlines()[-1].endswith(f"hrm-edge bench {out}")
    assert {path.name for path in out.iterdir()} == {path.name for path in artifact.iterdir()} | {
        PLAN_FILE,
        SIDECAR_FILE,
    }
    manifest, engine = read_manifest(out), read_engine(out)
    identity = engine.identity
    assert (identity.runtime, identity.sm, identity.device, identity.cuda) == ("tensorrt_rtx", (86, 89), None, None)
    assert identity.tensorrt == find_api("tensorrt_rtx").version
    assert identity.tensorrt.count(".") == 3
    assert (identity.model_sha256, identity.options.tf32) == (manifest.files[STEP_FILE].sha256, False)
    assert (identity.options.batch.opt, identity.options.batch.max) == (8, 16)
    assert engine.plan.bytes == (out / PLAN_FILE).stat().st_size > 1000
    assert engine.build.seconds > 0
    assert 50 << 20 < engine.build.peak_memory_bytes < 4 << 30
    assert not engine.build.timing_cache  # none without a GPU
    assert (own_cache / identity.key() / PLAN_FILE).is_file()

    assert main([*command, str(tmp_path / "again")]) == 0
    assert "from the cache" in capsys.readouterr().out
    assert read_engine(tmp_path / "again") == engine
    assert main([*command, str(tmp_path / "anew"), "--no-cache"]) == 0
    assert "from the cache" not in capsys.readouterr().out
    # an engine's folder is an artifact: ONNX Runtime runs it, and other engines are built from it
    assert main(["solve", "0030400000020100", "--model", str(out), "--backend", "onnxruntime"]) == 0
    assert main(["export", str(out), "--out", str(tmp_path / "other"), "--backend", "tensorrt", "--sm", "120"]) == 0
    assert read_engine(tmp_path / "other").identity.sm == (120,)


REFUSED: dict[str, tuple[list[str], str]] = {
    "jetson": (["--sm", "87"], r"builds for SM75, SM80, SM86, SM89, SM120, SM121, not for SM87"),
    "precision": (["--sm", "75"], r"tensorrt_rtx does not run fp32 on SM75"),
    "precision of the artifact": (["--sm", "86", "--fp16"], "is an artifact, whose precision and steps are settled"),
    "no number": (["--sm", "ampere"], "'ampere' is no compute capability: write 86,89,120"),
    "batch": (["--sm", "86", "--max-batch", "65"], "--max-batch 65: the artifact was checked up to 64"),
    "memory": (["--sm", "86", "--workspace", "99999999"], "--workspace 99999999 MiB is more than half"),
    "not an engine": (["--backend", "onnx", "--sm", "86"], "--sm is for --backend tensorrt"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_built_is_said_at_once(
    artifact: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = REFUSED[case]
    out = tmp_path / "out"
    assert main(["export", str(artifact), "--out", str(out), "--backend", "tensorrt", *arguments]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(said, message), message
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


def test_without_a_gpu_targets_are_asked_for(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise UserError("no GPU: libcuda.so.1 is missing", "")

    monkeypatch.setattr(build_module, "find_gpu", none)
    with pytest.raises(UserError, match="an engine is built for a GPU: no GPU") as error:
        build_module.plan_identity(read_manifest(artifact), BuildOptions(runtime="tensorrt_rtx"))
    assert error.value.hint == "name the GPUs to build for: --sm 75,80,86,89,120,121"
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu("RTX 3090", 86, 82, "12.6", 1))
    identity = build_module.plan_identity(read_manifest(artifact), BuildOptions(runtime="tensorrt_rtx"))
    assert (identity.sm, identity.device) == ((86,), None)


def with_operator(artifact: Path, folder: Path, kind: str, **attributes: Any) -> Path:
    """The artifact with one more operator, ``extra_node``, in its step."""
    graph = singles_graph(MINI, singles_spec(MINI), np.float32)
    node = helper.make_node(kind, ["z_h"], ["unused"], name="extra_node", **attributes)
    graph.graph.node.append(node)
    folder.mkdir()
    for path in artifact.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if "domain" in attributes:
        graph.opset_import.append(helper.make_opsetid(attributes["domain"], 1))
    onnx.save(graph, folder / STEP_FILE)
    return folder


def test_an_operator_that_the_target_refuses_is_named(artifact: Path, tmp_path: Path) -> None:
    folder = with_operator(artifact, tmp_path / "unique", "Unique")
    with pytest.raises(UserError) as error:
        _run_worker(request_for(folder, tmp_path / "plan"), print)
    assert "refuses node 'extra_node' (Unique, number " in error.value.problem
    assert "run it with ONNX Runtime" in error.value.hint
    folder = with_operator(artifact, tmp_path / "plugin", "FusedAttention", domain="hrm_edge", heads=2)
    with pytest.raises(UserError, match="does not know a plugin that the model uses") as error:
        _run_worker(request_for(folder, tmp_path / "plan"), print)
    assert "load_plugin" in error.value.hint
    (folder / STEP_FILE).write_bytes(b"no model")
    with pytest.raises(UserError, match=r"cannot read .*step\.onnx: .*Failed to parse the ONNX model"):
        _run_worker(request_for(folder, tmp_path / "plan"), print)
    assert not (tmp_path / "plan").exists()


def test_a_precision_that_the_table_does_not_know_is_explained_by_the_builder(artifact: Path, tmp_path: Path) -> None:
    """What the table is made from: asked for float32 on Turing, TensorRT-RTX fails in its compiler."""
    with pytest.raises(UserError, match=r"could not build the engine: .*FP32 GEMM is not supported"):
        _run_worker(request_for(artifact, tmp_path / "plan", (75,)), print)


@pytest.mark.slow
@pytest.mark.ci
def test_out_of_memory_while_building(tmp_path: Path) -> None:
    """A real one: the shipped model, in a command that may not have more than 700 MB of addresses."""
    command = [sys.executable, "-m", "hrm_edge", "export", zoo.names()[0], "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--backend", "tensorrt", "--sm", "86"],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    assert "building the engine ran out of memory (workspace" in said
    assert "bad_alloc" in said
    assert "--workspace MIB or --max-batch N" in said
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


def test_a_builder_that_the_kernel_kills(artifact: Path, tmp_path: Path) -> None:
    """The worker is killed as the out-of-memory killer does it, in the midst of its work."""

    def kill(progress: str) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in map(int, children):
            if "hrm_edge.runtime.trt.worker" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(child, signal.SIGKILL)

    with pytest.raises(UserError, match=r"ran out of memory .*the kernel killed the builder"):
        _run_worker(request_for(artifact, tmp_path / "plan"), kill)


def test_a_worker_that_crashes_or_says_nothing(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    for body, said in (
        ("echo 'Segfault here' >&2; kill -SEGV $$", "ended with signal SIGSEGV: Segfault here"),
        ("exit 3", "ended with exit code 3: it said nothing"),
        ("echo 'std::bad_alloc' >&2; exit 134", r"ran out of memory .*bad_alloc"),
    ):
        script.write_text(f"#!/bin/sh\ncat > /dev/null\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        with pytest.raises(UserError, match=said):
            _run_worker(request_for(artifact, tmp_path / "plan"), print)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_ctrl_c_ends_the_worker(artifact: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    before = children()  # torch's compiler, used by other tests, keeps a worker

    def interrupt(progress: str) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(artifact, tmp_path / "out", BuildOptions(sms=(86,)), interrupt)
    assert "building the engine, " in seen[0]
    time.sleep(0.1)
    assert not (tmp_path / "out").exists()
    assert children() <= before


def test_a_plugin_model_builds_from_its_body(tmp_path: Path) -> None:
    """TensorRT-RTX takes no plugins: the parser reads the node's standard operators, and the engine needs none."""
    torch.manual_seed(0)
    model = HRM(variant_spec("full", vocab=6, seq_len=16, hidden=32, heads=1, h_layers=1, l_layers=1, h_cycles=1))
    weights = {n: t.numpy() for n, t in {**dict(model.named_buffers()), **model.state_dict()}.items()}
    folder = write_singles_artifact(tmp_path / "a", MINI)
    onnx.save(StepGraph(model.spec, weights).build(plugin=True), folder / STEP_FILE)
    raw = {**json.loads((folder / MANIFEST).read_text()), "provenance": {"plugin": {"name": "FusedAttention"}}}
    write_manifest(folder, Manifest.model_validate(raw))
    engine, _ = build_engine(folder, tmp_path / "out", BuildOptions(sms=(86,), max_batch=2), print)
    assert engine.identity.plugin is None


def test_the_version_is_complete(tmp_path: Path) -> None:
    """Where a package says only major.minor.patch, as JetPack's does, the library's build number is asked for."""
    module = find_api("tensorrt_rtx").module

    class Short:
        __version__ = module.__version__.rpartition(".")[0]

    found = api_module._full_version(Short, Path("/proc/self/maps"))
    assert found == module.__version__
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\n")
    assert api_module._full_version(Short, tmp_path / "maps") == Short.__version__


def test_messages_are_kept() -> None:
    api = find_api("tensorrt_rtx")
    messages = Messages()
    logger = logger_for(api, messages)
    logger.log(api.module.ILogger.INFO, "Peak memory usage of TRT CPU/GPU memory allocators: CPU 12 MiB, GPU 34 MiB")
    logger.log(api.module.ILogger.ERROR, "a\n  b")
    assert (messages.errors, messages.peak_mib) == (["a b"], {"cpu": 12, "gpu": 34})
