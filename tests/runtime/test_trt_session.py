"""The GPU session on a simulated GPU: the same numbers as ONNX Runtime, and what crosses between host and device.

The engines execute for real (see ``simulated.py``); that a real GPU agrees is the business of ``test_trt_gpu.py``.
"""

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrm_edge import zoo
from hrm_edge.errors import UserError
from hrm_edge.manifest import read_manifest
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.trt import cuda as seam
from hrm_edge.runtime.trt.cuda import Cuda, _CudaPython, _PyCuda, _Torch, find_cuda, try_cuda
from hrm_edge.runtime.trt.open import open_engine
from hrm_edge.runtime.trt.session import TrtSession, _padded, _runs
from hrm_edge.session import FRESH
from hrm_edge.solve import solve
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_puzzles, write_singles_artifact
from tests.runtime.simulated import ORIN, Device, add_engine, cuda_runtime, pycuda_driver, simulated_api, torch_module

MINI = Sudoku(2, 2)
BACKENDS = {
    "cuda-python": lambda device: _CudaPython(cuda_runtime(device)),
    "pycuda": lambda device: _PyCuda(pycuda_driver(device)),
    "torch": lambda device: _Torch(torch_module(device)),
}


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_simulated(
    folder: Path, backend: str = "cuda-python", max_batch: int = 64, device: Device | None = None
) -> tuple[TrtSession, Device]:
    device = device or Device()
    api = simulated_api(device)
    add_engine(folder, api, max_batch=max_batch)
    cuda: Cuda = BACKENDS[backend](device)
    return open_engine(folder, read_manifest(folder), api=api, gpu=ORIN, cuda=cuda), device


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_and_gathers_as_onnx_runtime_does(tmp_path: Path, backend: str, precision: str) -> None:
    """A long random course: refills in place, moves, shrinking, growing beyond the buffers, and puzzle vectors."""
    folder = write_singles_artifact(tmp_path / "a", MINI, precision=precision, puzzle_dim=10, puzzles=5)
    session, _ = open_simulated(folder, backend)
    reference, _ = open_artifact(folder, threads=1, backend="onnxruntime")
    givens, _ = singles_puzzles(MINI, 24)
    rng = np.random.default_rng(0)
    ours, theirs = session.initial_carry(3), reference.initial_carry(3)
    which, moves = rng.integers(0, 24, 3), set()
    for _ in range(60):
        size = int(rng.integers(1, 13))
        kept = rng.permutation(len(which))[: int(rng.integers(0, min(size, len(which)) + 1))]
        if rng.random() < 0.5:
            kept = np.sort(kept)
        rows = np.full(size, FRESH)
        rows[np.sort(rng.permutation(size)[: len(kept)])] = kept
        moves.add("moved" if ((rows != FRESH) & (rows != np.arange(size))).any() else "in place")
        moves.add("grown" if size > session_capacity(ours) else "fits")
        which = np.where(rows == FRESH, rng.integers(0, 24, size), which[rows])
        ours, theirs = session.gather(ours, rows), reference.gather(theirs, rows)
        for a, b in zip(list(ours), theirs, strict=True):
            assert (a == b).all()
        for _ in range(int(rng.integers(1, 4))):
            ids = (which % 5).astype(np.int32)
            ours, logits, q = session.step(givens[which], ids, ours)
            theirs, expected, expected_q = reference.step(givens[which], ids, theirs)
            some = rng.permutation(size)[: max(1, size // 2)]
            assert (logits[some] == expected[some]).all()
            assert (logits[:] == expected).all()
            assert (q == expected_q).all()
            assert q.dtype == logits[:1].dtype == np.float32
    assert moves == {"moved", "in place", "grown", "fits"}
    for a, b in zip(list(ours), theirs, strict=True):
        assert (a == b).all()


def session_capacity(carry: Any) -> int:
    return int(carry.slots.capacity)


@pytest.mark.parametrize("halt", ["rules", "head", "fixed"])
def test_solving_is_the_same(tmp_path: Path, backend: str, halt: Any) -> None:
    """Slots are refilled and the batch shrinks at the end; answers, steps and reasons are ONNX Runtime's."""
    folder = write_singles_artifact(tmp_path / "a", MINI)
    session, _ = open_simulated(folder, backend)
    reference, _ = open_artifact(folder, threads=1, backend="onnxruntime")
    givens, answers = singles_puzzles(MINI, 40)
    found, expected = (solve(each, MINI, givens, halt=halt, slots=7, max_steps=9) for each in (session, reference))
    assert (found.answers == expected.answers).all()
    assert (found.answers == answers).all()
    assert (found.steps == expected.steps).all()
    assert found.halted_by == expected.halted_by
    assert session.backend == "tensorrt-cuda"


def test_the_shipped_model_solves_the_same(tmp_path: Path) -> None:
    """Real weights, feedback over 16 steps, views: the padded batch may round differently, the answers may not."""
    name = zoo.default_for("sudoku")
    assert name is not None
    folder = tmp_path / "a"
    shutil.copytree(zoo.folder_of(name) or "", folder)
    task, sample = Sudoku(3, 3), sample_file("sudoku")
    assert sample is not None
    givens = np.stack([task.parse(line.split(",")[0]) for line in sample.read_text().splitlines()[1:7]])
    session, _ = open_simulated(folder)
    reference, _ = open_artifact(folder, threads=1, backend="onnxruntime")
    found, expected = (solve(each, task, givens, slots=4, views=2) for each in (session, reference))
    assert (found.verified == expected.verified).all()
    assert (found.answers[found.verified] == expected.answers[found.verified]).all()
    assert found.verified.any()


def test_what_crosses_to_the_host(tmp_path: Path, backend: str) -> None:
    """Per step q, and the logits of the slots that halted; tokens go up once a refill; the carry never crosses."""
    session, device = open_simulated(write_singles_artifact(tmp_path / "a", MINI), backend)
    givens, _ = singles_puzzles(MINI, 20)
    device.bytes_down, device.counts = 0, {}
    found = solve(session, MINI, givens, halt="head", slots=4, max_steps=9)
    assert found.verified.all()
    sizes = np.bincount(found.steps)
    steps = device.counts["executed"]
    row = 16 * MINI.vocab * 4
    rows_down = 20  # each puzzle's logits, once, when it halts
    assert device.bytes_down <= rows_down * row + steps * 4 * 4
    assert device.bytes_down >= rows_down * row + steps * 4
    assert device.counts["up"] <= steps < found.steps.sum()
    assert sizes[0] == 0


def test_a_step_is_one_launch_once_its_graphs_are_recorded(tmp_path: Path) -> None:
    session, device = open_simulated(write_singles_artifact(tmp_path / "a", MINI))
    givens, _ = singles_puzzles(MINI, 5)
    carry = session.initial_carry(5)
    for step in range(8):
        device.counts = {}
        carry, _, _ = session.step(givens, np.zeros(5, np.int32), carry)
        if step >= 2:  # both directions of the ping-pong are known
            assert device.counts == {"launch": 1, "executed": 1}
    assert set(carry.slots.launches) == {(0, 6), (1, 6)}
    assert list(carry)[1][:, 0, 0].tolist() == [8.0] * 5


def test_where_nothing_can_be_recorded_it_is_queued(tmp_path: Path) -> None:
    """PyCUDA has no graphs, and an engine may say that it cannot be recorded."""
    folder = write_singles_artifact(tmp_path / "a", MINI)
    givens, _ = singles_puzzles(MINI, 5)
    for backend in ("pycuda", "cuda-python"):
        session, device = open_simulated(folder, backend)
        session._engine.capturable = False
        carry = session.initial_carry(5)
        for _ in range(4):
            device.counts = {}
            carry, _, _ = session.step(givens, np.zeros(5, np.int32), carry)
            assert (device.counts["executed"], device.counts["enqueued"]) == (1, 1)
            assert "launch" not in device.counts


def test_memory_is_used_again_and_given_back(tmp_path: Path, backend: str) -> None:
    session, device = open_simulated(write_singles_artifact(tmp_path / "a", MINI), backend)
    givens, _ = singles_puzzles(MINI, 8)
    solve(session, MINI, givens, slots=8)
    allocated = len(device.allocations)
    for _ in range(3):
        solve(session, MINI, givens, slots=8)
    assert len(device.allocations) == allocated
    del session
    gc.collect()
    if backend == "cuda-python":  # the others' allocations free themselves, which is their packages' business
        assert not device.allocations


def test_stale_carries_and_logits_are_refused(tmp_path: Path) -> None:
    session, _ = open_simulated(write_singles_artifact(tmp_path / "a", MINI), max_batch=4)
    givens, _ = singles_puzzles(MINI, 2)
    ids = np.zeros(2, np.int32)
    first = session.initial_carry(2)
    second, logits, _ = session.step(givens, ids, first)
    with pytest.raises(ValueError, match="this carry was used already"):
        session.step(givens, ids, first)
    session.step(givens, ids, second)
    with pytest.raises(ValueError, match="of a step before the last"):
        logits[0:1]
    with pytest.raises(ValueError, match=r"batch 5 is not in 1\.\.4"):
        session.initial_carry(5)
    with pytest.raises(ValueError, match="1 puzzles for a carry of 2 slots"):
        session.step(givens[:1], ids, session.initial_carry(2))


def test_a_full_gpu_is_told(tmp_path: Path) -> None:
    folder = write_singles_artifact(tmp_path / "a", MINI)
    session, device = open_simulated(folder)
    device.limit = 10_000 + sum(map(len, device.allocations.values()))
    session.initial_carry(1)
    with pytest.raises(UserError, match="the GPU is out of memory: cudaMalloc failed with cudaErrorMemoryAllocation"):
        session.initial_carry(64)


def test_padded() -> None:
    sizes = sorted({_padded(batch, 1024) for batch in range(1, 1025)})
    assert sizes == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    assert _padded(50, 60) == 60
    assert all(batch <= _padded(batch, 1000) <= max(2, 1.5 * batch) for batch in range(1, 1000))


def test_runs() -> None:
    rows = np.array([0, 1, 2, FRESH, FRESH, 7, 6, 7, FRESH, 0])
    assert list(_runs(rows)) == [(0, 0, 3), (3, -1, 2), (5, 7, 1), (6, 6, 2), (8, -1, 1), (9, 0, 1)]
    assert list(_runs(np.array([FRESH, 0]))) == [(0, -1, 1), (1, 0, 1)]  # -1 is followed by 0, and is no row
    assert list(_runs(np.array([], np.int64))) == []


def test_the_package_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setitem(sys.modules, "torch", torch_module(device))
    assert find_cuda().name == "torch"
    without = torch_module(device)
    without.cuda.is_available = lambda: False
    monkeypatch.setitem(sys.modules, "torch", without)
    packages = {"cuda.bindings.runtime": cuda_runtime(device), "pycuda.driver": pycuda_driver(device)}

    def load(name: str) -> Any:
        if name not in packages:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return packages[name]

    monkeypatch.setattr(seam, "importlib", SimpleNamespace(import_module=load))
    assert find_cuda().name == "cuda-python"
    packages["cuda.cudart"] = packages.pop("cuda.bindings.runtime")  # as it was called before 12.8
    assert find_cuda().name == "cuda-python"
    del packages["cuda.cudart"]
    assert find_cuda().name == "pycuda"
    packages.clear()
    with pytest.raises(UserError, match="nothing to move data to the GPU with") as error:
        find_cuda()
    assert "hrm-edge[gpu]" in error.value.hint


def test_the_real_cuda_python_says_that_there_is_no_gpu() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install 'hrm-edge[gpu]'")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU: test_trt_gpu.py runs on it")
    simulated = vars(cuda_runtime(Device()))
    for name in simulated:  # the names are the real package's
        assert hasattr(runtime, name), name
    for name in vars(simulated["cudaMemcpyKind"]):
        assert hasattr(runtime.cudaMemcpyKind, name)
    with pytest.raises(UserError, match="CUDA: there is no driver"):
        _CudaPython()


def test_a_binding_of_a_newer_cuda_is_told_with_the_one_to_install() -> None:
    with pytest.raises(UserError, match=r"is for CUDA 13\.4, this driver runs CUDA 12\.6 \(cudaSetDevice") as error:
        _CudaPython(cuda_runtime(Device(), runtime=13040, driver=12060))
    assert "pip install 'cuda-python==12.*'" in error.value.hint
    with pytest.raises(UserError, match="CUDA: there is no driver") as error:
        _CudaPython(cuda_runtime(Device(), driver=0))
    assert "--runtime nvidia" in error.value.hint
    _CudaPython(cuda_runtime(Device(), runtime=12060, driver=13020))  # an older one is what CUDA promises


def test_12_6_without_a_driver_is_told_too() -> None:
    """Its runtime is written over the driver's library, and raises where there is none."""
    runtime = cuda_runtime(Device())

    def absent(index: int) -> None:
        raise RuntimeError('Function "cuInit" not found')

    runtime.cudaSetDevice = absent
    with pytest.raises(UserError, match="there is no driver") as error:
        _CudaPython(runtime)
    assert "--runtime nvidia" in error.value.hint


@pytest.mark.parametrize("lost", [False, True])
def test_the_doctors_probe_moves_data_there_and_back(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    device = Device()
    monkeypatch.setattr(seam, "find_cuda", lambda: _CudaPython(cuda_runtime(device, driver=13020)))
    if lost:
        monkeypatch.setattr(device, "up", lambda to, host: None)
        with pytest.raises(UserError, match="what came back from the GPU is not what was sent"):
            try_cuda()
        return
    assert try_cuda() == {"binding": "cuda-python", "runtime": "12.6", "driver": "13.2"}
    assert (device.counts["up"], device.counts["down"]) == (1, 1)
