"""Step times of any session, and the warm-up that comes before them."""

from __future__ import annotations

import statistics
import time

import numpy as np
from numpy.typing import NDArray

from hrm_edge.report import WarmUp
from hrm_edge.session import AnyStepResult, Carry, Session
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks.base import Tokens

WINDOW_STEPS = 4
AGREEMENT = 0.05  # two windows whose medians differ by less are stable
WARM_UP_LIMIT_S = 5.0


class TimedSession:
    """A session whose every step is timed on the host's monotonic clock: answers are there when the clock stops."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.step_s: list[float] = []
        self.batches: list[int] = []

    @property
    def spec(self) -> ModelSpec:
        return self.session.spec

    @property
    def backend(self) -> str:
        return self.session.backend

    @property
    def max_batch(self) -> int:
        return self.session.max_batch

    def initial_carry(self, batch: int) -> Carry:
        return self.session.initial_carry(batch)

    def gather(self, carry: Carry, rows: NDArray[np.int64]) -> Carry:
        return self.session.gather(carry, rows)

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: Carry) -> AnyStepResult:
        started = time.perf_counter()
        result = self.session.step(tokens, puzzle_ids, carry)
        self.step_s.append(time.perf_counter() - started)
        self.batches.append(len(tokens))
        return result


def warm_up(session: Session, givens: Tokens, *, limit_s: float = WARM_UP_LIMIT_S) -> WarmUp:
    """Step a batch of ``givens`` [B, S] until two windows of steps agree in their medians, or ``limit_s`` is over."""
    timed = TimedSession(session)
    carry = timed.initial_carry(len(givens))
    ids = np.zeros(len(givens), np.int32)
    started = time.perf_counter()
    before, stable = 0.0, False
    while not stable and (not timed.step_s or time.perf_counter() - started < limit_s):
        for _ in range(WINDOW_STEPS):
            carry, _, _ = timed.step(givens, ids, carry)
        median = statistics.median(timed.step_s[-WINDOW_STEPS:])
        stable = abs(median - before) <= AGREEMENT * median
        before = median
    return WarmUp(steps=len(timed.step_s), seconds=time.perf_counter() - started, stable=stable)
