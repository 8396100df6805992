"""How far an exported step is from the torch model, measured along the recurrence.

Axes: N puzzles, S cells, T positions, D hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrm_edge.manifest import Gate, Parity, Precision
from hrm_edge.model.session import TorchSession
from hrm_edge.recipe import Limits
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.tasks.base import exact

BATCH = 64


@dataclass(frozen=True)
class CheckSet:
    """Puzzles that an export is measured on; never those it was calibrated with."""

    inputs: NDArray[np.uint8]  # [N, S]
    labels: NDArray[np.uint8] | None  # [N, S]; None: only the numbers can be compared
    puzzle_ids: NDArray[np.int32]  # [N]
    source: str

    def head(self, count: int) -> CheckSet:
        labels = None if self.labels is None else self.labels[:count]
        return CheckSet(self.inputs[:count], labels, self.puzzle_ids[:count], self.source)


def decibels(signal: float, noise: float) -> float:
    """Signal to quantization noise, 10 log10(signal / noise), capped at 200 dB for equal arrays."""
    return 200.0 if noise == 0 else min(200.0, 10.0 * float(np.log10(max(signal, 1e-300) / noise)))


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Smallest cosine between corresponding rows' states [N, ...]."""
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    return float((np.einsum("nd,nd->n", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))).min())


@dataclass
class _Sums:
    """What one measured step adds up over batches."""

    row_max: list[NDArray[np.float64]] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0
    carry_cosine: float = 1.0
    same: int = 0
    right_reference: int = 0
    right_found: int = 0


def measure(
    reference: TorchSession, exported: OrtSession, check: CheckSet, steps: int
) -> tuple[list[Parity], float | None]:
    """Run both for ``steps`` steps; (parity after 1, 4 and all steps, lost exact accuracy in points or None).

    Both carries start equal and then go their own way: errors feed back, as they do in use.
    """
    marks = sorted({1, min(4, steps), steps})
    sums = {mark: _Sums() for mark in marks}
    batch = min(BATCH, exported.max_batch)
    for begin in range(0, len(check.inputs), batch):
        part = slice(begin, begin + batch)
        tokens, ids = check.inputs[part], check.puzzle_ids[part]
        labels = None if check.labels is None else check.labels[part]
        a, b = reference.initial_carry(len(tokens)), exported.initial_carry(len(tokens))
        for step in range(1, steps + 1):
            a, logits_a, _ = reference.step(tokens, ids, a)
            b, logits_b, _ = exported.step(tokens, ids, b)
            if step in sums:
                states = [np.concatenate([np.asarray(z, np.float32) for z in carry], axis=1) for carry in (a, b)]
                _add(sums[step], logits_a, logits_b, states[0], states[1], labels)
    count = len(check.inputs)
    table = [
        Parity(
            steps=mark,
            puzzles=count,
            logits_max_abs=float(np.concatenate(s.row_max).max()),
            logits_median_abs=float(np.median(np.concatenate(s.row_max))),
            logits_sqnr_db=decibels(s.signal, s.noise),
            carry_cosine=s.carry_cosine,
            same_answers=s.same / count,
        )
        for mark, s in sums.items()
    ]
    last = sums[steps]
    lost = None if check.labels is None else 100.0 * (last.right_reference - last.right_found) / count
    return table, lost


def _add(
    sums: _Sums,
    reference: NDArray[np.float32],
    found: NDArray[np.float32],
    state_a: NDArray[np.float32],
    state_b: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
) -> None:
    difference = reference.astype(np.float64) - found
    sums.row_max.append(np.abs(difference).max(axis=(1, 2)))
    sums.signal += float(np.square(reference, dtype=np.float64).sum())
    sums.noise += float(np.square(difference).sum())
    sums.carry_cosine = min(sums.carry_cosine, cosine(state_a, state_b))
    answers_a, answers_b = reference.argmax(-1), found.argmax(-1)
    sums.same += int((answers_a == answers_b).all(-1).sum())
    if labels is not None:
        sums.right_reference += int(exact(answers_a, labels).sum())
        sums.right_found += int(exact(answers_b, labels).sum())


def judge(table: list[Parity], lost_points: float | None, precision: Precision, limits: Limits) -> Gate:
    """Hold a measurement to the recipe's limits; every miss is a sentence."""
    last, failures = table[-1], []
    held: dict[str, float] = {}
    if precision == "fp32":
        # The median, not the largest: on a puzzle that a model cannot settle the recurrence is chaotic, and float32
        # torch is as far from float64 torch as any other exact implementation. The answers catch the tail.
        held["logits_median_abs"] = limits.logits_median_abs_fp32
        if not last.logits_median_abs <= limits.logits_median_abs_fp32:
            failures.append(
                f"logits of the median puzzle differ by {last.logits_median_abs:.2e} after {last.steps} steps, "
                f"the limit is {limits.logits_median_abs_fp32:.0e}"
            )
        held["same_answers"] = limits.same_answers_fp32
        if not last.same_answers >= limits.same_answers_fp32:
            failures.append(
                f"only {last.same_answers:.2%} of the answers are torch's, the limit is {limits.same_answers_fp32:.1%}"
            )
    else:
        floor = limits.sqnr_db_int8 if precision == "int8" else limits.sqnr_db_fp16
        held["logits_sqnr_db"] = floor
        if not last.logits_sqnr_db >= floor:
            failures.append(
                f"SQNR of the logits is {last.logits_sqnr_db:.1f} dB after {last.steps} steps, "
                f"the limit is {floor:g} dB"
            )
    if lost_points is not None:
        held["accuracy_drop_points"] = limits.accuracy_drop_points
        if lost_points > limits.accuracy_drop_points:
            failures.append(
                f"exact accuracy falls by {lost_points:.2f} points on {last.puzzles} puzzles, "
                f"the limit is {limits.accuracy_drop_points:g}"
            )
    return Gate(passed=not failures, limits=held, failures=failures)
