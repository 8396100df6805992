"""Smoothing keeps the function and takes the outliers away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import channel_peaks
from hrm_edge.quant.smooth import smoothed
from hrm_edge.spec import variant_spec
from tests.artifacts import as_puzzles

SMALL = {"hidden": 32, "heads": 2, "h_layers": 1, "l_layers": 1}


@pytest.mark.parametrize("variant", ["full", "reduced"])
def test_the_function_stays_and_the_outliers_shrink(variant):
    torch.manual_seed(0)
    model = HRM(
        variant_spec(variant, vocab=11, seq_len=81, **SMALL, **({"puzzle_dim": 0} if variant == "full" else {}))
    )
    with torch.no_grad():  # one loud channel of V, and one of up where that is linear
        model.get_parameter("L_level.layers.0.self_attn.qkv_proj.weight")[2 * 32 + 5] *= 50
        if variant == "full":
            model.get_parameter("L_level.layers.0.mlp.gate_up_proj.weight")[256 + 7] *= 50
    puzzles = as_puzzles(np.random.default_rng(0).integers(1, 11, (8, 81)).astype(np.uint8))
    other = smoothed(model, puzzles, 0.5, 2)
    inputs = torch.from_numpy(puzzles.givens.astype(np.int32))
    with torch.no_grad():
        before, after = (m(inputs, None, *m.initial_state(8, torch.float32))[2] for m in (model, other))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    loud = ["L_level.layers.0.self_attn.o_proj"] + ["L_level.layers.0.mlp.down_proj"] * (variant == "full")
    peaks, smooth_peaks = channel_peaks(model, puzzles, 1), channel_peaks(other, puzzles, 1)
    for name in loud:
        spread, now = (float(p[name].max() / p[name].median()) for p in (peaks, smooth_peaks))
        assert now < 0.5 * spread
    kept = "L_level.layers.0.self_attn.qkv_proj"  # the residual shares its input: it may not be scaled
    torch.testing.assert_close(peaks[kept], smooth_peaks[kept], rtol=1e-3, atol=1e-3)
