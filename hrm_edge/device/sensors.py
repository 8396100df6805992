"""Power meters of this machine and, for each missing one, the reason and its fix.

They are only looked up here: ``hrm_edge.bench.power`` reads them, ``hrm-edge doctor`` lists them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.device.identity import is_jetson
from hrm_edge.device.system import System

INA3221 = "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label"
INA238 = "/sys/bus/i2c/drivers/ina238*/*/hwmon/hwmon*/power1_input"
RAPL = "/sys/class/powercap/intel-rapl:*"
JTOP_SOCKET = "/run/jtop.sock"
INA238_RAIL = "VIN"  # rail of the sensor on a Thor module; its hwmon node has no label
NO_RAIL = ("NC", "sum of shunt voltages")  # channels that are not connected; the chip's own sum

HWMON_HINT = (
    'let users read it: echo \'SUBSYSTEM=="hwmon", ATTR{name}=="ina*", RUN+="/bin/chmod -R a+r /sys%p"\' | '
    "sudo tee /etc/udev/rules.d/60-power.rules && sudo udevadm control --reload && sudo udevadm trigger"
)
RAPL_HINT = (
    'let users read it: echo \'SUBSYSTEM=="powercap", RUN+="/bin/chmod a+r /sys%p/energy_uj"\' | '
    "sudo tee /etc/udev/rules.d/60-power.rules && sudo udevadm control --reload && sudo udevadm trigger, "
    "or run as root (CVE-2020-8694 is why it is closed)"
)


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
OF_ONE_RAIL = "{}: this rail only, as asked for; the rest of the machine is outside"


def total_of(rails: Iterable[str]) -> Scope | None:
    """Return the total of a board that has these ``rails``, or None where no known total consists of them."""
    present = set(rails)
    return next((total for total in _TOTALS if present.issuperset(total.rails)), None)


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


@dataclass(frozen=True)
class Zone:
    """RAPL energy counter in microjoules, which restarts at 0 after ``wrap_uj``."""

    name: str
    energy_uj: Path
    wrap_uj: int


@dataclass(frozen=True)
class Source:
    """Power meter that this machine may have."""

    name: str
    rails: tuple[str, ...] = ()
    problem: str | None = None
    """Reason why it cannot be used; None where it can."""
    hint: str | None = None


def ina3221_rails(system: System) -> list[RailFiles]:
    """Return the rails of every INA3221, named by their labels."""
    rails = []
    for label in system.glob(INA3221):
        name, number = system.line(label), label.name.removeprefix("in").removesuffix("_label")
        if name is not None and name not in NO_RAIL:
            files = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
            rails.append(RailFiles(name, *files))
    return rails


def ina238_rails(system: System) -> list[RailFiles]:
    """Return the input rail of a Thor module; the rails of further INA238 sensors are numbered."""
    return [
        RailFiles(INA238_RAIL if number == 1 else f"{INA238_RAIL}_{number}", microwatts=file)
        for number, file in enumerate(system.glob(INA238), 1)
    ]


def rapl_zones(system: System) -> list[Zone]:
    """Return the counters of the CPU packages and of the memory; those of cores and graphics are parts of a package."""
    zones = []
    for folder in system.glob(RAPL):
        name, wrap = system.line(folder / "name"), system.integer(folder / "max_energy_range_uj")
        parent = folder.name.split(":")[1]
        if name is not None and wrap is not None and (name.startswith("package") or name == "dram"):
            zones.append(Zone(name if name != "dram" else f"dram-{parent}", folder / "energy_uj", wrap))
    return zones


def power_sources(system: System) -> list[Source]:
    """Return all power meters, the best first: sensors of the whole board, programs that read them, GPU, CPU."""
    return [look(system) for look in _LOOKS]


def _hwmon(name: str, where: str, rails: list[RailFiles], system: System) -> Source:
    if not rails:
        return Source(name, problem=f"no {name.upper()} sensor on this machine")
    try:
        for rail in rails:
            rail.watts(system)
    except PermissionError as error:
        return Source(name, problem=f"{error.filename or where} is not readable", hint=HWMON_HINT)
    except (OSError, ValueError) as error:
        return Source(name, problem=f"rail {rail.name} cannot be read: {error}", hint="see dmesg for the sensor")
    names = tuple(rail.name for rail in rails)
    if total_of(names) is None:
        problem = f"no total is known for the rails {', '.join(names)}"
        return Source(name, names, problem, f"choose one rail: --power {name}:{names[0]}")
    return Source(name, names)


def _ina3221(system: System) -> Source:
    return _hwmon("ina3221", INA3221, ina3221_rails(system), system)


def _ina238(system: System) -> Source:
    return _hwmon("ina238", INA238, ina238_rails(system), system)


def _tegrastats(system: System) -> Source:
    if system.run("which", "tegrastats") is None:
        where = "is not on the PATH" if is_jetson(system) else "is a Jetson's, this machine is none"
        return Source("tegrastats", problem=f"tegrastats {where}")
    return Source("tegrastats")


def _jtop(system: System) -> Source:
    if not is_jetson(system):
        return Source("jtop", problem="jtop is for a Jetson, this machine is none")
    if importlib.util.find_spec("jtop") is None:
        return Source("jtop", problem="jtop is not installed", hint="sudo pip install jetson-stats && reboot")
    socket = system.path(JTOP_SOCKET)
    if not socket.exists():
        hint = "sudo systemctl restart jtop.service (and see 'systemctl status jtop')"
        return Source("jtop", problem="the jtop service is not running", hint=hint)
    return Source("jtop")


def _nvml(system: System) -> Source:
    if is_jetson(system):
        return Source("nvml", problem="NVML has no power reading on a Jetson")
    if system.line("/proc/driver/nvidia/version") is None:
        return Source("nvml", problem="no NVIDIA driver on this machine")
    if importlib.util.find_spec("pynvml") is None:
        return Source("nvml", problem="pynvml is not installed", hint="pip install 'hrm-edge[power]'")
    return Source("nvml")


def _rapl(system: System) -> Source:
    zones = rapl_zones(system)
    if not zones:
        return Source("rapl", problem="the CPU shows no RAPL energy counters (virtual machines hide them)")
    try:
        for zone in zones:
            system.read(zone.energy_uj)
    except OSError as error:
        return Source("rapl", problem=f"{error.filename or RAPL} is not readable", hint=RAPL_HINT)
    return Source("rapl", tuple(zone.name for zone in zones))


_LOOKS: tuple[Callable[[System], Source], ...] = (_ina238, _ina3221, _tegrastats, _jtop, _nvml, _rapl)
