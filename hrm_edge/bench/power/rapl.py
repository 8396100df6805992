"""RAPL: the energy counters of Intel and AMD CPUs, from sysfs. A counter that reaches its maximum restarts at 0."""

from __future__ import annotations

from collections.abc import Sequence

from hrm_edge.bench.power.meter import Clock, Meter, Reading
from hrm_edge.device.sensors import RAPL, Scope, Zone
from hrm_edge.device.system import System


class RaplMeter(Meter):
    """Meter of the CPU packages and of the memory, where the memory has a counter of its own."""

    name = "rapl"
    sensor = f"{RAPL}/energy_uj"

    def __init__(self, zones: Sequence[Zone], system: System, clock: Clock) -> None:
        self._zones, self._system, self._clock = zones, system, clock
        self._last = {zone.name: self._count(zone) for zone in zones}
        self._total_uj = 0
        names = tuple(zone.name for zone in zones)
        self.scope = Scope(
            names, f"{' + '.join(names)}: CPU and what else is named; board and power supply are outside"
        )

    def _count(self, zone: Zone) -> int:
        return int(self._system.read(zone.energy_uj))

    def read(self) -> Reading:
        """Read all counters as one energy since the start. Raises ``OSError`` or ``ValueError``."""
        before = self._clock()
        for zone in self._zones:
            now = self._count(zone)
            self._total_uj += (now - self._last[zone.name]) % (zone.wrap_uj + 1)
            self._last[zone.name] = now
        return Reading((before + self._clock()) / 2, {}, self._total_uj / 1e6)
