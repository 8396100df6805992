"""What is measured: scenarios after MLPerf Inference (edge). Axes: N puzzles, S cells.

Single-stream: one puzzle after another, the next begun when the last is answered; the headline is the p90 latency.
Offline: all puzzles at hand at once, answered through the slots; the headline is the throughput.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.bench.timing import TimedSession, warm_up
from hrm_edge.report import WarmUp
from hrm_edge.session import Session
from hrm_edge.solve import Halt, Solutions, solve
from hrm_edge.solve import Progress as SolveProgress
from hrm_edge.tasks.base import Task, Tokens

Scenario = Literal["single-stream", "offline"]
Ids = NDArray[np.int32]
Progress = Callable[[float], None]
"""Called with the share of the measurement that is done."""

MIN_QUERIES = 64  # MLPerf's least number of queries for a p90
MIN_ROUNDS = 4  # offline: a queue at least so many times the slots, so that refilling shows


@dataclass(frozen=True)
class Solver:
    """How each puzzle is solved; see :func:`hrm_edge.solve.solve`."""

    session: Session
    task: Task
    halt: Halt
    max_steps: int
    views: int
    slots: int
    seed: int

    def __call__(
        self, givens: Tokens, puzzle_ids: Ids | None = None, *, session: Session | None = None,
        on_progress: SolveProgress | None = None,
    ) -> Solutions:  # fmt: skip
        """Solve ``givens`` [N, S] of the puzzles [N] (None: the blank one); ``session`` stands in for the solver's own
        one, to time it."""
        return solve(
            session or self.session, self.task, givens, puzzle_ids=puzzle_ids, halt=self.halt,
            max_steps=self.max_steps, views=self.views, slots=self.slots, seed=self.seed, on_progress=on_progress,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measured:
    """One scenario's raw figures."""

    solutions: Solutions
    """Each puzzle's first answer, in the order of the set; fewer than N where time was up before."""
    latency_s: list[float]
    """One per query."""
    verified: int
    """Queries whose answer was verified."""
    step_s: list[float]
    batches: list[int]
    duration_s: float
    warm_up: WarmUp


def single_stream(
    solver: Solver, givens: Tokens, duration_s: float, progress: Progress, puzzle_ids: Ids | None = None
) -> Measured:
    """Go round ``givens`` [N, S] of the puzzles [N] one by one for ``duration_s`` seconds and at least 64 queries.

    The latency is that of the whole call, from the puzzle to the verified answer.
    """
    ids = np.zeros(len(givens), np.int32) if puzzle_ids is None else puzzle_ids
    warm = warm_up(solver.session, givens[:1])
    timed = TimedSession(solver.session)
    found: list[Solutions] = []
    latencies: list[float] = []
    verified = 0
    began = time.perf_counter()
    now = began
    while now - began < duration_s or len(latencies) < MIN_QUERIES:
        index = len(latencies) % len(givens)
        answer = solver(givens[index : index + 1], ids[index : index + 1], session=timed)
        after = time.perf_counter()
        latencies.append(after - now)
        verified += int(answer.verified.sum())
        if len(found) < len(givens):
            found.append(answer)
        now = time.perf_counter()
        progress(min((now - began) / max(duration_s, 1e-9), len(latencies) / MIN_QUERIES, 1.0))
    return Measured(joined(found), latencies, verified, timed.step_s, timed.batches, now - began, warm)


def offline(
    solver: Solver, givens: Tokens, duration_s: float, progress: Progress, puzzle_ids: Ids | None = None
) -> Measured:
    """Answer a queue through the slots, again and again until ``duration_s`` seconds are over.

    The queue is ``givens`` [N, S] or, where these would take longer, as many of the first of them as a trial says fit
    into the time (at least 4 times the slots). The latency is that of a puzzle in its slot.
    """
    ids = np.zeros(len(givens), np.int32) if puzzle_ids is None else puzzle_ids
    slots = min(solver.slots, solver.session.max_batch, len(givens))
    warm = warm_up(solver.session, givens[:slots])
    trial_began = time.perf_counter()
    trial = givens[: MIN_ROUNDS * slots]
    solver(trial, ids[: len(trial)])
    rate = len(trial) / (time.perf_counter() - trial_began)
    queue = givens[: max(len(trial), int(rate * duration_s))]
    timed = TimedSession(solver.session)
    first: Solutions | None = None
    latencies: list[float] = []
    verified, began = 0, time.perf_counter()
    while first is None or time.perf_counter() - began < duration_s:
        found = solver(queue, ids[: len(queue)], session=timed)
        latencies += found.latency_s.tolist()
        verified += int(found.verified.sum())
        first = found if first is None else first
        progress(min((time.perf_counter() - began) / max(duration_s, 1e-9), 1.0))
    took = time.perf_counter() - began
    return Measured(first, latencies, verified, timed.step_s, timed.batches, took, warm)


SCENARIOS: dict[Scenario, Callable[[Solver, Tokens, float, Progress, Ids | None], Measured]] = {
    "single-stream": single_stream,
    "offline": offline,
}


def joined(parts: Iterable[Solutions]) -> Solutions:
    """Solutions of several calls as one; traces are left out."""
    parts = list(parts)
    return Solutions(
        givens=np.concatenate([part.givens for part in parts]),
        answers=np.concatenate([part.answers for part in parts]),
        verified=np.concatenate([part.verified for part in parts]),
        steps_by_view=np.concatenate([part.steps_by_view for part in parts]),
        views=np.concatenate([part.views for part in parts]),
        latency_s=np.concatenate([part.latency_s for part in parts]),
        q_halt=np.concatenate([part.q_halt for part in parts]),
        halted_by=[reason for part in parts for reason in part.halted_by],
        traces=None,
    )
