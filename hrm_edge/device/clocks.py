"""Power mode and clocks, and whether the clocks are locked."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from hrm_edge.device.system import System
from hrm_edge.records import Record

NVPMODEL_CONF, _NVPMODEL_STATUS = "/etc/nvpmodel.conf", "/var/lib/nvpmodel/status"
_GPU_CLOCKS = ("/sys/class/devfreq/*.gpu", "/sys/class/devfreq/*.ga10b", "/sys/class/devfreq/gpu-gpc-0")


class Clock(Record):
    """Clock domain, in MHz."""

    name: str = Field(description="cpu0, cpu4 … (one per cluster) or gpu")
    now_mhz: float | None
    min_mhz: float
    max_mhz: float
    top_mhz: float | None = Field(description="the hardware's highest in this power mode; null where it does not say")
    governor: str | None

    @property
    def locked(self) -> bool:
        """Whether the clock cannot change: the lowest and the highest allowed frequency are equal."""
        return self.min_mhz == self.max_mhz


def power_mode(system: System) -> str | None:
    """Return the nvpmodel mode's name (ids differ between boards), or None where there is none or it cannot be read."""
    named = re.search(r"Power Mode:\s*(\S+)", system.run("nvpmodel", "-q") or "")
    if named:
        return named[1]
    # Calling nvpmodel -q may need root; the status file does not.
    status = re.search(r"pmode:(\d+)", system.line(_NVPMODEL_STATUS) or "")
    return power_modes(system).get(int(status[1])) if status else None


def power_modes(system: System) -> dict[int, str]:
    """Return mode id → name, from the board's own configuration file."""
    text = system.line(NVPMODEL_CONF) or ""
    pairs = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text, re.MULTILINE)
    return {int(number): name for number, name in pairs}


def clocks(system: System) -> list[Clock]:
    """Return the clocks of the online CPU clusters and of the GPU; empty where none can be read (a virtual machine)."""
    known = [clock for path in system.glob("/sys/devices/system/cpu/cpufreq/policy*") if (clock := _cpu(system, path))]
    for pattern in _GPU_CLOCKS:
        for path in system.glob(pattern):
            low, high = system.integer(path / "min_freq"), system.integer(path / "max_freq")
            if low is not None and high is not None:
                steps = (system.line(path / "available_frequencies") or "").split()
                top = max((int(step) for step in steps if step.isdecimal()), default=None)
                now, governor = system.integer(path / "cur_freq"), system.line(path / "governor")
                known.append(_clock("gpu", now, low, high, top, 1e6, governor))
    return known


def _cpu(system: System, path: Path) -> Clock | None:
    low, high = system.integer(path / "scaling_min_freq"), system.integer(path / "scaling_max_freq")
    if low is None or high is None:
        return None
    now, top = system.integer(path / "scaling_cur_freq"), system.integer(path / "cpuinfo_max_freq")
    name = path.name.replace("policy", "cpu")
    return _clock(name, now, low, high, top, 1e3, system.line(path / "scaling_governor"))


def _clock(
    name: str, now: int | None, low: int, high: int, top: int | None, per_mhz: float, governor: str | None
) -> Clock:
    def mhz(value: int | None) -> float | None:
        return None if value is None else value / per_mhz

    return Clock(
        name=name, now_mhz=mhz(now), min_mhz=low / per_mhz, max_mhz=high / per_mhz, top_mhz=mhz(top), governor=governor
    )
