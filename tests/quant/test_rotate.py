"""Turning the residual stream keeps the function and spreads what is loud."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.rotate import can_rotate, rotated, rotation
from hrm_edge.recipe import Quantization
from hrm_edge.spec import variant_spec
from tests.artifacts import as_puzzles

SMALL = {"heads": 4, "h_layers": 1, "l_layers": 1}
BOARD = {"vocab": 11, "seq_len": 81, "grid": (9, 9, 3, 3)}


@pytest.mark.parametrize("hidden", [32, 48])  # a Hadamard matrix, and a size that has none
def test_a_turn_is_orthogonal_and_always_the_same(hidden):
    by = rotation(hidden)
    torch.testing.assert_close(by @ by.T, torch.eye(hidden), rtol=0, atol=1e-5)
    assert torch.equal(by, rotation(hidden))


@pytest.mark.parametrize(("variant", "hidden", "puzzle_dim"), [("nano", 32, 0), ("full", 48, 96), ("trm", 32, 32)])
def test_the_function_stays_and_states_are_turned(variant, hidden, puzzle_dim):
    torch.manual_seed(0)
    one_stack = {"h_layers": 0, "h_cycles": 2, "l_cycles": 2} if variant == "trm" else {}
    options = {**BOARD, **SMALL, **one_stack, "hidden": hidden, "puzzle_dim": puzzle_dim, "puzzles": 3}
    model = HRM(variant_spec(variant, **options)).eval()
    with torch.no_grad():
        model.q_head.weight.normal_()
        if puzzle_dim:
            model.puzzle_emb.weights.normal_()
    by = rotation(hidden)
    other = rotated(model, by)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(1, 11, (4, 81)).astype(np.int32))
    ids = torch.tensor([0, 1, 2, 0])
    with torch.inference_mode():
        before, after = (m(tokens, m.puzzle_vectors(ids), *m.initial_state(4, torch.float32)) for m in (model, other))
    for state, state_turned in zip(before[:2], after[:2], strict=True):
        torch.testing.assert_close(state @ by, state_turned, rtol=1e-3, atol=1e-3)
    for head, same in zip(before[2:], after[2:], strict=True):
        torch.testing.assert_close(head, same, rtol=1e-3, atol=1e-3)


def test_a_loud_channel_costs_less_range():
    torch.manual_seed(0)
    model = HRM(variant_spec("nano", **BOARD, hidden=32, **SMALL)).eval()
    with torch.no_grad():
        model.get_parameter("L_level.layers.0.mlp.down_proj.weight")[5] *= 50
    puzzles = as_puzzles(np.random.default_rng(0).integers(1, 11, (16, 81)).astype(np.uint8))
    layer = "L_level.layers.0.self_attn.qkv_proj"  # its input adds to what that layer wrote in the step before
    scales = [
        activation_scales(m, puzzles, Quantization(observer="max"), 2)[layer]
        for m in (model, rotated(model, rotation(32)))
    ]
    assert scales[1] < 0.8 * scales[0]


def test_models_that_cannot_be_turned():
    assert can_rotate(variant_spec("full", **BOARD))
    assert not can_rotate(variant_spec("reduced", **BOARD))  # LayerNorm takes the mean over channels
    assert not can_rotate(variant_spec("full", **BOARD, puzzle_dim=96))  # three quarters of a vector
    assert can_rotate(variant_spec("trm", **BOARD))
    assert not can_rotate(variant_spec("trm-mixer", **BOARD))  # its MLP over positions bends every channel by itself
