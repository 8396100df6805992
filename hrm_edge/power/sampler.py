"""Thread that reads a meter during a measurement; neither waits for the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hrm_edge.power.meter import Clock, Meter, Reading, SensorError

# Failures in a row, 2 s at 20 Hz, after which the sensor counts as dead: more reads would only cost time.
GIVE_UP_AFTER = 40


class Sampler:
    """Readings of ``meter`` in order of time, and its failures."""

    def __init__(self, meter: Meter, clock: Clock = time.monotonic) -> None:
        self.meter, self.clock = meter, clock
        self.readings: list[Reading] = []
        self.failures: list[tuple[float, str]] = []
        self.dead = False
        self._in_a_row = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def sample(self) -> None:
        """Read once and keep the reading if it is newer than the last one, or the failure with its time."""
        try:
            reading = self.meter.read()
        except (SensorError, OSError, ValueError) as error:
            self.failures.append((self.clock(), " ".join(str(error).split()) or type(error).__name__))
            self._in_a_row += 1
            self.dead = self._in_a_row >= GIVE_UP_AFTER
            return
        self._in_a_row = 0
        if not self.readings or reading.at_s > self.readings[-1].at_s:
            self.readings.append(reading)

    def run(self, wait: Callable[[float], bool]) -> None:
        """Sample every ``period_s`` until ``wait(seconds)`` returns true; missed samples are not made up for."""
        due = self.clock()
        while not self.dead:
            self.sample()
            now = self.clock()
            due = max(due + self.meter.period_s, now)
            if wait(due - now):
                return

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self.run, args=(self._stop.wait,), name="power", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for one more reading, so that one lies behind the last window's end, then close the meter."""
        assert self._thread is not None
        last = len(self.readings)
        deadline = self.clock() + 3 * self.meter.period_s
        while not self.dead and len(self.readings) == last and self.clock() < deadline:
            time.sleep(self.meter.period_s / 4)
        self._stop.set()
        self._thread.join(5)
        self.meter.close()
