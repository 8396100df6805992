"""From a histogram of magnitudes to the bound that INT8 clips at: the rules of the recipe's ``observer``.

The histogram [BINS] counts |x| in equal bins from 0 to the largest magnitude seen. A bound is a magnitude; the scale
is bound / 127.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrm_edge.recipe import Quantization
from hrm_edge.spec import INT8_MAX

BINS = 4096
_LEAST_BINS = 128  # a bound below as many bins as there are integers would only clip
_TRIED = 200  # bounds that "mse" and "entropy" compare

Counts = NDArray[np.float64]


def bound_of(counts: Counts, top: float, options: Quantization) -> float:
    """Return the bound by ``options.observer`` for a histogram whose last bin ends at ``top``."""
    if options.observer == "max" or top <= 0 or not counts.any():
        return top
    if options.observer == "percentile":
        return top * _percentile(counts, options.percentile) / BINS
    loss = _squared_error if options.observer == "mse" else _divergence
    tried = np.unique(np.linspace(_LEAST_BINS, BINS, _TRIED).round().astype(int))
    losses = [loss(counts, bins) for bins in tried]
    return top * int(tried[int(np.argmin(losses))]) / BINS


def _percentile(counts: Counts, percentile: float) -> int:
    """Return number of bins that hold ``percentile`` % of all values."""
    below = counts.cumsum() / counts.sum()
    return min(int(np.searchsorted(below, percentile / 100.0)) + 1, BINS)


def _squared_error(counts: Counts, bins: int) -> float:
    """Sum of squared errors with the bound after ``bins`` bins, every value taken for its bin's middle."""
    middle = np.arange(BINS) + 0.5
    step = bins / INT8_MAX
    rounded = np.clip(np.rint(middle / step), 0, INT8_MAX) * step
    return float((counts * np.square(middle - rounded)).sum())


def _divergence(counts: Counts, bins: int) -> float:
    """Return the KL divergence of the clipped histogram from its 128-level version (TensorRT's "entropy")."""
    clipped = counts[:bins].copy()
    clipped[-1] += counts[bins:].sum()
    level = np.minimum((np.arange(bins) * (INT8_MAX + 1)) // bins, INT8_MAX)
    used = counts[:bins] > 0  # mass is spread over the bins that had some
    mass = np.bincount(level, weights=counts[:bins], minlength=INT8_MAX + 1)
    spread = np.bincount(level[used], minlength=INT8_MAX + 1)
    coarse = np.where(used, mass[level] / np.maximum(spread[level], 1), 0.0)
    p, q = clipped / clipped.sum(), coarse / max(coarse.sum(), 1e-300)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())
