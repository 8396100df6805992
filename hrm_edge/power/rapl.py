"""RAPL: the energy counters of Intel and AMD CPUs, from sysfs. A counter that reaches its maximum restarts at 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest
from hrm_edge.power.meter import Clock, Meter, Reading, Scope, Source, readable_by_users

RAPL = "/sys/class/powercap/intel-rapl:*"
RAPL_HINT = (
    readable_by_users('SUBSYSTEM=="powercap", RUN+="/bin/chmod a+r /sys%p/energy_uj"')
    + ", or run as root (CVE-2020-8694 is why it is closed)"
)


@dataclass(frozen=True)
class Zone:
    """RAPL energy counter in microjoules, which restarts at 0 after ``wrap_uj``."""

    name: str
    energy_uj: Path
    wrap_uj: int


def rapl_zones(system: System) -> list[Zone]:
    """Return the counters of the CPU packages and of the memory; those of cores and graphics are parts of a package."""
    zones = []
    for folder in system.glob(RAPL):
        name, wrap = system.line(folder / "name"), system.integer(folder / "max_energy_range_uj")
        parent = folder.name.split(":")[1]
        if name is not None and wrap is not None and (name.startswith("package") or name == "dram"):
            zones.append(Zone(name if name != "dram" else f"dram-{parent}", folder / "energy_uj", wrap))
    return zones


class RaplMeter(Meter):
    """Meter of the CPU packages and of the memory, where the memory has a counter of its own."""

    name = "rapl"
    sensor = f"{RAPL}/energy_uj"

    def __init__(self, system: System, clock: Clock, rail: str | None = None) -> None:
        zones = rapl_zones(system)
        if rail is not None and rail not in [zone.name for zone in zones]:
            raise UserError(f"--power rapl: there is no '{rail}'", nearest(rail, [zone.name for zone in zones]))
        self._zones = [zone for zone in zones if rail in (None, zone.name)]
        self._system, self._clock = system, clock
        self._last = {zone.name: self._count(zone) for zone in self._zones}
        self._total_uj = 0
        names = tuple(zone.name for zone in self._zones)
        self.scope = Scope(
            names, f"{' + '.join(names)}: CPU and what else is named; board and power supply are outside"
        )

    @classmethod
    def find(cls, system: System) -> Source:
        """Read every counter once; see :meth:`Meter.find`."""
        zones = rapl_zones(system)
        if not zones:
            return cls._unusable("the CPU shows no RAPL energy counters (virtual machines hide them)")
        try:
            for zone in zones:
                system.read(zone.energy_uj)
        except OSError as error:
            return cls._unusable(f"{error.filename or RAPL} is not readable", RAPL_HINT)
        return cls._found(*(zone.name for zone in zones))

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
