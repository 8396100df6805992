"""Choice of the power meter for ``--power``: the best one of this machine, a named one, or none and the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hrm_edge.bench.power.hwmon import HwmonMeter
from hrm_edge.bench.power.jtop import JtopMeter
from hrm_edge.bench.power.meter import Clock, Meter, SensorError
from hrm_edge.bench.power.nvml import NvmlMeter
from hrm_edge.bench.power.rapl import RaplMeter
from hrm_edge.bench.power.tegrastats import TegrastatsMeter
from hrm_edge.device.sensors import Source, ina238_rails, ina3221_rails, power_sources, rapl_zones
from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Chosen:
    """Chosen meter, or None and the reason; ``passed_over`` lists the better meters that could not be used, and why."""

    meter: Meter | None
    reason: str | None = None
    passed_over: list[str] = field(default_factory=list)


def open_meter(choice: str, system: System, *, on_cpu: bool, clock: Clock = time.monotonic) -> Chosen:
    """Open the meter that ``choice`` names: ``auto``, ``none``, a meter, or ``METER:RAIL``.

    ``on_cpu``: the engine runs on the CPU, so ``auto`` skips the GPU's own meter. Raises ``UserError`` for a meter or
    rail that this machine does not have; ``auto`` never raises.
    """
    if choice == NONE:
        return Chosen(None, "not asked for (--power none)")
    sources = {source.name: source for source in power_sources(system)}
    if choice == AUTO:
        return _best(sources, system, on_cpu, clock)
    name, _, rail = choice.partition(":")
    if name not in sources:
        raise UserError(f"--power: there is no meter '{name}'", nearest(name, [*sources, AUTO, NONE]))
    source = sources[name]
    if source.problem is not None and not (rail and source.rails):
        raise UserError(f"--power {name}: {source.problem}", source.hint or "use --power auto or none")
    try:
        return Chosen(_OPEN[name](system, clock, rail or None))
    except (SensorError, OSError) as error:
        raise UserError(f"--power {name}: {error}", "use --power auto or none") from error


def _best(sources: dict[str, Source], system: System, on_cpu: bool, clock: Clock) -> Chosen:
    passed: list[str] = []
    for name, source in sources.items():
        problem = source.problem
        if problem is None and name == "nvml" and on_cpu:
            problem = "it measures the GPU, and this engine runs on the CPU"
        if problem is None:
            try:
                return Chosen(_OPEN[name](system, clock, None), None, passed)
            except (SensorError, OSError) as error:
                problem = str(error)
        passed.append(f"{name}: {problem}" + (f" ({source.hint})" if source.hint else ""))
    return Chosen(None, "no power meter: " + "; ".join(passed), passed)


def _ina3221(system: System, clock: Clock, rail: str | None) -> Meter:
    return HwmonMeter("ina3221", "sysfs, INA3221", ina3221_rails(system), system, clock, rail)


def _ina238(system: System, clock: Clock, rail: str | None) -> Meter:
    """Open the INA238 (total) together with the INA3221, whose rails are parts of that total and show where it goes."""
    rails = [*ina238_rails(system), *ina3221_rails(system)]
    return HwmonMeter("ina238", "sysfs, INA238 (total) and INA3221 (parts)", rails, system, clock, rail)


def _rapl(system: System, clock: Clock, rail: str | None) -> Meter:
    zones = rapl_zones(system)
    names = [zone.name for zone in zones]
    if rail is not None and rail not in names:
        raise UserError(f"--power rapl: there is no '{rail}'", nearest(rail, names))
    return RaplMeter([zone for zone in zones if rail in (None, zone.name)], system, clock)


_OPEN: dict[str, Callable[[System, Clock, str | None], Meter]] = {
    "ina238": _ina238,
    "ina3221": _ina3221,
    "tegrastats": lambda system, clock, rail: TegrastatsMeter(clock, rail),
    "jtop": lambda system, clock, rail: JtopMeter(clock, rail),
    "nvml": lambda system, clock, rail: NvmlMeter(clock, rail),
    "rapl": _rapl,
}
