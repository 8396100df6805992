"""Everything that a quantized export or an engine can be given wrong, on the command line: what is said, how it is
explained, exit code 2, and nothing left behind. One table, so that none is forgotten; details have tests of their own.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from hrm_edge.cli.main import main
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.export.recover import ArtifactInfo
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, write_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Limits
from hrm_edge.records import read_record
from hrm_edge.runtime.trt import build as building
from hrm_edge.runtime.trt import open as opening
from hrm_edge.runtime.trt.api import Api
from hrm_edge.runtime.trt.cuda import _CudaPython
from hrm_edge.runtime.trt.device import Gpu
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE
from hrm_edge.runtime.trt.targets import _table, check_targets
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_graph, singles_puzzles, singles_spec, write_singles_artifact
from tests.export.written import export
from tests.runtime.simulated import ORIN, Device, add_engine, cuda_runtime, simulated_api
from tests.runtime.test_trt_refusals import flip, garbage

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)
XAVIER = Gpu("Xavier", 72, 8, "11.4", 16 << 30)
Patch = pytest.MonkeyPatch


def refused(arguments: list[str], said: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(said, message), message
    assert re.search(hint, message), message


# -- calibration -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    file = sample_file("sudoku")
    assert file is not None
    return load_puzzles(file, NINE, 80).givens


def file_of(folder: Path, puzzles: np.ndarray, task: Sudoku = NINE) -> Path:
    path = folder / "set.txt"
    path.write_text("".join(f"{task.format(row)}\n" for row in puzzles))
    return path


def turned(puzzles: np.ndarray) -> np.ndarray:
    return puzzles.reshape(-1, 9, 9).transpose(0, 2, 1).reshape(len(puzzles), -1)


def other_folder(folder: Path) -> Path:
    build(get_task("mini-sudoku"), folder / "mini", Options(source="generate", count=60, test_count=20, seed=0))
    return folder / "mini"


CALIBRATION: dict[str, tuple[Callable[[Path, np.ndarray], Path], str, str]] = {
    "missing": (lambda f, q: f / "none", r"--calibration \S+none: there is no such file or folder", "check the path"),
    "too small": (
        lambda f, q: file_of(f, q[:20]), "the calibration set has 10 puzzles, at least 16 are needed",
        "give a larger one with --calibration",
    ),
    "a file of another task": (
        lambda f, q: file_of(f, singles_puzzles(MINI, 40)[0], MINI),
        r"set\.txt, line 1, column 10: read 16 cells, a sudoku puzzle has 81", "16 cells are a mini-sudoku puzzle",
    ),
    "a folder of another task": (
        lambda f, q: other_folder(f), "is a data folder of another task: expected sudoku, found mini-sudoku",
        "hrm-edge data build",
    ),
    "overlapping": (
        lambda f, q: file_of(f, np.concatenate([q[:20], q[18:38]])),
        r"2 of 20 puzzles of set\.txt, second half are in set\.txt, first half too", "calibrate on other puzzles",
    ),
    "overlapping by a symmetry": (
        lambda f, q: file_of(f, np.concatenate([q[:20], q[40:59], turned(q[3:4])])),
        r"1 of 20 puzzles .* \(the same or a symmetry of it\), the first of them number 20",
        "an export is not measured on what it was calibrated with",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CALIBRATION))
def test_calibration(case: str, samples: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, said, hint = CALIBRATION[case]
    out = tmp_path / "out"
    command = ["export", "sudoku-nano", "--out", str(out), "--int8", "--calibration", str(make(tmp_path, samples))]
    refused(command, said, hint, capsys)
    assert not out.exists()


def test_a_task_without_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    sizes = {"vocab": 6, "seq_len": 16, "grid": (4, 4, 2, 2), "hidden": 32, "heads": 2, "max_steps": 2}
    model = HRM(variant_spec("nano", **sizes, grid_heads=False)).eval()
    info = ArtifactInfo(task="mini-sudoku", spec=model.spec, from_artifact={})
    export(model, info, tmp_path / "mini", precision="fp32", limits=Limits(puzzles=16))
    refused(
        ["export", str(tmp_path / "mini"), "--out", str(tmp_path / "out"), "--int8"],
        "INT8 needs real puzzles to calibrate on, and the package has no set for mini-sudoku",
        "name a data folder or file: --calibration PATH", capsys,
    )  # fmt: skip


# -- precision by architecture ---------------------------------------------------------------------------------------

PRECISIONS = ("fp32", "fp16", "int8")
MATRIX = [(runtime, int(sm), precision) for runtime in ("tensorrt", "tensorrt_rtx") for sm in _table()[runtime]
          for precision in PRECISIONS]  # fmt: skip


@pytest.mark.parametrize(("runtime", "sm", "precision"), MATRIX)
def test_every_precision_on_every_architecture(runtime: Any, sm: int, precision: Any) -> None:
    """What the table allows passes; what it does not is refused with its name and what would run."""
    api, row = Api(runtime, SimpleNamespace(), "1"), _table()[runtime][str(sm)]
    if precision in row["precisions"]:
        check_targets(api, (sm,), precision)
        return
    with pytest.raises(UserError) as error:
        check_targets(api, (sm,), precision)
    assert error.value.problem == f"{runtime} does not run {precision} on SM{sm} ({row['chips']})"
    offer = f"export the model with --{row['precisions'][0]}" if row["precisions"] else "use ONNX Runtime"
    assert error.value.hint.endswith(offer)


def test_a_precision_that_this_gpu_does_not_run(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "find_gpu", lambda: XAVIER)
    monkeypatch.setattr(building, "find_api", lambda name: simulated_api(Device()))
    command = ["export", "sudoku-nano-int8", "--out", str(tmp_path / "out"), "--backend", "tensorrt"]
    refused(command, r"tensorrt does not run int8 on SM72 \(Jetson Xavier\)", "use ONNX Runtime", capsys)


# -- engines ---------------------------------------------------------------------------------------------------------


def nothing(folder: Path) -> None:
    """The engine as it was built."""


BUILD = r"hrm-edge export \S+ --out \S+-here --backend tensorrt"
ENGINES: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str, str]] = {
    "another TensorRT": (nothing, {"version": "11.4.1.2"}, r"tensorrt: built for 10\.3\.0\.30, here is 11\.4", BUILD),
    "another GPU": (
        nothing, {"gpu": Gpu("RTX 4090", 89, 128, "12.6", 24 << 30)},
        r"device: built for Orin, here is RTX 4090; .*sm: built for \[87\], here is 89", BUILD,
    ),
    "the same chip with fewer cores": (
        nothing, {"gpu": dataclasses.replace(ORIN, sm_count=4)}, "sm_count: built for 8, here is 4", BUILD,
    ),
    "another CUDA": (nothing, {"gpu": dataclasses.replace(ORIN, cuda="13.2")}, "cuda: built for 12.6, here is", BUILD),
    "a flipped bit": (flip, {}, r"engine\.plan: hash mismatch", "the file was changed or damaged: build it here"),
    "a torn plan": (
        lambda f: (f / PLAN_FILE).write_bytes(b"x"), {}, r"engine\.plan has 1 bytes", "the file is torn: build it here"
    ),
    "no plan": (lambda f: (f / PLAN_FILE).unlink(), {}, r"holds no engine: engine\.plan is missing", BUILD),
    "no sidecar": (lambda f: (f / SIDECAR_FILE).unlink(), {}, "what engine.plan was built for cannot be known", BUILD),
    "what TensorRT does not read": (garbage, {}, r"cannot read \S+engine\.plan: Serialization assertion failed", BUILD),
}  # fmt: skip


@pytest.mark.parametrize("case", list(ENGINES))
def test_engines(case: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    change, here, said, hint = ENGINES[case]
    folder, simulated = write_singles_artifact(tmp_path / "a", MINI), Device()
    add_engine(folder, simulated_api(simulated))
    change(folder)
    api = simulated_api(simulated, here.get("version", "10.3.0.30"))
    monkeypatch.setattr(opening, "_built_before", lambda path, manifest: path)
    monkeypatch.setattr(opening, "find_api", lambda name: api)
    monkeypatch.setattr(opening, "find_gpu", lambda: here.get("gpu", ORIN))
    monkeypatch.setattr(opening, "find_cuda", lambda: _CudaPython(cuda_runtime(simulated)))
    refused(["solve", "0030400000020100", "--model", str(folder)], said, hint, capsys)


# -- building --------------------------------------------------------------------------------------------------------


def rtx(artifact: Path, out: Path, *more: str) -> list[str]:
    return ["export", str(artifact), "--out", str(out), "--backend", "tensorrt", "--sm", "86", *more]


MEMORY = {
    "the kernel kills the builder": "kill -KILL $$",
    "an allocation fails in the builder": "echo 'std::bad_alloc' >&2; exit 134",
    "Python has no more": "echo 'MemoryError' >&2; exit 1",
}


@pytest.mark.rtx
@pytest.mark.parametrize("case", list(MEMORY))
def test_out_of_memory(case: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    """A builder that ends so; a real one runs out of memory in tests/runtime/test_trt_build.py."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\ncat > /dev/null\n{MEMORY[case]}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    artifact, out = write_singles_artifact(tmp_path / "a", MINI), tmp_path / "out"
    said = r"building the engine ran out of memory \(workspace \d+ MiB, batch up to 64\)"
    refused(rtx(artifact, out, "--no-cache"), said, "--workspace MIB or --max-batch N, close other programs", capsys)
    assert not out.exists()
    more = rtx(artifact, out, "--workspace", "99999999")
    refused(more, "--workspace 99999999 MiB is more than half of the", r"ask for \d+ or less", capsys)


