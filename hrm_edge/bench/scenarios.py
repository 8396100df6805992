"""What is measured: scenarios after MLPerf Inference (edge), and a camera's. Axes: N puzzles, S cells.

Single-stream: one puzzle after another, the next begun when the last is answered; the headline is the p90 latency.
Offline: all puzzles at hand at once, answered through the slots; the headline is the throughput.
Camera: a puzzle comes with every frame and the newest is taken; the headline is the latency from the frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm_edge.bench.timing import TimedSession
from hrm_edge.report import Pace
from hrm_edge.report.schema import Scenario
from hrm_edge.session import Session
from hrm_edge.solution import STAGES, Solutions
from hrm_edge.solve import Halt, solve
from hrm_edge.solve import Progress as SolveProgress
from hrm_edge.tasks.base import Task, Tokens

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
    guesses: int | None = None

    def __call__(
        self, givens: Tokens, puzzle_ids: Ids | None = None, *, session: Session | None = None,
        on_progress: SolveProgress | None = None,
    ) -> Solutions:  # fmt: skip
        """Solve ``givens`` [N, S] of the puzzles [N] (None: the blank one); ``session`` stands in for the solver's own
        one, to time it."""
        return solve(
            session or self.session, self.task, givens, puzzle_ids=puzzle_ids, halt=self.halt,
            max_steps=self.max_steps, views=self.views, guesses=self.guesses,
            slots=self.slots, seed=self.seed, on_progress=on_progress,
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long, and for a camera how fast."""

    duration_s: float
    frames_per_s: float = 30.0


@dataclass(frozen=True, eq=False)
class Measured:
    """One scenario's raw figures."""

    solutions: Solutions
    """Each puzzle's first answer, in the order of the set; fewer than N where time was up before."""
    latency_s: list[float]
    """One per query."""
    answered_at_s: list[float]
    """When each query was answered, since the window began."""
    verified: int
    """Queries whose answer was verified."""
    stage_s: dict[str, float]
    """Of all queries together."""
    timed: TimedSession
    began_s: float
    """The window on the monotonic clock."""
    ended_s: float
    pace: Pace | None = None

    @property
    def duration_s(self) -> float:
        return self.ended_s - self.began_s


class _Log:
    """Queries as they are answered one by one."""

    def __init__(self, solver: Solver, givens: Tokens, puzzle_ids: Ids | None) -> None:
        self.solver, self.givens, self.ids = solver, givens, ids_of(givens, puzzle_ids)
        self.timed = TimedSession(solver.session)
        self.first: list[Solutions] = []
        self.latency_s: list[float] = []
        self.answered_at_s: list[float] = []
        self.verified = 0
        self.stage_s = dict.fromkeys(map(str, STAGES), 0.0)
        self.began = time.monotonic()

    def ask(self, since: float) -> float:
        """Answer the next puzzle of the set, going round; its latency counts from ``since``. Returns the time now."""
        index = len(self.latency_s) % len(self.givens)
        answer = self.solver(self.givens[index : index + 1], self.ids[index : index + 1], session=self.timed)
        now = time.monotonic()
        self.latency_s.append(now - since)
        self.answered_at_s.append(now - self.began)
        self.verified += int(answer.verified.sum())
        for stage, seconds in answer.stage_s.items():
            self.stage_s[stage] += seconds
        if len(self.first) < len(self.givens):
            self.first.append(answer)
        return now

    def measured(self, ended: float, pace: Pace | None = None) -> Measured:
        return Measured(
            joined(self.first), self.latency_s, self.answered_at_s, self.verified, self.stage_s, self.timed,
            self.began, ended, pace,
        )  # fmt: skip


