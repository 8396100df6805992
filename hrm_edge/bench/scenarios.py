"""Scenarios to measure: two after MLPerf Inference (edge), and a camera's.

- Single-stream: one puzzle after another, each begun when the last is answered; the headline is the p90 latency.
- Offline: all puzzles available at once and answered in batches; the headline is the throughput.
- Camera: every frame brings a puzzle and the newest one is taken; the headline is the latency from the frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hrm_edge.bench.timing import TimedSession
from hrm_edge.errors import UserError
from hrm_edge.report.schema import Pace, Scenario
from hrm_edge.session import Session
from hrm_edge.solution import STAGES, Solutions
from hrm_edge.solve import Halt, SolveOptions, solve
from hrm_edge.solve import Progress as SolveProgress
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.puzzles import Puzzles

Progress = Callable[[float], None]
"""Callback that gets the share of the measurement that is done."""

MIN_QUERIES = 64  # MLPerf's least number of queries for a p90
_MIN_ROUNDS = 4  # offline: least queue length in slots, so that refilling of slots counts


@dataclass(frozen=True)
class Solver:
    """Session and settings that solve each puzzle; see :func:`hrm_edge.solve.solve`."""

    session: Session
    task: Task
    options: SolveOptions

    def __call__(
        self, puzzles: Puzzles, *, session: Session | None = None, on_progress: SolveProgress | None = None
    ) -> Solutions:
        """Solve ``puzzles``; ``session`` replaces the solver's own one, for example to time it."""
        return solve(
            session or self.session,
            self.task,
            puzzles.givens,
            self.options,
            puzzle_ids=puzzles.ids,
            on_progress=on_progress,
        )


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and how; see ``hrm-edge bench --help``."""

    data: str | None = None
    limit: int | None = None
    scenario: Scenario = "single-stream"
    duration_s: float = 60.0
    fps: float = 30.0
    views: int = 1
    halt: Halt = "rules"
    max_steps: int | None = None
    slots: int | None = None
    seed: int = 0
    power: str = "auto"
    idle_s: float = 10.0
    reference: str | None = None
    strict: bool = False

    @property
    def batch(self) -> int:
        """Puzzles in the batch at most."""
        return self.slots or 64 if self.scenario == "offline" else 1

    def check(self) -> None:
        """Raise ``UserError`` for options that exclude each other."""
        if self.scenario != "offline" and self.slots is not None:
            raise UserError(
                "--slots is for --scenario offline", f"{self.scenario} has one puzzle at a time: leave it out"
            )


@dataclass(frozen=True, eq=False)
class Measured:
    """Raw figures of one scenario."""

    solutions: Solutions
    """Each puzzle's first answer, in the order of the data; fewer than N where the time was over earlier."""
    latency_s: list[float]
    """Latency of each query."""
    answered_at_s: list[float]
    """Time of each answer since the window began."""
    verified: int
    """Number of queries whose answer was verified."""
    stage_s: dict[str, float]
    """Time in each stage, summed over all queries."""
    timed: TimedSession
    began_s: float
    """Begin of the window on the monotonic clock."""
    ended_s: float
    """End of the window on the monotonic clock."""
    pace: Pace | None = None

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return self.ended_s - self.began_s


class _Log:
    """Record of queries that are answered one by one."""

    def __init__(self, solver: Solver, puzzles: Puzzles, duration_s: float, on_progress: Progress) -> None:
        self.solver, self.puzzles, self.duration_s, self.on_progress = solver, puzzles, duration_s, on_progress
        self.timed = TimedSession(solver.session)
        self.first: list[Solutions] = []
        self.latency_s: list[float] = []
        self.answered_at_s: list[float] = []
        self.verified = 0
        self.stage_s = dict.fromkeys(map(str, STAGES), 0.0)
        self.began = time.monotonic()

    def goes_on(self, now: float) -> bool:
        """Return whether the time is not over yet, or too few queries were answered."""
        return now - self.began < self.duration_s or len(self.latency_s) < MIN_QUERIES

    def ask(self, since: float) -> float:
        """Answer the next puzzle, from the first again after the last, and return the time now.

        Its latency counts from ``since``.
        """
        index = len(self.latency_s) % len(self.puzzles)
        answer = self.solver(self.puzzles[index : index + 1], session=self.timed)
        now = time.monotonic()
        self.latency_s.append(now - since)
        self.answered_at_s.append(now - self.began)
        self.verified += int(answer.verified.sum())
        for stage, seconds in answer.stage_s.items():
            self.stage_s[stage] += seconds
        if len(self.first) < len(self.puzzles):
            self.first.append(answer)
        self.on_progress(min(_share(now - self.began, self.duration_s), len(self.latency_s) / MIN_QUERIES))
        return now

    def measured(self, ended: float, pace: Pace | None = None) -> Measured:
        """Return the scenario's figures for a window that ended at ``ended``."""
        return Measured(
            Solutions.joined(self.first),
            self.latency_s,
            self.answered_at_s,
            self.verified,
            self.stage_s,
            self.timed,
            self.began,
            ended,
            pace,
        )


