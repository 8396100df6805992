"""Bounds by every observer on histograms whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.quant.observers import BINS, bound_of
from hrm_edge.recipe import Quantization
from hrm_edge.spec import INT8_MAX


def histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    top = float(np.abs(values).max())
    return np.histogram(np.abs(values), bins=BINS, range=(0, top))[0].astype(np.float64), top


def rounding_error(values: np.ndarray, bound: float) -> float:
    scale = bound / INT8_MAX
    return float(np.square(values - np.clip(np.rint(values / scale), -INT8_MAX, INT8_MAX) * scale).mean())


@pytest.fixture(scope="module")
def outlier() -> np.ndarray:
    return np.append(np.random.default_rng(0).normal(size=200_000), 40.0)


def test_max_keeps_the_outlier_and_the_others_cut_it(outlier):
    counts, top = histogram(outlier)
    bounds = {
        name: bound_of(counts, top, Quantization(observer=name)) for name in ("max", "percentile", "mse", "entropy")
    }
    assert bounds["max"] == top == 40.0
    assert bounds["percentile"] == pytest.approx(np.quantile(np.abs(outlier), 0.9999), abs=0.05)
    assert 3.0 < bounds["entropy"] < 6.0
    assert 15.0 < bounds["mse"] < 25.0  # one value at 40 costs as much as all others' coarser rounding: in between


def test_mse_is_the_least_error(outlier):
    """No other of many bounds rounds the real values better, but for the width of what is tried."""
    values = np.append(outlier[:50_000], 12.0)
    counts, top = histogram(values)
    best = bound_of(counts, top, Quantization(observer="mse"))
    error = rounding_error(values, best)
    assert error <= 1.02 * min(rounding_error(values, bound) for bound in np.linspace(1.0, 12.0, 200))


@pytest.mark.parametrize("observer", ["percentile", "mse", "entropy"])
def test_uniform_values_keep_their_range(observer):
    counts, top = histogram(np.random.default_rng(1).uniform(-2, 2, 100_000))
    assert bound_of(counts, top, Quantization(observer=observer)) > 0.97 * top


@pytest.mark.parametrize("observer", ["max", "percentile", "mse", "entropy"])
def test_a_layer_that_saw_only_zeros(observer):
    assert bound_of(np.zeros(BINS), 0.0, Quantization(observer=observer)) == 0.0
