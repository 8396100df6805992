"""Parity of two sessions along the recurrence: of an export with its torch model, of an engine with its artifact.

A model that does not solve a puzzle never converges on it, and the recurrence amplifies any difference: a start changed
by a thousandth ends elsewhere, in float32 too. The state after all steps then says nothing about the precision of the
arithmetic. Exports are therefore compared on the puzzles on which both sides converge, and the accuracy shows on how
many each side does.

Axes: N puzzles, S cells, T positions, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.costs import reference_batch
from hrm_edge.manifest import Gate, Over, Parity, Precision
from hrm_edge.recipe import Limits
from hrm_edge.report.figures import AccuracyDrop, accuracy_drop, decibels
from hrm_edge.session import Carry, Rolled, Session, rollout, wants_to_halt
from hrm_edge.tasks.base import exact
from hrm_edge.tasks.puzzles import Puzzles

_FEWEST_SETTLED = 16  # puzzles: a mean over fewer says little


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine float64 [N] between corresponding rows' states [N, ...]."""
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    return np.asarray(np.einsum("nd,nd->n", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)))


def converged(after: Rolled) -> NDArray[np.bool_]:
    """Return bool [B]: whether the answers after a step obey the rules, so that a solver would take them.

    ARC has no rules to check an answer by: there the halting head decides.
    """
    task = after.puzzles.task
    if not task.has_rules:
        return wants_to_halt(after.q)
    return task.verify(after.puzzles.givens, after.logits[:].argmax(-1).astype(np.uint8))


@dataclass(frozen=True)
class Measured:
    """Parity over all puzzles after 1, 4 and all steps, and over subsets: see ``Manifest.parity_apart``."""

    everywhere: list[Parity]
    apart: list[Parity]
    drop: AccuracyDrop | None
    """Exact accuracy lost; None where the labels are not known."""

    def gate_row(self) -> Parity:
        """Return the parity that judges an INT8 or float16 export: where both converge, or over all if these are too
        few.
        """
        both = (row for row in self.apart if row.over == "both settle" and row.puzzles >= _FEWEST_SETTLED)
        return next(both, self.everywhere[-1])


@dataclass(frozen=True)
class _Apart:
    """Differences between the reference and the export after one step, for each puzzle [N]."""

    max_abs: NDArray[np.float64]
    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    cosine: NDArray[np.float64]
    same: NDArray[np.bool_]
    right_before: NDArray[np.bool_]
    right_after: NDArray[np.bool_]

    def parity(self, steps: int, over: Over, rows: NDArray[np.bool_] | slice = slice(None)) -> Parity:
        """Return the parity over the puzzles ``rows`` after ``steps`` steps."""
        largest, cosine = self.max_abs[rows], self.cosine[rows]
        return Parity(
            over=over,
            steps=steps,
            puzzles=len(largest),
            logits_max_abs=float(largest.max()),
            logits_median_abs=float(np.median(largest)),
            logits_sqnr_db=decibels(float(self.signal[rows].sum()), float(self.noise[rows].sum())),
            carry_cosine=float(cosine.min()),
            carry_cosine_mean=float(cosine.mean()),
            same_answers=float(self.same[rows].mean()),
        )

    def accuracy_drop(self) -> AccuracyDrop:
        """Return the exact accuracy lost by the export, with its interval."""
        only_reference = int((self.right_before & ~self.right_after).sum())
        only_found = int((self.right_after & ~self.right_before).sum())
        return accuracy_drop(only_reference, only_found, len(self.same))


def _columns(apart: _Apart) -> list[NDArray[Any]]:
    return [getattr(apart, field.name) for field in fields(apart)]


def _joined(parts: list[_Apart]) -> _Apart:
    return _Apart(*(np.concatenate(columns) for columns in zip(*map(_columns, parts), strict=True)))


def measure(
    reference: Session,
    exported: Session,
    check: Puzzles,
    steps: int,
    rotation: NDArray[np.float32] | None = None,
) -> Measured:
    """Run both sessions for ``steps`` steps without halting, and compare them after 1, 4 and all steps.

    Both start from equal carries and each continues from its own: errors feed back, as they do in use. The accuracy is
    compared where all answers of ``check`` are known. ``rotation`` float32 [D, D]: the export's states are the
    reference's times this matrix (``hrm_edge.quant.rotate``).
    """
    marks = sorted({1, min(4, steps), steps})
    answered = bool(check.answered().all())
    at_marks: dict[int, list[_Apart]] = {mark: [] for mark in marks}
    ours, theirs = [], []
    batch = min(reference_batch(reference.spec), reference.max_batch, exported.max_batch)
    runs = (rollout(session, check, steps, batch) for session in (reference, exported))
    for a, b in zip(*runs, strict=True):
        if a.step in at_marks:
            states = _state(a.carry, None), _state(b.carry, rotation)
            labels = a.puzzles.labels if answered else None
            at_marks[a.step].append(_apart(a.logits[:], b.logits[:], *states, labels))
        if a.step == steps:
            theirs.append(converged(a))
            ours.append(converged(b))
    everywhere = {mark: _joined(parts) for mark, parts in at_marks.items()}
    last, before, after = everywhere[steps], np.concatenate(theirs), np.concatenate(ours)
    split: dict[Over, NDArray[np.bool_]] = {
        "both settle": before & after,
        "torch settles": before,
        "unsettled": ~before,
    }
    return Measured(
        [apart.parity(mark, "all") for mark, apart in everywhere.items()],
        [last.parity(steps, over, rows) for over, rows in split.items() if rows.any()],
        last.accuracy_drop() if answered else None,
    )


