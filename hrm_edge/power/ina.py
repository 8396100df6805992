"""INA3221 and INA238 sensors of a Jetson, read from sysfs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.device.system import System
from hrm_edge.power.meter import Clock, Meter, Reading, Source, readable_by_users, scope_of, total_of

INA3221 = "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label"
INA238 = "/sys/bus/i2c/drivers/ina238*/*/hwmon/hwmon*/power1_input"
_INA238_RAIL = "VIN"  # rail of the sensor on a Thor module; its hwmon node has no label
_NO_RAIL = ("NC", "sum of shunt voltages")  # channels that are not connected; the chip's own sum
HWMON_HINT = readable_by_users('SUBSYSTEM=="hwmon", ATTR{name}=="ina*", RUN+="/bin/chmod -R a+r /sys%p"')


@dataclass(frozen=True)
class RailFiles:
    """Files of one rail of an INA sensor: millivolts and milliamperes, or microwatts."""

    name: str
    millivolts: Path | None = None
    milliamperes: Path | None = None
    microwatts: Path | None = None

    def watts(self, system: System) -> float:
        """Return the power now, which the sensor's offset may make negative. Raises ``OSError`` or ``ValueError``."""
        if self.microwatts is not None:
            return int(system.read(self.microwatts)) / 1e6
        assert self.millivolts is not None
        assert self.milliamperes is not None
        return int(system.read(self.millivolts)) * int(system.read(self.milliamperes)) / 1e6


class Ina3221(Meter):
    """All rails of one kind of sensor; a reading's time is the middle of the reads of the rails that make the total.

    A rail outside the total may fail: it is left out of that reading.
    """

    name = "ina3221"
    sensor = "sysfs, INA3221"

    def __init__(self, system: System, clock: Clock, rail: str | None = None) -> None:
        self._rails = self._rails_to_read(system)
        self.scope = scope_of([each.name for each in self._rails], rail)
        self.system, self._clock = system, clock

    @classmethod
    def rails_of(cls, system: System) -> list[RailFiles]:
        """Return the rails of every INA3221, named by their labels."""
        rails = []
        for label in system.glob(INA3221):
            name, number = system.line(label), label.name.removeprefix("in").removesuffix("_label")
            if name is not None and name not in _NO_RAIL:
                files = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
                rails.append(RailFiles(name, *files))
        return rails

    def _rails_to_read(self, system: System) -> list[RailFiles]:
        return self.rails_of(system)

    @classmethod
    def find(cls, system: System) -> Source:
        """Read every rail once; see :meth:`Meter.find`."""
        rails = cls.rails_of(system)
        if not rails:
            return cls._unusable(f"no {cls.name.upper()} sensor on this machine")
        try:
            for rail in rails:
                rail.watts(system)
        except PermissionError as error:
            return cls._unusable(f"{error.filename} is not readable", HWMON_HINT)
        except (OSError, ValueError) as error:
            return cls._unusable(f"rail {rail.name} cannot be read: {error}", "see dmesg for the sensor")
        names = [rail.name for rail in rails]
        if total_of(names) is None:
            problem = f"no total is known for the rails {', '.join(names)}"
            return cls._unusable(problem, f"choose one rail: --power {cls.name}:{names[0]}", rails=names)
        return cls._found(*names)

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


class Ina238(Ina3221):
    """The INA238 (total) together with the INA3221, whose rails are parts of that total and show where it goes."""

    name = "ina238"
    sensor = "sysfs, INA238 (total) and INA3221 (parts)"

    @classmethod
    def rails_of(cls, system: System) -> list[RailFiles]:
        """Return the input rail of a Thor module; the rails of further INA238 sensors are numbered."""
        return [
            RailFiles(_INA238_RAIL if number == 1 else f"{_INA238_RAIL}_{number}", microwatts=file)
            for number, file in enumerate(system.glob(INA238), 1)
        ]

    def _rails_to_read(self, system: System) -> list[RailFiles]:
        return [*self.rails_of(system), *Ina3221.rails_of(system)]
