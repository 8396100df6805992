"""What the benchmarks share that let contestants take turns: figures over rounds, and ratios within a round."""

from __future__ import annotations

import statistics


def summary(values: list[float]) -> dict[str, float]:
    """Median and spread over rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Summary of ours / theirs, each taken within a round: a change of the machine's clock meets both sides."""
    return summary([a / b for a, b in zip(ours, theirs, strict=True)])
