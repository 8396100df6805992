"""INA3221 and INA238 sensors of a Jetson, read from sysfs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from hrm_edge.bench.power.meter import Clock, Meter, Reading, scope_of
from hrm_edge.device.sensors import RailFiles
from hrm_edge.device.system import System


class HwmonMeter(Meter):
    """All rails of one kind of sensor; a reading's time is the middle of the reads of the rails that make the total.

    A rail outside the total may fail: it is left out of that reading.
    """

    def __init__(
        self, name: str, sensor: str, rails: Sequence[RailFiles], system: System, clock: Clock, rail: str | None
    ) -> None:
        """Open the sensors of ``rails``; ``rail``: measure that one alone. Raises as :func:`scope_of` does."""
        self.name, self.sensor = name, sensor
        self.scope = scope_of([each.name for each in rails], rail)
        self._rails, self.system, self._clock = rails, system, clock

    def read(self) -> Reading:
        """Read all rails. Raises ``OSError`` or ``ValueError`` if one of the total cannot be read."""
        began = self._clock()
        watts = {rail.name: rail.watts(self.system) for rail in self._rails if rail.name in self.scope.rails}
        at = (began + self._clock()) / 2
        for rail in self._rails:
            if rail.name not in watts:
                with contextlib.suppress(OSError, ValueError):
                    watts[rail.name] = rail.watts(self.system)
        return Reading(at, watts)
