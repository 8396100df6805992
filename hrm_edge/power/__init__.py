"""Power meters: which this machine has, and the one that ``--power`` names, opened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest
from hrm_edge.power.ina import Ina238, Ina3221
from hrm_edge.power.jtop import JtopMeter
from hrm_edge.power.meter import Clock, Meter, SensorError, Source
from hrm_edge.power.nvml import NvmlMeter
from hrm_edge.power.rapl import RaplMeter
from hrm_edge.power.tegrastats import TegrastatsMeter

AUTO, NONE = "auto", "none"
# The best first: sensors of the whole board, programs that read them, GPU, CPU.
METERS: dict[str, type[Meter]] = {
    meter.name: meter for meter in (Ina238, Ina3221, TegrastatsMeter, JtopMeter, NvmlMeter, RaplMeter)
}


@dataclass(frozen=True)
class Chosen:
    """Chosen meter, or None and the reason; ``passed_over`` lists the better meters that could not be used, and why."""

    meter: Meter | None
    reason: str | None = None
    passed_over: list[str] = field(default_factory=list)


def power_sources(system: System) -> list[Source]:
    """Return all power meters, the best first; nothing is opened."""
    return [meter.find(system) for meter in METERS.values()]


def open_meter(choice: str, system: System, *, on_cpu: bool, clock: Clock = time.monotonic) -> Chosen:
    """Open the meter that ``choice`` names: ``auto``, ``none``, a meter, or ``METER:RAIL``.

    ``on_cpu``: the engine runs on the CPU, so ``auto`` skips the GPU's own meter. Raises ``UserError`` for a meter or
    rail that this machine does not have; ``auto`` never raises.
    """
    if choice == NONE:
        return Chosen(None, "not asked for (--power none)")
    if choice == AUTO:
        return _best(system, on_cpu, clock)
    name, _, rail = choice.partition(":")
    if name not in METERS:
        raise UserError(f"--power: there is no meter '{name}'", nearest(name, [*METERS, AUTO, NONE]))
    source = METERS[name].find(system)
    if source.problem is not None and not (rail and source.rails):
        raise UserError(f"--power {name}: {source.problem}", source.hint or "use --power auto or none")
    try:
        return Chosen(METERS[name](system, clock, rail or None))
    except (SensorError, OSError) as error:
        raise UserError(f"--power {name}: {error}", "use --power auto or none") from error


def _best(system: System, on_cpu: bool, clock: Clock) -> Chosen:
    passed: list[str] = []
    for name, meter in METERS.items():
        source = meter.find(system)
        problem = source.problem
        if problem is None and on_cpu and meter.of_gpu:
            problem = "it measures the GPU, and this engine runs on the CPU"
        if problem is None:
            try:
                return Chosen(meter(system, clock), None, passed)
            except (SensorError, OSError) as error:
                problem = str(error)
        passed.append(f"{name}: {problem}" + (f" ({source.hint})" if source.hint else ""))
    return Chosen(None, "no power meter: " + "; ".join(passed), passed)
