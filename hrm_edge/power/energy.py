"""Energy and power over a window from readings that may have gaps. Pure functions; times in s, power in W.

Power is taken as linear between two readings (trapezoidal rule), and is interpolated at the window's ends. A stretch
without readings is a gap: it is reported, and adds nothing to the energy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm_edge.power.meter import Reading
from hrm_edge.power.sampler import Sampler
from hrm_edge.report.schema import Gap, IdlePower, Power, RailPower

Floats = NDArray[np.float64]

_GAP_PERIODS, _GAP_LEAST_S = 4.0, 0.25
_BLOCKS, _BLOCK_LEAST_S = 10, 0.5
_TRACE_POINTS = 400
_IDLE_LEAST_SAMPLES = 5


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Power between neighbouring readings, float64 [K]: linear from ``before_w`` at ``begin`` to ``after_w`` at
    ``end``.
    """

    begin: Floats
    end: Floats
    before_w: Floats
    after_w: Floats

    def within(self, begin: float, end: float) -> _Pieces:
        """Return the pieces cut to a window; the power at a cut is interpolated."""
        low, high = np.maximum(self.begin, begin), np.minimum(self.end, end)
        kept = high > low
        length = self.end[kept] - self.begin[kept]
        slope = (self.after_w[kept] - self.before_w[kept]) / length
        low, high, base = low[kept], high[kept], self.before_w[kept]
        return _Pieces(low, high, base + slope * (low - self.begin[kept]), base + slope * (high - self.begin[kept]))

    @property
    def seconds(self) -> float:
        """Total length of the pieces."""
        return float((self.end - self.begin).sum())

    @property
    def joules(self) -> float:
        """Energy of the pieces: mean power × length, summed."""
        return float(((self.before_w + self.after_w) / 2 * (self.end - self.begin)).sum())

    def covering(self, limit_s: float) -> _Pieces:
        """Return the pieces no longer than ``limit_s``; longer ones are gaps."""
        kept = self.end - self.begin <= limit_s
        return _Pieces(self.begin[kept], self.end[kept], self.before_w[kept], self.after_w[kept])


def of_power(at: Sequence[float], watts: Sequence[float]) -> _Pieces:
    """Return the pieces between readings of power: linear in each."""
    t, w = np.asarray(at, np.float64), np.asarray(watts, np.float64)
    return _Pieces(t[:-1], t[1:], w[:-1], w[1:])


def _of_counter(at: Sequence[float], joules: Sequence[float]) -> _Pieces:
    """Return the pieces between readings of an energy counter: constant power in each."""
    t, e = np.asarray(at, np.float64), np.asarray(joules, np.float64)
    power = np.diff(e) / np.diff(t)
    return _Pieces(t[:-1], t[1:], power, power)


@dataclass(frozen=True, eq=False)
class _Series:
    """Total power of a meter over time, from its readings."""

    pieces: _Pieces
    at: Floats
    """Times of the usable readings [N]."""
    integrated: _Pieces | None
    """Pieces from readings of power, where ``pieces`` come from a counter and the meter reports power too."""
    counted: bool
    """Whether ``pieces`` come from an energy counter."""
    dropped: int
    """Number of readings without the total's rails, or with a total that no running machine can have."""


def _series_of(readings: Sequence[Reading], rails: Sequence[str]) -> _Series:
    """Return the meter's total over time: its energy counter where it has one, else the sum of ``rails``."""
    totals = [
        (reading.at_s, sum(reading.rails_w[rail] for rail in rails))
        for reading in readings
        if all(rail in reading.rails_w for rail in rails)
    ]
    usable = [(at, watts) for at, watts in totals if np.isfinite(watts) and watts > 0]
    counts = [(reading.at_s, reading.energy_j) for reading in readings if reading.energy_j is not None]
    power = of_power(*_columns(usable))
    if counts:
        at, joules = _columns(counts)
        return _Series(
            _of_counter(at, joules), np.asarray(at), power if usable else None, True, len(readings) - len(counts)
        )
    return _Series(power, np.asarray(_columns(usable)[0]), None, False, len(readings) - len(usable))


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _gaps_in(at: Floats, begin: float, end: float, limit_s: float) -> list[Gap]:
    """Return the parts of the window, its ends included, that lie between readings more than ``limit_s`` apart."""
    around = at[(at > begin - limit_s) & (at < end + limit_s)]
    edges = np.concatenate([[-np.inf], around, [np.inf]])
    gaps = []
    for before, after in itertools.pairwise(edges):
        low, high = max(before, begin), min(after, end)
        if after - before > limit_s and high > low:
            gaps.append(Gap(begin_s=float(low - begin), seconds=float(high - low)))
    return gaps


def _standard_error(pieces: _Pieces, begin: float, end: float) -> tuple[float | None, int]:
    """Return the standard error of the mean power and the number of equal blocks of the window that it is taken over.

    Returns (None, 0) where there are fewer than two blocks.
    """
    count = min(_BLOCKS, int((end - begin) / _BLOCK_LEAST_S))
    if count < 2:
        return None, 0
    edges = np.linspace(begin, end, count + 1)
    blocks = [pieces.within(low, high) for low, high in itertools.pairwise(edges)]
    means = [block.joules / block.seconds for block in blocks if block.seconds > 0.5 * (end - begin) / count]
    if len(means) < 2:
        return None, 0
    return float(np.std(means, ddof=1) / np.sqrt(len(means))), len(means)


