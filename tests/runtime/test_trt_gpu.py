"""On a real GPU: engines that run, and give ONNX Runtime's answers. Not run by CI; ``pytest -m trt`` on such a machine.

The shipped model is built by whatever TensorRT is installed, and compared after every step of the recurrence.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm_edge import zoo
from hrm_edge.api.engine_parity import check_set, measure_engine
from hrm_edge.errors import UserError
from hrm_edge.manifest import Manifest, read_manifest
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.trt.api import RUNTIMES, find_api
from hrm_edge.runtime.trt.build import BuildOptions, build_engine
from hrm_edge.runtime.trt.cuda import _CudaPython, _PyCuda, _Torch
from hrm_edge.runtime.trt.device import find_gpu
from hrm_edge.runtime.trt.identity import read_engine
from hrm_edge.runtime.trt.open import open_engine
from hrm_edge.session import FRESH
from hrm_edge.solve import solve
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku

pytestmark = [pytest.mark.trt, pytest.mark.gpu]
TASK = Sudoku(3, 3)


def givens(count: int) -> np.ndarray:
    sample = sample_file("sudoku")
    assert sample is not None
    return np.stack([TASK.parse(line.split(",")[0]) for line in sample.read_text().splitlines()[1 : count + 1]])


@pytest.fixture(scope="module", params=RUNTIMES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    pytest.importorskip(request.param)
    find_gpu()
    out = tmp_path_factory.mktemp("engine") / request.param
    artifact = zoo.folder_of(zoo.names()[0])
    assert artifact is not None
    build_engine(artifact, out, BuildOptions(runtime=request.param, use_cache=False), print)
    return out, read_manifest(out)


@pytest.fixture(params=["cuda-python", "pycuda", "torch"])
def cuda(request: pytest.FixtureRequest) -> Any:
    if request.param == "torch":
        if not pytest.importorskip("torch").cuda.is_available():
            pytest.skip("torch without CUDA")
        return _Torch()
    if request.param == "pycuda":
        pytest.importorskip("pycuda.driver")
        return _PyCuda()
    pytest.importorskip("cuda")
    return _CudaPython()


def test_it_steps_as_onnx_runtime_does(engine: tuple[Path, Manifest], cuda: Any) -> None:
    folder, manifest = engine
    session = open_engine(folder, manifest, cuda=cuda)
    reference, _ = open_artifact(folder, backend="onnxruntime")
    puzzles, rng = givens(24), np.random.default_rng(0)
    ours, theirs = session.initial_carry(24), reference.initial_carry(24)
    for step in range(16):
        if step in (5, 9):  # some halt and are refilled, and the batch shrinks
            rows = np.where(rng.random(len(puzzles)) < 0.3, FRESH, np.arange(len(puzzles)))[: len(puzzles) - 3]
            puzzles = puzzles[: len(rows)]
            ours, theirs = session.gather(ours, rows), reference.gather(theirs, rows)
        ids = np.zeros(len(puzzles), np.int32)
        ours, logits, q = session.step(puzzles, ids, ours)
        theirs, expected, expected_q = reference.step(puzzles, ids, theirs)
        same = (logits[:].argmax(-1) == np.asarray(expected[:]).argmax(-1)).mean()
        assert same > 0.995, f"step {step + 1}: {same:.2%} of the cells agree"
        if step == 0:
            assert np.abs(logits[:] - np.asarray(expected[:])).max() < 1e-3
            assert np.abs(q - expected_q).max() < 1e-3


@pytest.mark.parametrize("halt", ["rules", "head", "fixed"])
def test_it_solves(engine: tuple[Path, Manifest], halt: Any) -> None:
    folder, manifest = engine
    session = open_engine(folder, manifest)
    reference, _ = open_artifact(folder, backend="onnxruntime")
    found, expected = (solve(each, TASK, givens(64), halt=halt, slots=16) for each in (session, reference))
    assert abs(int(found.verified.sum()) - int(expected.verified.sum())) <= 1


def test_its_parity_is_within_the_artifacts_limits(engine: tuple[Path, Manifest]) -> None:
    folder, manifest = engine
    found = measure_engine(open_engine(folder, manifest), manifest, check_set(manifest.task, None), print)
    assert found.gate.passed, found.gate.failures
    assert read_engine(folder).parity_on(find_gpu().name, found.backend) == found


def test_it_is_refused_for_another_gpu(engine: tuple[Path, Manifest]) -> None:
    folder, manifest = engine
    other = dataclasses.replace(find_gpu(), name="another", sm=52, sm_count=1)
    with pytest.raises(UserError, match=r"is not valid here: .*here is 52"):
        open_engine(folder, manifest, gpu=other)
    assert find_api().version.count(".") == 3
