"""Roofline of one step: where it lies between a machine's compute and memory rates, and its bound on other boards."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np

from hrm_edge.costs import flops_per_step, weight_bytes
from hrm_edge.device.boards import Board, boards
from hrm_edge.report.schema import Prediction, Roofline
from hrm_edge.spec import ModelSpec, step_io

_TRIAL_S = 0.3
MATRIX = 1024
_COPY_BYTES = 1 << 27


def _step_bytes(spec: ModelSpec, precision: str, batch: float) -> float:
    """Return the fewest bytes that a step of ``batch`` puzzles moves: the weights, each input and each output once."""
    carry = 2 if precision == "fp16" else 4  # the carry is never INT8
    sizes = {"int32": 4, "float32": 4, "carry": carry}
    moved = sum(
        sizes[kind] * float(np.prod([int(n) for n in shape if n != "B"])) for kind, shape in step_io(spec).values()
    )
    return weight_bytes(spec)[precision] + batch * moved


def trial_peaks() -> tuple[float, float]:
    """Measure this CPU's float32 operations and copied bytes (read + written) per second, as numpy reaches them."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((MATRIX, MATRIX), np.float32) for _ in range(2))
    source = np.ones(_COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    flops = _best(lambda: np.matmul(a, b), 2.0 * MATRIX**3)
    return flops, _best(lambda: np.copyto(target, source), 2.0 * _COPY_BYTES)


def _best(work: object, amount: float) -> float:
    assert callable(work)
    best, began = float("inf"), time.monotonic()
    while time.monotonic() - began < _TRIAL_S:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return amount / best


def _bound_by(board: Board, precision: str, flops: float, moved: float) -> tuple[float, Literal["compute", "memory"]]:
    """Return the shortest possible step in s on ``board`` at its dense peak rates, and the rate that limits it."""
    compute, memory = flops / board.peak_ops(precision), moved / (board.dram_gb_s * 1e9)
    return (compute, "compute") if compute >= memory else (memory, "memory")


def roofline(spec: ModelSpec, precision: str, batch: float, step_s: float, board: str | None, on_cpu: bool) -> Roofline:
    """Return the roofline of a step of ``batch`` puzzles that took ``step_s`` seconds.

    ``board``: the measured board's key, if it is in the table. On a CPU, the peak rates are measured by a trial.
    """
    flops, moved = batch * flops_per_step(spec), _step_bytes(spec, precision, batch)
    known = boards()
    peaks: tuple[float | None, float | None] = (None, None)
    source = "unknown: this GPU is in no table here"
    if on_cpu:
        source = "float32 matrix product and copy of numpy on this CPU, measured after the run"
        try:
            peaks = trial_peaks()
        # The measurement is done by now; a small board's lack of memory must not lose it.
        except MemoryError:
            source = "unknown: no memory was left to measure this CPU's rates"
    elif board is not None:
        peaks = (known[board].peak_ops(precision), known[board].dram_gb_s * 1e9)
        source = f"{known[board].name}, highest power mode, dense rates of its data sheet"
    predictions = []
    for key, other in known.items():
        if key != board:
            seconds, bound = _bound_by(other, precision, flops, moved)
            predictions.append(Prediction(board=key, name=other.name, step_ms_least=1e3 * seconds, bound=bound))
    return Roofline(
        batch=batch,
        flop_per_step=flops,
        bytes_per_step=moved,
        measured_flop_per_s=flops / step_s,
        peak_flop_per_s=peaks[0],
        peak_bytes_per_s=peaks[1],
        peaks_from=source,
        predictions=predictions,
    )
