"""The page's power figure, from rails, from a counter, and from nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hrm_edge.demo.power import PERIOD_S, Gauge
from hrm_edge.device.system import System
from hrm_edge.power import Chosen, open_meter
from hrm_edge.power.meter import Reading, Scope, SensorError


@dataclass
class Meter:
    scope: Scope
    readings: list[Reading | Exception]
    name: str = "toy"
    sensor: str = "toy"
    period_s: float = 0.1
    closed: bool = field(default=False)

    def read(self) -> Reading:
        found = self.readings.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(meter: Meter, times: int) -> list[float | None]:
    clock = Time()
    gauge = Gauge(Chosen(meter), clock)
    found = []
    for _ in range(times):
        found.append(gauge()["watts"])
        assert gauge()["watts"] == found[-1]  # not read again within the period
        clock.now += PERIOD_S
    gauge.close()
    assert meter.closed
    return found


def test_rails_are_added():
    meter = Meter(Scope(("A", "B"), "both"), [Reading(0, {"A": 3.0, "B": 4.5, "C": 9.0}), Reading(1, {"A": 3.0})])
    assert asked(meter, 2) == [7.5, None]


def test_a_counter_is_a_difference_and_an_old_reading_is_no_new_one():
    counts = [(0.0, 10.0), (0.5, 12.0), (0.5, 12.0), (1.5, 18.0)]
    meter = Meter(Scope((), "the package"), [Reading(at, {}, joules) for at, joules in counts])
    assert asked(meter, 4) == [None, 4.0, 4.0, 6.0]


def test_a_sensor_that_fails_is_told_and_may_come_back():
    meter = Meter(Scope(("A",), "all"), [Reading(0, {"A": 5.0}), SensorError("gone"), Reading(2, {"A": 6.0})])
    assert asked(meter, 3) == [5.0, None, 6.0]
    assert Gauge(Chosen(Meter(meter.scope, [OSError("torn")])))() == {"watts": None, "meter": "toy: torn"}


def test_no_meter_says_why():
    gauge = Gauge(open_meter("none", System(), on_cpu=True))
    assert gauge() == {"watts": None, "meter": "not asked for (--power none)"}
    gauge.close()
    found = Gauge(open_meter("auto", System(), on_cpu=True))()
    assert found["meter"]
    assert found["watts"] is None or found["watts"] == pytest.approx(found["watts"])
