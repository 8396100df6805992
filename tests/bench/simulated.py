"""Machines whose power follows a known curve on a clock that the test moves: no test waits for real time."""

from __future__ import annotations

import math
import queue
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hrm_edge.power.meter import Meter
from hrm_edge.power.sampler import Sampler
from tests.machines import Machine

Curve = Callable[[float], float]
IDLE_W = 5.0


@dataclass(frozen=True)
class Wave:
    """Watts at a moment, and their integral since 0."""

    name: str
    watts: Curve
    joules: Curve

    def energy(self, begin: float, end: float) -> float:
        return self.joules(end) - self.joules(begin)


def _square(t: float) -> float:
    return 12.0 if math.fmod(t, 1.7) < 0.85 else 6.0


def _square_joules(t: float) -> float:
    whole, rest = divmod(t, 1.7)
    return whole * 0.85 * 18.0 + 12.0 * min(rest, 0.85) + 6.0 * max(rest - 0.85, 0.0)


WAVES = (
    Wave("constant", lambda t: 9.0, lambda t: 9.0 * t),
    Wave("ramp", lambda t: 4.0 + t, lambda t: 4.0 * t + t * t / 2),
    Wave("square", _square, _square_joules),
    Wave("sine", lambda t: 10.0 + 4.0 * math.sin(3.1 * t), lambda t: 10.0 * t - 4.0 / 3.1 * math.cos(3.1 * t)),
)


class Clock:
    """A monotonic clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A machine in time: ``show`` sets its sensors to a total power."""

    clock: Clock
    show: Callable[[float], None]
    wave: Wave

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.show(self.wave.watts(self.clock.now))


def record(world: World, meter: Meter, until: float, *, pauses: Sequence[tuple[float, float]] = ()) -> Sampler:
    """Sample to ``until``; ``pauses`` (at, seconds): moments at which the sampling thread gets no time."""
    sampler, left = Sampler(meter, world.clock), sorted(pauses)

    def wait(seconds: float) -> bool:
        if left and world.clock.now >= left[0][0]:
            seconds += left.pop(0)[1]
        world.advance(max(seconds, 1e-4))
        return world.clock.now >= until

    sampler.run(wait)
    return sampler


def shares(machine: Machine, parts: Mapping[str, float], *, vin: bool = False) -> Callable[[float], None]:
    """Write a total to an INA3221's rails by their shares of it (and to a Thor's INA238 whole)."""

    def show(watts: float) -> None:
        machine.live = {} if machine.live is None else machine.live
        machine.rails({name: share * watts for name, share in parts.items()})
        if vin:
            machine.vin(watts)

    return show


class Lines:
    """A ``tegrastats`` that prints a line whenever the power is set, through the meter's own thread."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.queue: queue.Queue[str | None] = queue.Queue()
        self.meter: Meter | None = None

    def start(self, command: Sequence[str]) -> tuple[object, Callable[[], None]]:
        self.command = list(command)
        self.show(5.0)
        return iter(self.queue.get, None), lambda: self.queue.put(None)

    def show(self, watts: float) -> None:
        before = self.meter.read() if self.meter is not None else None
        self.queue.put(self.form.format(mw=round(1e3 * watts)))
        deadline = time.monotonic() + 5
        while self.meter is not None and self.meter.read() is before and time.monotonic() < deadline:
            time.sleep(1e-4)


class JtopError(Exception):
    """Stands for jtop's own exception."""


class Jtop:
    """The interface of jtop's client: ``start``, ``ok``, ``power``, ``close``."""

    failure: str | None = None
    queue: queue.Queue[dict[str, object] | None]

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def start(self) -> None:
        if self.failure is not None:
            raise JtopError(self.failure)

    def ok(self) -> bool:
        found = self.queue.get()
        if found is None:
            return False
        self.power = found
        return True

    def close(self) -> None:
        self.queue.put(None)


def jtop_module(monkeypatch, rails: Mapping[str, float], total: str | None, failure: str | None = None):
    """Install a ``jtop`` whose rails share a total; ``total`` is the rail that it calls so, None: it adds them all up.

    Returns ``show(watts)``.
    """
    client = type("jtop", (Jtop,), {"failure": failure, "queue": queue.Queue()})
    monkeypatch.setitem(sys.modules, "jtop", types.SimpleNamespace(jtop=client, JtopException=JtopError))

    def show(watts: float) -> None:
        values = {name: {"volt": 5000, "power": round(1e3 * share * watts), "avg": 1} for name, share in rails.items()}
        tot: dict[str, object] = {"power": sum(int(value["power"]) for value in values.values()), "avg": 1}
        if total is not None:
            tot = {**values.pop(total), "name": total}
        client.queue.put({"rail": values, "tot": tot})

    return show


def nvml_module(
    monkeypatch, clock: Clock, wave: Wave, *, counter: bool = True, names: int = 1
) -> types.SimpleNamespace:
    """Install a ``pynvml`` of ``names`` GPUs whose first one draws ``wave``."""

    class NVMLError(Exception):
        pass

    def energy(handle: int) -> int:
        if not counter:
            raise NVMLError("Not Supported")
        return 7_000_000 + round(1e3 * wave.energy(0.0, clock()))

    module = types.SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: names,
        nvmlDeviceGetHandleByIndex=lambda number: number, nvmlDeviceGetTotalEnergyConsumption=energy,
        nvmlDeviceGetPowerUsage=lambda handle: round(1e3 * wave.watts(clock())),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module
