"""The contract between a power meter and the thread that samples it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from hrm_edge.device.rails import OF_ONE_RAIL, Scope, total_of
from hrm_edge.errors import UserError, nearest

Clock = Callable[[], float]
"""Seconds of a clock that never goes back: ``time.monotonic``, or a test's."""


class SensorError(Exception):
    """A meter has no reading to give now; the text says why."""


@dataclass(frozen=True)
class Reading:
    """What a meter said at one moment."""

    at_s: float
    """On the sampler's clock."""
    rails_w: Mapping[str, float]
    """Power by rail; empty for a meter that only counts energy."""
    energy_j: float | None = None
    """A counter since some moment before the first reading; None for a meter that has none."""


class Meter(Protocol):
    """An open power meter."""

    @property
    def name(self) -> str:
        """As ``--power`` calls it."""

    @property
    def sensor(self) -> str:
        """What is read: files, a program, a library."""

    @property
    def scope(self) -> Scope:
        """Which rails make the total, and what that covers."""

    @property
    def period_s(self) -> float:
        """Seconds between readings."""

    def read(self) -> Reading:
        """The newest reading; the same one again where there is no newer. Raises ``SensorError`` or ``OSError``."""

    def notes(self) -> list[str]:
        """What else the meter saw, for the report."""

    def close(self) -> None:
        """Let go of files, threads and programs."""


class Latest:
    """The newest reading of a source that speaks when it wants to: one side puts, the other reads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reading: Reading | None = None
        self._ended: str | None = None

    def put(self, reading: Reading) -> None:
        with self._changed:
            self._reading = reading
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        """The source will say nothing more."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()

    def get(self, wait_s: float = 0.0) -> Reading:
        """The newest reading, waiting for the first one; ``SensorError`` where the source ended or is silent."""
        with self._changed:
            self._changed.wait_for(lambda: self._reading is not None or self._ended is not None, wait_s)
            if self._ended is not None:
                raise SensorError(self._ended)
            if self._reading is None:
                raise SensorError(f"it said nothing within {wait_s:g} s")
            return self._reading


def scope_of(rails: Collection[str], rail: str | None) -> Scope:
    """What to measure on a source that has ``rails``: ``rail`` alone, or where it is None their known total.

    Raises ``UserError`` where there is no such rail, ``SensorError`` where no total is known.
    """
    if rail is not None:
        if rail not in rails:
            raise UserError(f"--power: there is no rail '{rail}'", nearest(rail, rails))
        return Scope((rail,), OF_ONE_RAIL.format(rail))
    total = total_of(rails)
    if total is None:
        raise SensorError(f"no total is known for the rails {', '.join(rails) or '(none)'}")
    return total
