"""Carry, halting and the reach of the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hrm_edge.model.act import _halt_decision, act_step, admit, draw_minimum_steps, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.losses import IGNORE, step_loss
from hrm_edge.spec import variant_spec

SMALL = {"hidden": 16, "heads": 4, "h_layers": 1, "l_layers": 1, "max_steps": 4}


def make(variant: str = "nano", **options: object) -> HRM:
    torch.manual_seed(0)
    return HRM(variant_spec(variant, vocab=6, seq_len=16, grid=(4, 4, 2, 2), **{**SMALL, **options}))


def rows(count: int, value: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    cells = torch.full((count, 16), value, dtype=torch.int32)
    return cells, cells + 1, torch.zeros(count, dtype=torch.int32)


def test_only_halted_slots_take_new_puzzles_and_start_over() -> None:
    model = make()
    carry = admit(model, fresh_carry(model, 3, torch.float32), *rows(3, 1))
    carry = act_step(model, carry, loss="softmax").carry
    carry.halted = torch.tensor([False, True, False])
    after = admit(model, carry, *rows(3, 2))
    assert after.inputs[:, 0].tolist() == [1, 2, 1]
    assert after.steps.tolist() == [1, 0, 1]
    torch.testing.assert_close(after.z_h[0], carry.z_h[0], rtol=0, atol=0)
    torch.testing.assert_close(after.z_h[1], model.H_init.expand_as(after.z_h[1]), rtol=0, atol=0)


def test_every_slot_halts_at_the_last_step_and_none_before_its_minimum() -> None:
    eager = torch.full((512, 1), 9.0)
    steps = torch.full((512,), 1, dtype=torch.int32)
    minimum = draw_minimum_steps(512, 4, 1.0, torch.Generator().manual_seed(0))
    assert _halt_decision(eager, steps, 4).all()
    assert not _halt_decision(eager, steps, 4, minimum).any()  # every minimum is at least 2
    some = _halt_decision(eager, steps + 1, 4, minimum)  # minimum uniform in {2, 3, 4}: a third may stop
    assert 0.2 < some.float().mean() < 0.5
    assert _halt_decision(-eager, steps + 3, 4, minimum).all()
    assert not _halt_decision(-eager, steps, 4).any()
    assert draw_minimum_steps(512, 4, 0.0) is None


def test_two_outputs_compare_halt_with_continue() -> None:
    q = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert _halt_decision(q, torch.ones(2, dtype=torch.int32), 4).tolist() == [False, True]


@pytest.mark.parametrize("variant", ["full", "reduced", "nano"])
def test_carry_is_detached_and_every_parameter_learns(variant: str) -> None:
    model = make(variant, **({"puzzle_dim": 16} if variant == "full" else {}))
    with torch.no_grad():
        model.q_head.weight.normal_()
    carry = admit(model, fresh_carry(model, 4, torch.float32), *rows(4))
    done = act_step(model, carry, loss="stablemax", minimum_steps=torch.tensor([0, 2, 3, 4]))
    done.loss.total.backward()
    assert not done.carry.z_h.requires_grad
    assert not done.carry.z_l.requires_grad
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_reaches_as_far_as_asked() -> None:
    """The outputs do not depend on the reach, the gradient does; no reach means no gradient for the L level."""

    def gradients(reach: int) -> tuple[Tensor, Tensor | None]:
        model = make(l_cycles=3)
        model.grad_l_updates = reach
        carry = admit(model, fresh_carry(model, 4, torch.float32), *rows(4))
        done = act_step(model, carry, loss="softmax")
        done.loss.total.backward()
        return done.logits.detach(), model.get_parameter("L_level.layers.0.mlp.down_proj.weight").grad

    (out_0, none), (out_1, short), (out_3, long) = (gradients(reach) for reach in (0, 1, 3))
    torch.testing.assert_close(out_0, out_1)
    torch.testing.assert_close(out_1, out_3)
    assert none is None
    assert short is not None
    assert long is not None
    assert not torch.allclose(short, long)


def test_padding_rows_count_in_no_loss_and_no_metric() -> None:
    torch.manual_seed(0)
    logits, q = torch.randn(4, 16, 6), torch.randn(4, 2)
    labels = torch.randint(2, 6, (4, 16))
    target = torch.rand(4)
    padded = labels.clone()
    padded[2:] = IGNORE
    for kind in ("softmax", "stablemax"):
        part = step_loss(logits[:2], q[:2], labels[:2], kind=kind, q_continue_target=target[:2])
        whole = step_loss(logits, q, padded, kind=kind, q_continue_target=target)
        for a, b in zip(part[:4], whole[:4], strict=True):
            torch.testing.assert_close(a, b)
        assert whole.right[2:].tolist() == [False, False]


def test_each_token_weighs_by_its_rows_valid_labels() -> None:
    logits, q = torch.zeros(1, 16, 6), torch.zeros(1, 1)
    labels = torch.full((1, 16), IGNORE)
    labels[0, 3] = 2
    one = step_loss(logits, q, labels, kind="softmax").lm
    labels[0, :] = 2
    torch.testing.assert_close(one, step_loss(logits, q, labels, kind="softmax").lm)
