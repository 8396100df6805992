"""TRM: the published implementation's numbers, parameter counts and cost, and what a spec of it may not be."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hrm_edge.costs import flops_per_step, parameter_table
from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.losses import step_loss
from hrm_edge.spec import buffer_shapes, parameter_shapes, step_io, variant_spec
from tests.published import PREFIX, Arrays, arrays_of, close, model_of, tensor

SMALL = {"hidden": 32, "heads": 4, "l_layers": 2, "puzzle_dim": 32}


@pytest.fixture(params=["trm_attention", "trm_mixer"])
def golden(request: pytest.FixtureRequest) -> Arrays:
    return arrays_of(request.param)


@pytest.fixture
def model(golden: Arrays) -> HRM:
    return model_of(golden)


def test_three_evaluation_steps(model: HRM, golden: Arrays) -> None:
    """Each from the published state: run freely, random weights enlarge the last bit fivefold in every step."""
    inputs, labels = tensor(golden, "eval_batch/inputs"), tensor(golden, "eval_batch/labels")
    puzzle = model.puzzle_vectors(tensor(golden, "eval_batch/puzzle_identifiers"))
    z_h, z_l = model.initial_state(len(inputs), torch.float32)
    for step in range(3):
        at = f"eval/step{step}/"
        with torch.no_grad():
            z_h, z_l, logits, q = model(inputs, puzzle, z_h, z_l)
        assert q.shape == (len(inputs), 1), "the second output is not read by anyone"
        for name, found in (("z_H", z_h), ("z_L", z_l), ("logits", logits), ("q_halt_logits", q[:, 0])):
            close(found, golden[f"{at}{name}"])
        loss = step_loss(logits, q, labels, kind="stablemax")
        np.testing.assert_allclose(float(loss.total), golden[f"{at}loss"], rtol=4e-5)
        z_h, z_l = tensor(golden, f"{at}z_H"), tensor(golden, f"{at}z_L")


def test_a_training_step_with_gradient_through_the_whole_last_cycle(model: HRM, golden: Arrays) -> None:
    carry = fresh_carry(model, len(golden["eval_batch/inputs"]), torch.float32)
    batch = [tensor(golden, f"eval_batch/{name}") for name in ("inputs", "labels", "puzzle_identifiers")]
    carry = admit(model, carry, batch[0], batch[1], batch[2])
    done = act_step(model, carry, loss="stablemax")
    np.testing.assert_allclose(float(done.loss.total.detach()), golden["train/loss"], rtol=4e-5)
    assert done.q_continue_target is None
    # the published rule: halt where the first output is above zero
    halts = golden["eval/step0/q_halt_logits"] > 0
    np.testing.assert_array_equal(done.carry.halted.numpy(), halts)
    (done.loss.total / len(carry.steps)).backward()  # the published gradient is of the loss per row of the batch
    names = [key.removeprefix(f"train/grad/{PREFIX}") for key in golden if key.startswith("train/grad/")]
    assert set(names) == set(parameter_shapes(model.spec))
    for name in names:
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        close(gradient, golden[f"train/grad/{PREFIX}{name}"], 1e-4)


@pytest.mark.parametrize(
    ("variant", "vocab", "seq_len", "parameters"),
    [
        ("trm-mixer", 11, 81, 5_028_866),
        ("trm", 11, 81, 6_828_034),
        ("trm", 6, 900, 6_822_914),
        ("trm", 12, 900, 6_829_058),
    ],
)
def test_published_parameters(variant: str, vocab: int, seq_len: int, parameters: int) -> None:
    spec = variant_spec(variant, vocab=vocab, seq_len=seq_len)
    table = parameter_table(spec)
    assert (table["trainable"], table["tensors"]) == (parameters, 12)
    with torch.device("meta"):
        model = HRM(spec)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == parameter_shapes(spec)
    everything = {**parameter_shapes(spec), **buffer_shapes(spec)}
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == everything
    assert not [name for name in everything if name.startswith("H_level")]


@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_the_puzzle_vector_has_sixteen_positions_whatever_its_size(variant: str) -> None:
    for puzzle_dim in (1, 48, 32, 512):
        spec = variant_spec(variant, vocab=6, seq_len=16, **{**SMALL, "puzzle_dim": puzzle_dim})
        assert (spec.puzzle_tokens, spec.total_len) == (16, 32)
        assert step_io(spec)["puzzle"] == ("carry", ("B", 16 * 32))
    rounded_up = variant_spec(variant, vocab=6, seq_len=16, **{**SMALL, "puzzle_dim": 48, "puzzle_len": 0})
    assert rounded_up.puzzle_tokens == 2
    assert variant_spec(variant, vocab=6, seq_len=16, hidden=32, heads=4, puzzle_dim=0, puzzle_len=0).total_len == 16


@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_a_fresh_model_starts_as_published(variant: str) -> None:
    torch.manual_seed(0)
    model = HRM(variant_spec(variant, vocab=11, seq_len=81))
    for state in (model.H_init, model.L_init):
        assert 0.9 < float(state.std()) < 1.1
        assert float(state.abs().max()) < 2.3, "cut at two sigma"
    assert not torch.equal(model.H_init, model.L_init)
    assert model.q_head.bias is not None
    assert model.q_head.weight.shape == (2, 512)
    assert float(model.q_head.bias.detach().max()) == -5.0
    assert dict(model.named_buffers()).keys() >= {"H_init", "L_init", "puzzle_emb.weights"}


@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_flops_are_those_that_torch_counts(variant: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    spec = variant_spec(variant, vocab=11, seq_len=81, **{**SMALL, "puzzle_dim": 32})
    model = HRM(spec)
    inputs = torch.zeros(1, 81, dtype=torch.int32), model.puzzle_vectors(torch.zeros(1, dtype=torch.int32))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(*inputs, *model.initial_state(1, torch.float32))
    # lm_head runs on the cells alone, and so it is counted
    assert flops_per_step(spec) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("variant", "wrong", "text"),
    [
        ("trm", {"puzzle_dim": 0}, "puzzle_len=16 positions"),
        ("trm", {"puzzle_dim": 32 * 16 + 1}, "hold a puzzle vector of 1 to 512"),
        ("trm-mixer", {"positions": "rope"}, "mixing=mlp has no attention"),
        ("trm-mixer", {"norm": "layer"}, "norm=rms"),
        ("trm", {"l_layers": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(variant: str, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        variant_spec(variant, vocab=6, seq_len=16, **{**SMALL, **wrong})


def test_one_stack_serves_both_levels() -> None:
    model = HRM(variant_spec("trm", vocab=6, seq_len=16, **SMALL))
    assert len(model.levels()) == 1
    kinds = Counter(name.split(".")[0] for name in model.state_dict())
    assert kinds["L_level"] == 8


def test_random_weights_that_mix_positions_enlarge_any_difference() -> None:
    """A start that is off by a millionth ends elsewhere: no arithmetic agrees with another over free steps of such a
    model, and INT8, which rounds to a hundredth, keeps no 20 dB. It says nothing of trained ones, which come to rest
    (``tests/test_quickstart.py``)."""
    torch.manual_seed(0)
    model = HRM(variant_spec("trm-mixer", vocab=6, seq_len=16, hidden=64, heads=4, puzzle_dim=64, puzzle_len=1))
    tokens, puzzle = torch.randint(1, 6, (4, 16), dtype=torch.int32), model.puzzle_vectors(torch.zeros(4).int())
    ours = model.initial_state(4, torch.float32)
    theirs = tuple(state * (1 + 1e-6 * torch.randn_like(state)) for state in ours)
    apart = []
    for _ in range(4):
        with torch.no_grad():
            *ours, logits, _ = model(tokens, puzzle, *ours)
            *theirs, others, _ = model(tokens, puzzle, *theirs)
        apart.append(float((logits - others).norm() / logits.norm()))
    assert apart[-1] > 0.1, apart