def _share(seconds: float, duration_s: float) -> float:
    """Return the share of the time that is over."""
    return min(seconds / max(duration_s, 1e-9), 1.0)


def single_stream(solver: Solver, puzzles: Puzzles, options: BenchOptions, on_progress: Progress) -> Measured:
    """Solve ``puzzles`` one by one, over and over, for the options' seconds and at least 64 queries.

    The latency is that of the whole call, from the puzzle to the verified answer.
    """
    log = _Log(solver, puzzles, options.duration_s, on_progress)
    now = log.began
    while log.goes_on(now):
        log.ask(time.monotonic())
        now = time.monotonic()
    return log.measured(now)


def camera(solver: Solver, puzzles: Puzzles, options: BenchOptions, on_progress: Progress) -> Measured:
    """Solve one of ``puzzles`` from each frame; frames that come during a solve are dropped.

    Each answer's latency counts from its frame, so it includes the wait for the solver.
    """
    log = _Log(solver, puzzles, options.duration_s, on_progress)
    period, taken = 1.0 / options.fps, -1
    now = log.began
    while log.goes_on(now):
        newest = int((now - log.began) / period)
        if newest == taken:
            time.sleep(max(0.0, log.began + (taken + 1) * period - now))
            now = time.monotonic()
            continue
        taken = newest
        now = log.ask(log.began + newest * period)
    frames = taken + 1
    pace = Pace(frames_per_s=options.fps, frames=frames, dropped=frames - len(log.latency_s))
    return log.measured(now, pace)


def offline(solver: Solver, puzzles: Puzzles, options: BenchOptions, on_progress: Progress) -> Measured:
    """Answer a queue in batches, again and again until the options' seconds are over.

    The queue is ``puzzles`` or, where they would take longer, as many of the first ones as fit into the time by a trial
    (at least 4 times the slots). The latency is that of a puzzle in its slot.
    """
    slots = min(solver.options.slots, solver.session.max_batch, len(puzzles))
    trial_began = time.monotonic()
    trial = puzzles[: _MIN_ROUNDS * slots]
    solver(trial)
    rate = len(trial) / (time.monotonic() - trial_began)
    queue = puzzles[: max(len(trial), int(rate * options.duration_s))]
    timed = TimedSession(solver.session)
    rounds: list[Solutions] = []
    answered: list[float] = []
    began = now = time.monotonic()
    while not rounds or now - began < options.duration_s:
        solutions = solver(queue, session=timed)
        rounds.append(solutions)
        before, now = now, time.monotonic()
        # Puzzles overlap in the slots: their ends are spread evenly over the round.
        answered += np.linspace(before - began, now - began, len(solutions) + 1)[1:].tolist()
        on_progress(_share(now - began, options.duration_s))
    latencies = [seconds for solutions in rounds for seconds in solutions.latency_s.tolist()]
    verified = sum(int(solutions.verified.sum()) for solutions in rounds)
    stages = {str(stage): sum(solutions.stage_s[stage] for solutions in rounds) for stage in STAGES}
    return Measured(rounds[0], latencies, answered, verified, stages, timed, began, now)


SCENARIOS: dict[Scenario, Callable[[Solver, Puzzles, BenchOptions, Progress], Measured]] = {
    "single-stream": single_stream,
    "offline": offline,
    "camera": camera,
}