def _state(carry: Carry, rotation: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return z_h and z_l as float32 [N, 2 T, D], rotated back."""
    levels = (z.cpu() if hasattr(z, "cpu") else z for z in carry)  # a torch tensor may be on a GPU
    state = np.concatenate([np.asarray(z, np.float32) for z in levels], axis=1)
    return state if rotation is None else state @ rotation.T


def _apart(
    reference: NDArray[np.float32],
    other: NDArray[np.float32],
    state_a: NDArray[np.float32],
    state_b: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
) -> _Apart:
    """Compare logits [N, S, V] and states [N, 2 T, D] puzzle by puzzle."""
    difference = reference.astype(np.float64) - other
    before, after = reference.argmax(-1), other.argmax(-1)
    unknown = np.zeros(len(before), np.bool_)
    return _Apart(
        max_abs=np.abs(difference).max(axis=(1, 2)),
        signal=np.square(reference, dtype=np.float64).sum(axis=(1, 2)),
        noise=np.square(difference).sum(axis=(1, 2)),
        cosine=_cosines(state_a, state_b),
        same=(before == after).all(-1),
        right_before=unknown if labels is None else exact(before, labels),
        right_after=unknown if labels is None else exact(after, labels),
    )


def judge(measured: Measured, precision: Precision, limits: Limits, beside: str = "torch") -> Gate:
    """Compare a measurement with the recipe's limits; every failure is a sentence. ``beside``: the reference's name.

    SQNR and cosine of INT8 and float16 are over the puzzles on which both sides converge; the exact accuracy is over
    all, so it includes the puzzles on which only one does.
    """
    if precision == "fp32":
        held, failures = _exact(measured, limits, beside)
    else:
        held, failures = _close(measured, precision, limits, beside)
    if measured.drop is not None:
        most = limits.accuracy_drop_points_fp16 if precision == "fp16" else limits.accuracy_drop_points
        held["accuracy_drop_points"] = most
        if measured.drop.points > most:
            low, high = measured.drop.interval_95
            failures.append(
                f"exact accuracy falls by {measured.drop.points:.2f} points on "
                f"{measured.everywhere[-1].puzzles} puzzles (95 %: {low:+.2f} to {high:+.2f}), the limit is {most:g}"
            )
    return Gate(passed=not failures, limits=held, failures=failures)


def _exact(measured: Measured, limits: Limits, beside: str) -> tuple[dict[str, float], list[str]]:
    """Return (limits, failures) of a float32 export.

    The median counts, not the largest: on a puzzle that a model does not solve the recurrence is chaotic, and float32
    torch is as far from float64 torch as any other exact implementation. The share of equal answers covers the tail.
    """
    last, failures = measured.everywhere[-1], []
    if not last.logits_median_abs <= limits.logits_median_abs_fp32:
        failures.append(
            f"logits of the median puzzle differ by {last.logits_median_abs:.2e} after {last.steps} steps, "
            f"the limit is {limits.logits_median_abs_fp32:.0e}"
        )
    if not last.same_answers >= limits.same_answers_fp32:
        failures.append(
            f"only {last.same_answers:.2%} of the answers are {beside}'s, the limit is {limits.same_answers_fp32:.1%}"
        )
    return {"logits_median_abs": limits.logits_median_abs_fp32, "same_answers": limits.same_answers_fp32}, failures


def _close(measured: Measured, precision: Precision, limits: Limits, beside: str) -> tuple[dict[str, float], list[str]]:
    """Return (limits, failures) of an INT8 or float16 export."""
    row, failures = measured.gate_row(), []
    where = f"after {row.steps} steps on {row.puzzles} puzzles" + (" that both settle" * (row.over != "all"))
    floor = limits.sqnr_db_int8 if precision == "int8" else limits.sqnr_db_fp16
    if not row.logits_sqnr_db >= floor:
        failures.append(f"SQNR of the logits is {row.logits_sqnr_db:.1f} dB {where}, the limit is {floor:g} dB")
    if row.carry_cosine_mean is not None and not row.carry_cosine_mean >= limits.carry_cosine:
        failures.append(
            f"the carry's mean cosine with {beside}'s is {row.carry_cosine_mean:.4f} {where}, "
            f"the limit is {limits.carry_cosine:g}"
        )
    return {"logits_sqnr_db": floor, "carry_cosine_mean": limits.carry_cosine}, failures