def single_stream(
    solver: Solver, givens: Tokens, plan: Plan, on_progress: Progress, puzzle_ids: Ids | None = None
) -> Measured:
    """Go round ``givens`` [N, S] of the puzzles [N] one by one for the plan's seconds and at least 64 queries.

    The latency is that of the whole call, from the puzzle to the verified answer.
    """
    log = _Log(solver, givens, puzzle_ids)
    now = log.began
    while now - log.began < plan.duration_s or len(log.latency_s) < MIN_QUERIES:
        log.ask(time.monotonic())
        now = time.monotonic()
        on_progress(min((now - log.began) / max(plan.duration_s, 1e-9), len(log.latency_s) / MIN_QUERIES, 1.0))
    return log.measured(now)


def camera(
    solver: Solver, givens: Tokens, plan: Plan, on_progress: Progress, puzzle_ids: Ids | None = None
) -> Measured:
    """A puzzle of ``givens`` [N, S] with every frame; while one is being solved the frames that come are dropped.

    Each answer's latency counts from its frame, so the wait for the solver is in it.
    """
    log = _Log(solver, givens, puzzle_ids)
    period, taken = 1.0 / plan.frames_per_s, -1
    now = log.began
    while now - log.began < plan.duration_s or len(log.latency_s) < MIN_QUERIES:
        newest = int((now - log.began) / period)
        if newest == taken:
            time.sleep(max(0.0, log.began + (taken + 1) * period - now))
            now = time.monotonic()
            continue
        taken = newest
        now = log.ask(log.began + newest * period)
        on_progress(min((now - log.began) / max(plan.duration_s, 1e-9), len(log.latency_s) / MIN_QUERIES, 1.0))
    frames = taken + 1
    pace = Pace(frames_per_s=plan.frames_per_s, frames=frames, dropped=frames - len(log.latency_s))
    return log.measured(now, pace)


def offline(
    solver: Solver, givens: Tokens, plan: Plan, on_progress: Progress, puzzle_ids: Ids | None = None
) -> Measured:
    """Answer a queue through the slots, again and again until the plan's seconds are over.

    The queue is ``givens`` [N, S] or, where these would take longer, as many of the first of them as a trial says fit
    into the time (at least 4 times the slots). The latency is that of a puzzle in its slot.
    """
    ids, slots = ids_of(givens, puzzle_ids), min(solver.slots, solver.session.max_batch, len(givens))
    trial_began = time.monotonic()
    trial = givens[: MIN_ROUNDS * slots]
    solver(trial, ids[: len(trial)])
    rate = len(trial) / (time.monotonic() - trial_began)
    queue = givens[: max(len(trial), int(rate * plan.duration_s))]
    timed = TimedSession(solver.session)
    rounds: list[Solutions] = []
    answered: list[float] = []
    began = now = time.monotonic()
    while not rounds or now - began < plan.duration_s:
        found = solver(queue, ids[: len(queue)], session=timed)
        rounds.append(found)
        before, now = now, time.monotonic()
        answered += np.linspace(before - began, now - began, len(found) + 1)[1:].tolist()  # evenly: slots overlap
        on_progress(min((now - began) / max(plan.duration_s, 1e-9), 1.0))
    latencies = [seconds for found in rounds for seconds in found.latency_s.tolist()]
    verified = sum(int(found.verified.sum()) for found in rounds)
    stages = {str(stage): sum(found.stage_s[stage] for found in rounds) for stage in STAGES}
    return Measured(rounds[0], latencies, answered, verified, stages, timed, began, now)


SCENARIOS: dict[Scenario, Callable[[Solver, Tokens, Plan, Progress, Ids | None], Measured]] = {
    "single-stream": single_stream,
    "offline": offline,
    "camera": camera,
}


def ids_of(givens: Tokens, puzzle_ids: Ids | None) -> Ids:
    """The puzzles' rows of the model's table [N]; by default the blank one."""
    return np.zeros(len(givens), np.int32) if puzzle_ids is None else puzzle_ids


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
        stage_s={stage: sum(part.stage_s[stage] for part in parts) for stage in STAGES},
    )
