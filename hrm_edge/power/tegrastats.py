"""``tegrastats`` of a Jetson: the parser of its lines, and the meter that runs it."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hrm_edge.child import end_process
from hrm_edge.device.identity import is_jetson
from hrm_edge.device.system import System
from hrm_edge.power.meter import Clock, FollowedMeter, Reading, SensorError, Source

PERIOD_S = 0.1
_FIRST_LINE_S = 5.0

# "VDD_IN 17946mW/15710mW[/17946mW]" or "VDD_IN 3902/3611": now/mean since start[/highest]. "RAM 1/2MB" is not a rail.
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d{1,9})(?:mW)?/-?\d+(?:mW)?(?:/-?\d+(?:mW)?)?(?!\S)")
_HEAT = re.compile(r"(?<!\S)([A-Za-z][\w-]*)@(-?\d{1,6}(?:\.\d+)?)C(?:/-?[\d.]+C)?(?!\S)")
# "12%", "0%@114", "84%@[713]", "20%@[0, 300, 400]"; an idle Thor prints no load: "@[1574,1574]", "@[300,off]"
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (?=[\d@])(?:(\d{1,3})%)?(?:@(\d{1,6}|\[[0-9a-z, ]{1,80}\]))?(?!\S)")
_WORD = re.compile(r"[0-9a-z]+")
_CPU = re.compile(r"(?<!\S)CPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d{1,3})%(?:@(\d{1,6}))?")


@dataclass(frozen=True)
class _TegraLine:
    """Values of one line; one that the line lacks is empty or None."""

    rails_w: dict[str, float]
    temperatures_c: dict[str, float]
    gpu_share: float | None
    gpu_mhz: tuple[int | None, ...]
    """Clock of each graphics cluster; None is off."""
    cpu_share: tuple[float | None, ...]
    """Load of each core; None is off."""


def parse_tegrastats(line: str) -> _TegraLine:
    """Parse a line of any L4T release; never raises, for any text."""
    gpu, cpu = _GPU.search(line), _CPU.search(line)
    cores = [_CORE.match(core.strip()) for core in cpu[1].split(",")] if cpu else []
    return _TegraLine(
        rails_w={name: int(now) / 1e3 for name, now in _RAIL.findall(line) if name != "NC"},
        temperatures_c={name: float(value) for name, value in _HEAT.findall(line) if float(value) > -100},
        gpu_share=int(gpu[1] or 0) / 100 if gpu else None,
        gpu_mhz=tuple(int(mhz) if mhz.isdecimal() else None for mhz in _WORD.findall(gpu[2] or "")) if gpu else (),
        cpu_share=tuple(int(core[1]) / 100 if core else None for core in cores),
    )


Stream = tuple[Iterable[str], Callable[[], None]]
"""Lines as they come, and the function that stops their source."""


def _start_program(command: Sequence[str]) -> Stream:
    """Run ``command`` and follow its output. Raises ``SensorError`` where it does not start."""
    try:
        process = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise SensorError(f"{command[0]} does not start: {error.strerror}") from error
    assert process.stdout is not None
    stdout = process.stdout

    def stop() -> None:
        end_process(process, 2)
        stdout.close()

    return stdout, stop


class TegrastatsMeter(FollowedMeter):
    """Meter that runs the program and keeps its newest line; the printed mean is of all time and not used."""

    name = "tegrastats"
    period_s = PERIOD_S

    def __init__(
        self,
        system: System,
        clock: Clock,
        rail: str | None = None,
        start: Callable[[Sequence[str]], Stream] = _start_program,
    ) -> None:
        """Start the program and wait for its first line with rails; with ``rail``, measure only that rail.

        Raises ``SensorError`` where the program has no rails or no known total, ``UserError`` for an unknown rail.
        """
        command = ("tegrastats", "--interval", str(round(1e3 * PERIOD_S)))
        self.sensor = " ".join(command)
        super().__init__(clock)
        self._hottest, self._gpu = -273.0, (0.0, 0)
        self._lines, self._stop = start(command)
        self._begin(_FIRST_LINE_S, rail)

    @classmethod
    def find(cls, system: System) -> Source:
        """Look for the program; see :meth:`Meter.find`."""
        if system.run("which", "tegrastats") is None:
            where = "is not on the PATH" if is_jetson(system) else "is a Jetson's, this machine is none"
            return cls._unusable(f"tegrastats {where}")
        return cls._found()

    def _follow(self) -> None:
        with contextlib.suppress(ValueError):  # the pipe was closed by close()
            for line in self._lines:
                self._take(line, self._clock())
        self._end("tegrastats ended")

    def _take(self, line: str, at_s: float) -> None:
        """Keep a line that came at ``at_s``, unless it has no rails."""
        values = parse_tegrastats(line)
        if values.rails_w:
            self._hottest = max([self._hottest, *values.temperatures_c.values()])
            if values.gpu_share is not None:
                self._gpu = (self._gpu[0] + values.gpu_share, self._gpu[1] + 1)
            self._put(Reading(at_s, values.rails_w))

    def notes(self) -> list[str]:
        """Return the hottest sensor's temperature and the mean GPU load."""
        total, count = self._gpu
        said = [f"tegrastats: hottest sensor {self._hottest:.1f} °C"] if self._hottest > -273 else []
        return [*said, f"tegrastats: mean GPU load {total / count:.0%}"] if count else said

    def close(self) -> None:
        """Stop the program and end the thread."""
        self._stop()
        self._thread.join(2)