def _gap_limit(period_s: float) -> float:
    """Return the longest time between two readings, in s, over which the power may be interpolated."""
    return max(_GAP_PERIODS * period_s, _GAP_LEAST_S)


def idle_power(sampler: Sampler, begin: float, end: float) -> IdlePower | None:
    """Return the power of the machine at rest in a window, or None where the sensor gave too few readings."""
    limit = _gap_limit(sampler.meter.period_s)
    series = _series_of(sampler.readings, sampler.meter.scope.rails)
    pieces = series.pieces.covering(limit).within(begin, end)
    samples = int(((series.at >= begin) & (series.at <= end)).sum())
    if samples < _IDLE_LEAST_SAMPLES or pieces.seconds < 0.5 * (end - begin):
        return None
    middle = (pieces.before_w + pieces.after_w) / 2
    return IdlePower(
        seconds=pieces.seconds,
        samples=samples,
        power_w_mean=pieces.joules / pieces.seconds,
        noise_w=float(middle.std()),
    )


def measure(sampler: Sampler, begin: float, end: float, idle: IdlePower | None, passed_over: list[str]) -> Power:
    """Return the power and energy in the window [begin, end] of the sampler's clock, rail by rail and in total.

    The energy is None, with a reason, where the window has gaps.
    """
    meter = sampler.meter
    limit, window = _gap_limit(meter.period_s), end - begin
    series = _series_of(sampler.readings, meter.scope.rails)
    pieces = series.pieces.covering(limit).within(begin, end)
    gaps = _gaps_in(series.at, begin, end, limit)
    failures = [text for at, text in sampler.failures if begin <= at <= end]
    reason = _reason(gaps, failures, window)
    mean, error, blocks, trace = None, None, 0, []
    if pieces.seconds > 0:
        mean = pieces.joules / pieces.seconds
        error, blocks = _standard_error(pieces, begin, end)
        trace = _trace(series.pieces.covering(limit), begin)
    integrated = None if series.integrated is None else series.integrated.covering(limit).within(begin, end)
    return Power(
        meter=meter.name,
        sensor=meter.sensor,
        scope=meter.scope.words,
        power_w_mean=mean,
        power_w_standard_error=error,
        blocks=blocks,
        power_w_net=None if mean is None or idle is None else mean - idle.power_w_mean,
        energy_j=pieces.joules if reason is None else None,
        energy_from=None if reason else "counter" if series.counted else "integrated power",
        energy_j_integrated=None if reason or integrated is None else integrated.joules,
        window_s=window,
        covered_share=min(1.0, pieces.seconds / window),
        samples=int(((series.at >= begin) & (series.at <= end)).sum()),
        largest_gap_s=_largest_gap(series.at, begin, end),
        gaps=gaps,
        failures=len(failures),
        idle=idle,
        rails=_rails(sampler, begin, end, limit),
        trace=trace,
        notes=[*meter.notes(), *_notes(series, failures)],
        passed_over=passed_over,
        reason=reason,
    )


def _largest_gap(at: Floats, begin: float, end: float) -> float | None:
    """Return the longest time between neighbouring readings of which at least one lies in the window."""
    steps = np.diff(at)[(at[1:] > begin) & (at[:-1] < end)] if len(at) > 1 else np.array([])
    return float(steps.max()) if len(steps) else None


def _reason(gaps: list[Gap], failures: list[str], window: float) -> str | None:
    if not gaps:
        return None
    silent = sum(gap.seconds for gap in gaps)
    why = f"; the last error: {failures[-1]}" if failures else ""
    longest = max(gap.seconds for gap in gaps)
    return f"the sensor was silent for {silent:.2f} of {window:.2f} s ({len(gaps)} gaps, longest {longest:.2f} s){why}"


def _notes(series: _Series, failures: list[str]) -> list[str]:
    notes = []
    if series.dropped:
        notes.append(f"{series.dropped} readings left out: no total in them, or one that is not positive")
    if failures:
        notes.append(f"{len(failures)} reads failed in the window, the first: {failures[0]}")
    return notes


def _rails(sampler: Sampler, begin: float, end: float, limit: float) -> list[RailPower]:
    names = list(dict.fromkeys(name for reading in sampler.readings for name in reading.rails_w))
    notes = []
    for name in names:
        said = [(r.at_s, r.rails_w[name]) for r in sampler.readings if name in r.rails_w]
        inside = [watts for at, watts in said if begin <= at <= end]
        if inside:
            pieces = of_power(*_columns(said)).covering(limit).within(begin, end)
            mean = pieces.joules / pieces.seconds if pieces.seconds else None
            notes.append(
                RailPower(
                    name=name,
                    in_total=name in sampler.meter.scope.rails,
                    power_w_mean=mean,
                    power_w_min=min(inside),
                    power_w_max=max(inside),
                    negative_readings=sum(watts < 0 for watts in inside),
                )
            )
    return notes


def _trace(pieces: _Pieces, begin: float) -> list[tuple[float, float]]:
    """Return (s since ``begin``, mean power in W) for up to ``_TRACE_POINTS`` groups of pieces, at their middles."""
    count = len(pieces.begin)
    groups = np.array_split(np.arange(count), min(count, _TRACE_POINTS))
    points = []
    for rows in groups:
        part = _Pieces(pieces.begin[rows], pieces.end[rows], pieces.before_w[rows], pieces.after_w[rows])
        middle = (part.begin[0] + part.end[-1]) / 2 - begin
        points.append((round(float(middle), 3), round(part.joules / part.seconds, 4)))
    return points
