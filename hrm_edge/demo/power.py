"""The power that this machine draws now, for the page; where nothing measures it, why."""

from __future__ import annotations

import time
from typing import Any

from hrm_edge.power import Chosen
from hrm_edge.power.meter import Clock, Reading, SensorError

PERIOD_S = 0.5  # a figure that changes faster cannot be read by people


class Gauge:
    """Reads a meter at most every ``PERIOD_S``, however often it is asked."""

    def __init__(self, chosen: Chosen, clock: Clock = time.monotonic) -> None:
        self._meter, self._clock = chosen.meter, clock
        self._last: Reading | None = None
        self._due_s = clock()
        self._shown: dict[str, Any] = {"watts": None, "meter": chosen.reason or "not read yet"}

    def __call__(self) -> dict[str, Any]:
        """Return ``{"watts": float or None, "meter": what is measured, or why nothing is}``."""
        now = self._clock()
        if self._meter is not None and now >= self._due_s:
            self._due_s = now + PERIOD_S
            try:
                self._shown = self._read(self._meter.read())
            except (SensorError, OSError, ValueError) as error:
                self._shown = {"watts": None, "meter": f"{self._meter.name}: {error}"}
        return self._shown

    def _read(self, reading: Reading) -> dict[str, Any]:
        assert self._meter is not None
        rails, last = self._meter.scope.rails, self._last
        watts = None
        if rails and all(rail in reading.rails_w for rail in rails):
            watts = sum(reading.rails_w[rail] for rail in rails)
        elif last is not None and reading.at_s <= last.at_s:
            return self._shown
        elif last is not None and reading.energy_j is not None and last.energy_j is not None:
            watts = (reading.energy_j - last.energy_j) / (reading.at_s - last.at_s)
        self._last = reading
        return {"watts": watts, "meter": f"{self._meter.name}: {self._meter.scope.words}"}

    def close(self) -> None:
        """Let go of the meter."""
        if self._meter is not None:
            self._meter.close()