def with_operator(folder: Path) -> Path:
    """An artifact whose step needs an operator that nobody knows, properly sealed."""
    artifact = write_singles_artifact(folder, MINI)
    graph = singles_graph(MINI, singles_spec(MINI), np.float32)
    (last,) = (node for node in graph.graph.node if "z_l_next" in node.output)
    last.output[0] = "before_it"
    graph.graph.node.append(helper.make_node("Frobnicate", ["before_it"], ["z_l_next"], name="mine", domain="example"))
    graph.opset_import.append(helper.make_opsetid("example", 1))
    onnx.save(graph, artifact / STEP_FILE)
    manifest = read_record(artifact / MANIFEST, Manifest, 1, again="")
    write_manifest(artifact, manifest.model_copy(update={"files": {}}))
    return artifact


@pytest.mark.rtx
def test_an_operator_that_a_target_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By each of them, named; Torch-TensorRT's: tests/export/test_torch_module.py."""
    artifact = with_operator(tmp_path / "a")
    solve = ["solve", "0030400000020100", "--model", str(artifact), "--backend"]
    refused([*solve, "onnxruntime"], "refuses it: .*Frobnicate", "a newer onnxruntime may take it", capsys)
    refused([*solve, "openvino"], "refuses it: .*Frobnicate", "run it with --backend onnxruntime", capsys)
    said = r"tensorrt_rtx \S+ refuses node 'mine' \(Frobnicate, number \d+\) of \S+step\.onnx"
    refused(rtx(artifact, tmp_path / "out"), said, "run it with ONNX Runtime: --backend onnxruntime", capsys)
    assert not (tmp_path / "out").exists()
