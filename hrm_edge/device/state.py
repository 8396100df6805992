"""State of the machine at one moment, and changes between two: power mode, clocks, heat, throttling, memory."""

from __future__ import annotations

import os
import time

from pydantic import Field

from hrm_edge.device.clocks import Clock, clocks, power_mode, power_modes
from hrm_edge.device.identity import is_jetson, memory_field
from hrm_edge.device.system import System
from hrm_edge.records import Record

_HOT_C = 90.0  # an Orin throttles by software from 99 °C, earlier at the end of its fan curve
_BUSY_SHARE = 0.25  # share of the cores: load by other programs before the measurement


class DeviceState(Record):
    """State that can change while a benchmark runs. Null: this machine does not report it."""

    power_mode: str | None = Field(description="by name, as nvpmodel calls it")
    power_modes: list[str] = Field(description="that this board has")
    clocks: list[Clock]
    clocks_locked: bool | None = Field(description="none can move; null: the machine shows no clock")
    temperatures_c: dict[str, float]
    over_current: dict[str, int] = Field(description="events since boot, of soctherm_oc")
    throttled: dict[str, int] = Field(description="events since boot, of the CPU's own counters")
    memory_available_bytes: int | None
    swap_used_bytes: int | None
    load_1m: float | None = Field(description="runnable processes, mean of a minute")
    wall_s: float = Field(description="seconds since 1970, which may be set while we measure")
    boot_s: float = Field(description="seconds since boot, suspension counted")
    monotonic_s: float = Field(description="seconds since boot, suspension not counted")


def read_state(system: System | None = None) -> DeviceState:
    """Return the state of the machine now."""
    system = system or System()
    all_clocks = clocks(system)
    total, free = memory_field(system, "SwapTotal"), memory_field(system, "SwapFree")
    load = (system.line("/proc/loadavg") or "").split()
    return DeviceState(
        power_mode=power_mode(system),
        power_modes=list(power_modes(system).values()),
        clocks=all_clocks,
        clocks_locked=all(clock.locked for clock in all_clocks) if all_clocks else None,
        temperatures_c=_temperatures(system),
        over_current=_over_current(system),
        throttled=_throttled(system),
        memory_available_bytes=memory_field(system, "MemAvailable"),
        swap_used_bytes=total - free if total is not None and free is not None else None,
        load_1m=float(load[0]) if load else None,
        wall_s=time.time(),
        boot_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        monotonic_s=time.monotonic(),
    )


def _temperatures(system: System) -> dict[str, float]:
    degrees: dict[str, float] = {}
    for zone in system.glob("/sys/class/thermal/thermal_zone*"):
        name, value = system.line(zone / "type"), system.integer(zone / "temp")
        # A zone that is off reads -256 °C.
        if name is not None and value is not None and value > -100_000:
            degrees[name.removesuffix("-thermal")] = value / 1e3
    return degrees


def _over_current(system: System) -> dict[str, int]:
    folders = [
        path.parent for path in system.glob("/sys/class/hwmon/hwmon*/name") if system.line(path) == "soctherm_oc"
    ]
    counters = [file for folder in folders for file in sorted(folder.glob("oc*_event_cnt"))]
    return {
        file.name.removesuffix("_event_cnt"): count for file in counters if (count := system.integer(file)) is not None
    }


def _throttled(system: System) -> dict[str, int]:
    events: dict[str, int] = {}
    for kind in ("core", "package"):
        counts = [
            system.integer(file)
            for file in system.glob(f"/sys/devices/system/cpu/cpu*/thermal_throttle/{kind}_throttle_count")
        ]
        known = [count for count in counts if count is not None]
        if known:
            events[kind] = sum(known) if kind == "core" else max(known)
    return events


def warnings_before(state: DeviceState, system: System) -> list[str]:
    """Return what makes a measurement that starts now less reliable, each with the command that fixes it."""
    warnings = []
    loose = [clock.name for clock in state.clocks if not clock.locked]
    if loose and is_jetson(system):
        warnings.append(f"clocks are not locked ({', '.join(loose)}): run 'sudo jetson_clocks' before the measurement")
    elif loose and any(clock.governor not in ("performance", None) for clock in state.clocks):
        warnings.append(
            f"the CPU may change its clock (governor {state.clocks[0].governor}): "
            "run 'sudo cpupower frequency-set -g performance' before the measurement"
        )
    if is_jetson(system) and state.power_mode is None:
        warnings.append("the power mode cannot be read: run as a user who may call 'nvpmodel -q'")
    hot = {name: value for name, value in state.temperatures_c.items() if value >= _HOT_C}
    warnings += [f"{name} is at {value:.0f} °C before the start: let it cool" for name, value in hot.items()]
    if state.load_1m is not None and state.load_1m > _BUSY_SHARE * len(os.sched_getaffinity(0)):
        warnings.append(f"other programs are running (load {state.load_1m:.2f}): stop them before the measurement")
    return warnings


def warnings_after(before: DeviceState, after: DeviceState) -> list[str]:
    """Return what happened to the machine during the measurement."""
    warnings = []
    for what, one, two in (
        ("over-current", before.over_current, after.over_current),
        ("thermal", before.throttled, after.throttled),
    ):
        more = {name: two[name] - one[name] for name in sorted(set(one) & set(two)) if two[name] > one[name]}
        for name, count in more.items():
            warnings.append(f"throttled: {count} {what} events of {name} during the measurement")
    if before.power_mode != after.power_mode:
        modes = f"{before.power_mode} to {after.power_mode}"
        warnings.append(f"the power mode changed from {modes} during the measurement")
    if before.clocks_locked and not after.clocks_locked:
        warnings.append("the clocks were unlocked during the measurement")
    tops = {clock.name: clock.max_mhz for clock in before.clocks}
    warnings += [
        f"throttled: {clock.name}'s highest clock fell from {tops[clock.name]:.0f} to {clock.max_mhz:.0f} MHz"
        for clock in after.clocks
        if clock.max_mhz < tops.get(clock.name, 0.0)
    ]
    warnings += [
        f"{name} reached {value:.0f} °C during the measurement"
        for name, value in after.temperatures_c.items()
        if value >= _HOT_C
    ]
    elapsed = after.monotonic_s - before.monotonic_s
    suspended, jumped = after.boot_s - before.boot_s - elapsed, after.wall_s - before.wall_s - elapsed
    if suspended > 0.1:
        warnings.append(f"the machine slept for {suspended:.1f} s during the measurement: the figures are worthless")
    if abs(jumped - suspended) > 0.5:
        warnings.append(f"the wall clock jumped by {jumped - suspended:+.1f} s (times here are of the monotonic clock)")
    return warnings
