"""Statistics that several parts of the project share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hrm_edge.report.schema import Latency

_Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
_MOST_DB = 200.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile by nearest rank: the least value with at least ``share`` of ``ordered`` at or below it.

    ``ordered`` is sorted and not empty.
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency_ms(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of at least one duration, in milliseconds."""
    ordered = sorted(seconds)
    p50, p90, p99 = (1e3 * quantile(ordered, share) for share in (0.5, 0.9, 0.99))
    return Latency(p50=p50, p90=p90, p99=p99, mean=1e3 * math.fsum(ordered) / len(ordered), min=1e3 * ordered[0])


def wilson_95(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927): within 0 and 1, and not empty at 0 or 100 %."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, _Z_95 * _Z_95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == count else centre + half)


@dataclass(frozen=True)
class AccuracyDrop:
    """Exact accuracy lost between two models on the same puzzles, in percentage points."""

    points: float
    interval_95: tuple[float, float]


def accuracy_drop(only_reference: int, only_found: int, count: int) -> AccuracyDrop:
    """Return the accuracy lost and its 95 % interval, from the puzzles that only one of two models answers rightly.

    ``only_reference`` and ``only_found`` count the puzzles, of ``count`` > 0, that only the reference and only the
    other model answer rightly. The interval for paired shares is Agresti and Min's (2005): half a puzzle is added to
    each of the four cells, so that the interval is not empty where both counts are 0.
    """
    b, c, n = only_reference + 0.5, only_found + 0.5, count + 2.0
    middle, spread = (b - c) / n, _Z_95 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    points = 100.0 * (only_reference - only_found) / count
    return AccuracyDrop(points, (100.0 * (middle - spread), 100.0 * (middle + spread)))


def decibels(signal: float, noise: float) -> float:
    """Return the signal-to-quantization-noise ratio in dB, 10 log10(signal / noise), at most 200 (no noise)."""
    return _MOST_DB if noise == 0 else min(_MOST_DB, 10.0 * math.log10(max(signal, 1e-300) / noise))
