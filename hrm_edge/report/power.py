"""Power over the measured window. A value that was not measured is null, with a reason; it is never 0."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hrm_edge.records import Record


class Gap(Record):
    """Time in which the sensor gave no reading for longer than a few of its periods."""

    begin_s: float = Field(description="since the window began")
    seconds: float


class RailPower(Record):
    """Power of one rail within the window; a rail outside the total is a part of one in it, or separate from it."""

    name: str
    in_total: bool
    power_w_mean: float | None
    power_w_min: float
    power_w_max: float
    negative_readings: int = Field(description="kept as they are: a sensor's offset when the rail is idle")


class IdlePower(Record):
    """Power of the machine at rest, before the warm-up, with the model loaded."""

    seconds: float
    samples: int
    power_w_mean: float
    noise_w: float = Field(description="standard deviation of single readings at rest: the noise floor")


class Power(Record):
    """Power and energy over the measured window, by one meter."""

    meter: str | None = None
    sensor: str | None = Field(default=None, description="what was read")
    scope: str | None = Field(default=None, description="which rails are added, and what that covers")
    power_w_mean: float | None = Field(default=None, description="gross, of the part of the window that was covered")
    power_w_standard_error: float | None = Field(default=None, description="of the mean, from blocks of the window")
    blocks: int = 0
    power_w_net: float | None = Field(default=None, description="mean less the mean at rest")
    energy_j: float | None = Field(default=None, description="gross, of the window; null where a gap is in it")
    energy_from: Literal["integrated power", "counter"] | None = None
    energy_j_integrated: float | None = Field(default=None, description="where there is a counter too: the check of it")
    window_s: float = 0.0
    covered_share: float = Field(default=0.0, description="of the window, between readings close enough together")
    samples: int = Field(default=0, description="within the window")
    largest_gap_s: float | None = Field(default=None, description="between readings in or around the window")
    gaps: list[Gap] = Field(default=[])
    failures: int = Field(default=0, description="reads that failed within the window")
    idle: IdlePower | None = None
    rails: list[RailPower] = Field(default=[])
    trace: list[tuple[float, float]] = Field(
        default=[], description="(s since the window began, W) from the first reading on, thinned out"
    )
    notes: list[str] = Field(default=[])
    passed_over: list[str] = Field(default=[], description="meters that were not taken, and why")
    reason: str | None = Field(default=None, description="why there is no energy figure")
