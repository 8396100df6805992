"""The lattice: its symmetries hold exactly, its shapes are the spec's, and its options are held to what it knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrm_edge.costs import flops_per_step, parameter_table
from hrm_edge.errors import UserError
from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.spec import buffer_shapes, parameter_shapes, variant_spec
from hrm_edge.tasks import get_task

BOARD = {"vocab": 11, "seq_len": 81, "grid": (9, 9, 3, 3)}
SIX = {"vocab": 8, "seq_len": 36, "grid": (6, 6, 2, 3)}


def model_of(**options: object) -> HRM:
    torch.manual_seed(0)
    model = HRM(variant_spec("lattice", **options)).eval()
    with torch.no_grad():
        model.q_head.weight.normal_()  # zero in a fresh model: a wrong q would not show
    return model


@torch.no_grad()
def outputs(model: HRM, tokens: np.ndarray, steps: int = 2) -> tuple[np.ndarray, np.ndarray]:
    z_h, z_l = model.initial_state(len(tokens), torch.float32)
    for _ in range(steps):
        z_h, z_l, logits, q = model(torch.from_numpy(tokens.astype(np.int32)), None, z_h, z_l)
    return logits.numpy(), q.numpy()


def test_it_has_the_tensors_and_parameters_of_its_spec() -> None:
    spec = variant_spec("lattice", **BOARD)
    state = {name: tuple(tensor.shape) for name, tensor in HRM(spec).state_dict().items()}
    assert state == {**parameter_shapes(spec), **buffer_shapes(spec)}
    assert parameter_table(spec)["trainable"] == 94_881
    # per pass: 7,168 weights at each of 729 symbols of cells, 16,384 at each of 81 groups
    assert flops_per_step(spec) == 16 * 2 * (7168 * 729 + 16_384 * 81) + 2 * 32 * 730


@pytest.mark.parametrize(("board", "task"), [(BOARD, "sudoku"), (SIX, "sudoku-2x3")])
def test_the_answer_moves_with_the_board(board: dict[str, object], task: str) -> None:
    model, rules = model_of(**board, symbol_width=8), get_task(task)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, rules.vocab, (6, rules.seq_len)).astype(np.uint8)
    views = rules.random_views(6, rng)
    side = rules.grid[0]
    kept = np.array([cells[0] // side == cells[1] // side for cells in views.cells])  # not transposed
    assert kept.any()
    logits, q = outputs(model, tokens)
    seen, seen_q = outputs(model, views.apply(tokens))
    back = views.inverse()
    own = np.empty_like(seen)
    for row in range(len(tokens)):
        own[row][:, back.labels[row]] = seen[row][back.cells[row]]
    np.testing.assert_allclose(own[kept], logits[kept], atol=1e-4)
    np.testing.assert_allclose(seen_q[kept], q[kept], atol=1e-4)
    if not kept.all():  # rows and columns have weights of their own
        assert np.abs(own[~kept] - logits[~kept]).max() > 1e-3


def test_padding_and_blank_are_never_an_answer() -> None:
    logits, _ = outputs(model_of(**BOARD, symbol_width=8), np.ones((1, 81), np.uint8))
    assert (logits[..., :2] == 0).all()


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_a_loss_after_every_cycle_is_the_mean_of_the_cycles_losses(cycles: int) -> None:
    model = model_of(**BOARD, symbol_width=8)
    rng = np.random.default_rng(1)
    givens = torch.from_numpy(rng.integers(1, 11, (3, 81)).astype(np.int32))
    labels = torch.from_numpy(rng.integers(2, 11, (3, 81)).astype(np.int32))
    carry = admit(model, fresh_carry(model, 3, torch.float32), givens, labels, torch.zeros(3, dtype=torch.int32))
    model.grad_cycles = cycles
    step = act_step(model, carry, loss="softmax")
    assert step.logits.shape == (3, 81, 11)
    with torch.no_grad():
        x = model.embed(givens, None, torch.float32)
        z_h, z_l = model.initial_state(3, torch.float32)
        losses = []
        for _ in range(model.spec.h_cycles):
            z_h = model.update_h(z_h, x, None)
            logits, _ = model.heads(z_h, z_l)
            losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten().long()) * 3)
    torch.testing.assert_close(step.loss.lm, torch.stack(losses[-cycles:]).mean())
    step.loss.total.backward()
    gradient = model.get_parameter("L_level.layers.0.box_proj.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab": 12, "seq_len": 81, "grid": (9, 9, 3, 3)}, "as many symbols as its board has rows and columns"),
        ({"vocab": 11, "seq_len": 81, "grid": None}, "as many symbols as its board has rows and columns"),
        ({**BOARD, "hidden": 280}, "hidden=280 is not symbol_width=32 times 9 symbols"),
        ({**BOARD, "l_cycles": 2}, "known with l_cycles=0 only"),
        ({**BOARD, "puzzle_dim": 8}, "known with puzzle_dim=0 only"),
    ],
)
def test_what_it_does_not_know_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variant_spec("lattice", **options)


def test_its_fields_belong_to_it() -> None:
    with pytest.raises(ValueError, match="symbol_width is for mixing=groups only"):
        variant_spec("nano", **BOARD, symbol_width=14, hidden=126, heads=3, grid_heads=False)
    with pytest.raises(ValueError, match="l_cycles=0 is for mixing=groups only"):
        variant_spec("nano", **BOARD, l_cycles=0)
    with pytest.raises(UserError, match="unknown model variant 'latice'"):
        variant_spec("latice", **BOARD)
