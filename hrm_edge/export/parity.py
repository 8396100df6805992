"""How far an exported step is from the torch model, measured along the recurrence.

Axes: N puzzles, S cells, T positions, D hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrm_edge.manifest import Gate, Parity, Precision
from hrm_edge.model.session import TorchSession
from hrm_edge.quant.sensitivity import decibels
from hrm_edge.quant.sets import CheckSet
from hrm_edge.recipe import Limits
from hrm_edge.report import Z_95
from hrm_edge.session import Session
from hrm_edge.tasks.base import exact

BATCH = 64


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine [N] between corresponding rows' states [N, ...]."""
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    return np.asarray(np.einsum("nd,nd->n", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)))


@dataclass(frozen=True)
class Lost:
    """Exact accuracy that the export lost, in points, on the puzzles that both answered."""

    points: float
    interval_95: tuple[float, float]


def paired_loss(only_reference: int, only_found: int, count: int) -> Lost:
    """``only_reference`` puzzles of ``count`` were right before and wrong after, ``only_found`` the other way round.

    Interval of the difference of paired shares by Agresti and Min (2005): half a puzzle more in each of the four
    cells, which keeps it honest where no puzzle changed.
    """
    b, c, n = only_reference + 0.5, only_found + 0.5, count + 2.0
    middle, spread = (b - c) / n, Z_95 * float(np.sqrt(b + c - (b - c) ** 2 / n)) / n
    return Lost(100.0 * (only_reference - only_found) / count, (100.0 * (middle - spread), 100.0 * (middle + spread)))


@dataclass
class _Sums:
    """What one measured step adds up over batches."""

    row_max: list[NDArray[np.float64]] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0
    carry_cosines: list[NDArray[np.float64]] = field(default_factory=list)
    same: int = 0
    only_reference: int = 0
    only_found: int = 0


def measure(
    reference: TorchSession, exported: Session, check: CheckSet, steps: int
) -> tuple[list[Parity], Lost | None]:
    """Run both for ``steps`` steps; (parity after 1, 4 and all steps, lost exact accuracy or None without answers).

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
                _add(sums[step], logits_a, logits_b[:], states[0], states[1], labels)
    count = len(check.inputs)
    table = [
        Parity(
            steps=mark,
            puzzles=count,
            logits_max_abs=float(np.concatenate(s.row_max).max()),
            logits_median_abs=float(np.median(np.concatenate(s.row_max))),
            logits_sqnr_db=decibels(s.signal, s.noise),
            carry_cosine=float(np.concatenate(s.carry_cosines).min()),
            carry_cosine_mean=float(np.concatenate(s.carry_cosines).mean()),
            same_answers=s.same / count,
        )
        for mark, s in sums.items()
    ]
    last = sums[steps]
    lost = None if check.labels is None else paired_loss(last.only_reference, last.only_found, count)
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
    sums.carry_cosines.append(cosines(state_a, state_b))
    answers_a, answers_b = reference.argmax(-1), found.argmax(-1)
    sums.same += int((answers_a == answers_b).all(-1).sum())
    if labels is not None:
        before, after = exact(answers_a, labels), exact(answers_b, labels)
        sums.only_reference += int((before & ~after).sum())
        sums.only_found += int((after & ~before).sum())


def judge(table: list[Parity], lost: Lost | None, precision: Precision, limits: Limits) -> Gate:
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
        held["carry_cosine_mean"] = limits.carry_cosine
        if last.carry_cosine_mean is not None and not last.carry_cosine_mean >= limits.carry_cosine:
            failures.append(
                f"the carry's mean cosine with torch's is {last.carry_cosine_mean:.4f} after {last.steps} steps, "
                f"the limit is {limits.carry_cosine:g}"
            )
    if lost is not None:
        most = limits.accuracy_drop_points_fp16 if precision == "fp16" else limits.accuracy_drop_points
        held["accuracy_drop_points"] = most
        if lost.points > most:
            low, high = lost.interval_95
            failures.append(
                f"exact accuracy falls by {lost.points:.2f} points on {last.puzzles} puzzles "
                f"(95 %: {low:+.2f} to {high:+.2f}), the limit is {most:g}"
            )
    return Gate(passed=not failures, limits=held, failures=failures)
