"""Optimizers against their formulas in float64, the schedule, the average."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Train
from hrm_edge.spec import variant_spec
from hrm_edge.training.optim import AdamATan2, Ema, Muon, _atan2_update_, lr_factor, make_optimizers, sparse_sign_sgd_
from tests.published import arrays_of, tensor

ROOT = Path(__file__).parents[2]


def test_adam_atan2_is_its_formula_in_float64() -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(6, 4))
    m, v = np.zeros_like(p), np.zeros_like(p)
    lr, (b1, b2), decay = 0.003, (0.9, 0.95), 0.1
    param = torch.nn.Parameter(torch.from_numpy(p.copy()))
    optimizer = AdamATan2([param], lr=lr, betas=(b1, b2), weight_decay=decay)
    for t in range(1, 8):
        g = rng.normal(size=p.shape)
        p = p * (1 - lr * decay)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = p - lr / (1 - b1**t) * np.arctan2(m, np.sqrt(v) / math.sqrt(1 - b2**t))
        param.grad = torch.from_numpy(g)
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), p, rtol=1e-12, atol=1e-14)


def published_run() -> Iterator[tuple[int, dict[str, Any], list[torch.Tensor], list[torch.Tensor], np.ndarray]]:
    """(t, hyperparameters, [parameter before], [gradient], parameter after) of the published optimizer, t from 1."""
    golden = arrays_of("optim_and_loss")
    hyper = json.loads(str(golden["adam_atan2/hyper_json"]))
    for t in range(1, 7):
        before, gradient = tensor(golden, f"adam_atan2/param{t - 1}"), tensor(golden, f"adam_atan2/grad{t - 1}")
        yield t, hyper, [before], [gradient], golden[f"adam_atan2/param{t}"]


def test_adam_atan2_follows_the_published_run() -> None:
    """The published one keeps its scalars in float32, which is visible at 1e-9."""
    param = None
    for _, hyper, before, gradient, after in published_run():
        if param is None:
            param = torch.nn.Parameter(before[0].clone())
            options = {"lr": hyper["lr"], "betas": tuple(hyper["betas"]), "weight_decay": hyper["weight_decay"]}
            optimizer = AdamATan2([param], **options)
        param.grad = gradient[0]
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), after, rtol=0, atol=5e-9)


def test_adam_atan2_is_the_published_one_in_float64_given_its_float32_scalars() -> None:
    """Its step count is a float32 tensor, so are the corrections made from it; the square root of the machine that
    made the golden file rounds down or up (one unit in the last place), everything else is equal."""
    m, v = [torch.zeros(6, 4, dtype=torch.float64)], [torch.zeros(6, 4, dtype=torch.float64)]
    for t, hyper, before, gradient, after in published_run():
        (b1, b2), lr, step = hyper["betas"], hyper["lr"], torch.tensor(float(t))
        root = (1 - torch.pow(b2, step)).sqrt()
        errors = []
        for rounded in (root, torch.nextafter(root, torch.tensor(1.0))):
            param, first, second = [before[0].clone()], [m[0].clone()], [v[0].clone()]
            _atan2_update_(
                param, gradient, first, second, betas=(b1, b2), shrink=1 - lr * hyper["weight_decay"],
                step_size=float(lr / (1 - torch.pow(b1, step))), root_correction=float(rounded),
            )  # fmt: skip
            errors.append(float(np.abs(param[0].numpy() - after).max()))
        assert min(errors) < 1e-12
        m, v = first, second


def test_adam_atan2_does_not_care_about_the_scale_of_gradients() -> None:
    def after(scale: float) -> torch.Tensor:
        param = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
        optimizer = AdamATan2([param], lr=0.1)
        for t in range(3):
            param.grad = scale * torch.linspace(-1, 1 + t, 5, dtype=torch.float64)
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(after(1.0), after(1e-6))


def test_sparse_sign_sgd_touches_only_the_rows_named_and_sums_repeats() -> None:
    weights = torch.arange(12.0).view(4, 3)
    before = weights.clone()
    grads = torch.tensor([[1.0, -3.0, 0.0], [-2.0, 1.0, 0.0]])
    sparse_sign_sgd_(weights, torch.tensor([2, 2]), grads, lr=0.5, weight_decay=0.1)
    torch.testing.assert_close(weights[[0, 1, 3]], before[[0, 1, 3]], rtol=0, atol=0)
    expected = before[2] * (1 - 0.05) - 0.5 * torch.tensor([-1.0, -1.0, 0.0])
    torch.testing.assert_close(weights[2], expected)


def test_schedule_warms_up_and_decays_to_its_floor() -> None:
    options = Train(steps=100, warmup=10, lr_min_ratio=0.1)
    factors = [lr_factor(step, options) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    constant = Train(steps=100, warmup=0, lr_min_ratio=1.0)
    assert {lr_factor(step, constant) for step in range(100)} == {1.0}


def test_average_starts_at_the_weights_and_follows_them() -> None:
    weights = {"w": torch.zeros(1)}
    average = Ema(weights, decay=0.9)
    weights["w"] = torch.ones(1)
    for _ in range(200):
        average.update(weights)
    assert average.average["w"].item() == pytest.approx(1.0, abs=1e-6)
    weights["w"] = torch.zeros(1)
    average.update(weights)
    assert average.average["w"].item() == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("adam_atan2", AdamATan2), ("adamw", torch.optim.AdamW)])
def test_recipe_names_the_optimizer(name: str, kind: type) -> None:
    options = Train.model_validate({"optimizer": name, "lr": 0.5})
    (optimizer,) = make_optimizers(options, {"w": torch.nn.Parameter(torch.ones(1))})
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_muon_takes_the_matrices_of_the_blocks_and_adam_the_rest() -> None:
    spec = variant_spec("reduced", vocab=6, seq_len=16, hidden=32, heads=4)
    params = dict(HRM(spec).named_parameters())
    optimizers = make_optimizers(Train.model_validate({"optimizer": "muon", "lr": 0.5}), params)
    taken = {type(o): {id(p) for group in o.param_groups for p in group["params"]} for o in optimizers}
    matrices = {"qkv_proj.weight", "o_proj.weight", "up_proj.weight", "down_proj.weight"}
    inner = {id(p) for name, p in params.items() if ".".join(name.split(".")[-2:]) in matrices}
    assert len(inner) == 4 * 7
    assert taken == {AdamATan2: {id(p) for p in params.values()} - inner, Muon: inner}
    assert {group["lr"] for o in optimizers for group in o.param_groups} == {0.5}


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 1e-3), (torch.float32, 2e-2)])
@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (8, 8)])
def test_muon_is_torchs_and_in_float32_too(dtype: torch.dtype, near: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    pair = [
        (ours, Muon([ours], 0.05, 0.1, dtype)),
        (theirs, torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
    ]
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        for param, optimizer in pair:
            param.grad = gradient.clone()
            optimizer.step()
    assert (start - ours).abs().max() > 0.05
    assert torch.allclose(ours, theirs, rtol=0, atol=near)


def test_our_optimizers_do_without_torchs_compiler() -> None:
    """Its import takes as long as torch's, at every start of a training."""
    code = """
import sys, torch
from hrm_edge.training.optim import AdamATan2, Muon
one = torch.nn.Parameter(torch.ones(2, 2))
optimizers = [AdamATan2([one]), Muon([one], 0.1, 0.0, torch.float32)]
one.sum().backward()
for optimizer in optimizers:
    optimizer.step()
for optimizer in optimizers:
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert optimizers[0].state[one]["step"] == 1
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
