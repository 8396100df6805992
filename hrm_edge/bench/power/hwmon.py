"""INA3221 and INA238 sensors of a Jetson, read from sysfs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hrm_edge.bench.power.meter import Clock, Reading
from hrm_edge.device.rails import Scope
from hrm_edge.device.sensors import RailFiles
from hrm_edge.device.system import System


@dataclass(frozen=True)
class HwmonMeter:
    """All rails of one kind of sensor; a reading's time is the middle of the reads of the rails that make the total.

    A rail outside the total may fail: it is left out of that reading.
    """

    name: Literal["ina3221", "ina238"]
    sensor: str
    scope: Scope
    rails: Sequence[RailFiles]
    system: System
    clock: Clock
    period_s: float = 0.05

    def read(self) -> Reading:
        """Read all rails. Raises ``OSError`` or ``ValueError`` if one of the total cannot be read."""
        began = self.clock()
        watts = {rail.name: rail.watts(self.system) for rail in self.rails if rail.name in self.scope.rails}
        at = (began + self.clock()) / 2
        for rail in self.rails:
            if rail.name not in watts:
                with contextlib.suppress(OSError, ValueError):
                    watts[rail.name] = rail.watts(self.system)
        return Reading(at, watts)

    def notes(self) -> list[str]:
        """Return no notes."""
        return []

    def close(self) -> None:
        """Do nothing: files are opened and closed at each read."""
