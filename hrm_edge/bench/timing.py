"""Step times of any session, the warm-up before them, and the age of this process."""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from hrm_edge.device.system import System
from hrm_edge.report.schema import WarmUp
from hrm_edge.session import AnyStepResult, Carry, Session
from hrm_edge.tasks.base import Tokens

WINDOW_STEPS = 4
_AGREEING_WINDOWS = 3
_AGREEMENT = 0.05  # windows whose medians differ by less are stable
_WARM_UP_LIMIT_S = 5.0


class TimedSession:
    """Session that times each step on the host's monotonic clock, from the call until its outputs can be read.

    A session on a GPU may have ``device_step_s``, the seconds of its last step by the device's own events; these are
    kept separately in ``device_s``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.spec, self.backend, self.max_batch = session.spec, session.backend, session.max_batch
        self.initial_carry, self.gather = session.initial_carry, session.gather
        self.step_s: list[float] = []
        self.device_s: list[float] = []
        self.batches: list[int] = []

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: Carry) -> AnyStepResult:
        """Run and time one step of the wrapped session; see :class:`Session`."""
        started = time.monotonic()
        result = self.session.step(tokens, puzzle_ids, carry)
        self.step_s.append(time.monotonic() - started)
        self.batches.append(len(tokens))
        device_s = getattr(self.session, "device_step_s", None)
        if device_s is not None:
            self.device_s.append(device_s)
        return result


def warm_up(session: Session, givens: Tokens, *, limit_s: float = _WARM_UP_LIMIT_S) -> WarmUp:
    """Step a batch of ``givens`` uint8 [B, S] until the medians of the last windows agree, or ``limit_s`` is over."""
    timed = TimedSession(session)
    carry = timed.initial_carry(len(givens))
    ids = np.zeros(len(givens), np.int32)
    started = time.monotonic()
    medians: list[float] = []
    stable = False
    while not stable and (not medians or time.monotonic() - started < limit_s):
        for _ in range(WINDOW_STEPS):
            carry, _, _ = timed.step(givens, ids, carry)
        medians.append(statistics.median(timed.step_s[-WINDOW_STEPS:]))
        last = medians[-_AGREEING_WINDOWS:]
        stable = len(last) == _AGREEING_WINDOWS and max(last) - min(last) <= _AGREEMENT * max(last)
    return WarmUp(steps=len(timed.step_s), seconds=time.monotonic() - started, stable=stable)


def process_age_s(system: System | None = None) -> float | None:
    """Return the seconds since the kernel started this process, or None if unknown (proc(5), field 22 of stat)."""
    line = (system or System()).line("/proc/self/stat")
    if line is None:
        return None
    started = int(line.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
