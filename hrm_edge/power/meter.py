"""What a power meter is: a class that finds it on a machine and opens it, and the readings it gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest
from hrm_edge.records import Record

Clock = Callable[[], float]
"""Seconds of a clock that never goes back: ``time.monotonic``, or a test's own."""


_NOT_WALL = "the carrier board and the power supply's losses are outside: it is not wall power"


@dataclass(frozen=True)
class Scope:
    """Rails that are added, and a description of what their sum covers."""

    rails: tuple[str, ...]
    words: str


# The first one whose rails are all present is used; a rail that is a part of another is not added.
# Source: NVIDIA's Jetson Linux developer guide, software-based power monitoring.
_TOTALS = (
    Scope(("VIN",), f"VIN: everything the Thor module draws; {_NOT_WALL}"),
    Scope(("VDD_IN",), f"VDD_IN: everything the module draws (CPU, GPU, memory, I/O); {_NOT_WALL}"),
    Scope(
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0: about what the AGX Orin module draws (VDDQ_VDD2_1V8AO lies under "
        f"VIN_SYS_5V0 and is not added); {_NOT_WALL}",
    ),
)
_OF_ONE_RAIL = "{}: this rail only, as asked for; the rest of the machine is outside"


def total_of(rails: Iterable[str]) -> Scope | None:
    """Return the total of a board that has these ``rails``, or None where no known total consists of them."""
    present = set(rails)
    return next((total for total in _TOTALS if present.issuperset(total.rails)), None)


class Source(Record):
    """Power meter that this machine may have."""

    name: str
    rails: list[str] = Field(default=[])
    problem: str | None = Field(default=None, description="why it cannot be used; null where it can")
    hint: str | None = Field(default=None, alias="mend")


def readable_by_users(rule: str) -> str:
    """Return the command that lets users read a sensor's files: it installs a ``rule`` of udev."""
    return (
        f"let users read it: echo '{rule}' | sudo tee /etc/udev/rules.d/60-power.rules && "
        "sudo udevadm control --reload && sudo udevadm trigger"
    )


class SensorError(Exception):
    """Error of a meter that has no reading to give now; its text says why."""


@dataclass(frozen=True)
class Reading:
    """Reading of a meter at one moment."""

    at_s: float
    """Time on the sampler's clock."""
    rails_w: Mapping[str, float]
    """Power of each rail; empty for a meter that only counts energy."""
    energy_j: float | None = None
    """Energy counted since some moment before the first reading; None for a meter without a counter."""


class Meter:
    """An open power meter; :meth:`find` says whether it can be opened here, and nothing is opened for that."""

    name: str
    """Name of the meter in ``--power``."""
    sensor: str
    """Source of the readings: files, a program or a library."""
    scope: Scope
    """Rails that make the total, and what that total covers."""
    period_s: float = 0.05
    """Time between readings."""
    of_gpu = False
    """Whether it measures nothing but a GPU."""

    def __init__(self, system: System, clock: Clock, rail: str | None = None) -> None:
        """Open the meter, or only its ``rail``.

        Raises ``SensorError`` or ``OSError`` where it cannot be read or no total is known, ``UserError`` for a rail
        that it does not have.
        """
        raise NotImplementedError

    @classmethod
    def find(cls, system: System) -> Source:
        """Say whether the machine has this meter, and where it cannot be used why, and what to do about it."""
        raise NotImplementedError

    @classmethod
    def _found(cls, *rails: str) -> Source:
        return Source(name=cls.name, rails=list(rails))

    @classmethod
    def _unusable(cls, problem: str, hint: str | None = None, *, rails: Sequence[str] = ()) -> Source:
        return Source(name=cls.name, rails=list(rails), problem=problem, hint=hint)

    def read(self) -> Reading:
        """Return the newest reading, or the last one again. Raises ``SensorError``, ``OSError`` or ``ValueError``."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Return other observations of the meter, for the report."""
        return []

    def close(self) -> None:
        """Release files, threads and programs."""


class FollowedMeter(Meter):
    """Meter whose source pushes its readings: a thread that runs ``_follow`` puts them, another reads the newest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._reading: Reading | None = None
        self._ended: str | None = None

    def _follow(self) -> None:
        """Put readings until the source ends."""
        raise NotImplementedError

    def _begin(self, wait_s: float, rail: str | None) -> None:
        """Follow the source and wait for its first reading, whose rails make the scope; close where there is none."""
        self._thread = threading.Thread(target=self._follow, name=self.name, daemon=True)
        self._thread.start()
        try:
            self.scope = scope_of(self._newest(wait_s).rails_w, rail)
        except BaseException:
            self.close()
            raise

    def _put(self, reading: Reading) -> None:
        with self._changed:
            self._reading = reading
            self._changed.notify_all()

    def _end(self, reason: str) -> None:
        """Record that the source has ended, and why."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()

    def _newest(self, wait_s: float) -> Reading:
        with self._changed:
            self._changed.wait_for(lambda: self._reading is not None or self._ended is not None, wait_s)
            if self._ended is not None:
                raise SensorError(self._ended)
            if self._reading is None:
                raise SensorError(f"it said nothing within {wait_s:g} s")
            return self._reading

    def read(self) -> Reading:
        """Return the newest reading. Raises ``SensorError`` if the source ended."""
        return self._newest(0.0)


def scope_of(rails: Collection[str], rail: str | None) -> Scope:
    """Return the scope to measure on a source that has ``rails``: ``rail`` alone or, if None, their known total.

    Raises ``UserError`` where there is no such rail, ``SensorError`` where no total is known.
    """
    if rail is not None:
        if rail not in rails:
            raise UserError(f"--power: there is no rail '{rail}'", nearest(rail, rails))
        return Scope((rail,), _OF_ONE_RAIL.format(rail))
    total = total_of(rails)
    if total is None:
        raise SensorError(f"no total is known for the rails {', '.join(rails) or '(none)'}")
    return total
