"""The same mathematics as the published implementation: outputs, losses, halting, gradients, optimizers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.losses import _token_losses, step_loss
from hrm_edge.training.optim import sparse_sign_sgd_
from tests.published import PREFIX, Arrays, arrays_of, close, model_of, tensor


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return arrays_of("hrm_v1_rope")


@pytest.fixture(scope="module")
def pieces() -> Arrays:
    return arrays_of("optim_and_loss")


@pytest.fixture
def model(golden: Arrays) -> HRM:
    return model_of(golden)


def test_evaluation_outputs_and_losses(model: HRM, golden: Arrays) -> None:
    inputs, labels = tensor(golden, "eval_batch/inputs"), tensor(golden, "eval_batch/labels")
    puzzle = model.puzzle_vectors(tensor(golden, "eval_batch/puzzle_identifiers"))
    z_h, z_l = model.initial_state(len(inputs), torch.float32)
    for step in range(model.spec.max_steps):
        with torch.no_grad():
            z_h, z_l, logits, q = model(inputs, puzzle, z_h, z_l)
        for name, found in (("z_H", z_h), ("z_L", z_l), ("logits", logits), ("q_halt_logits", q[:, 0])):
            close(found, golden[f"eval/step{step}/{name}"])
        close(q[:, 1], golden[f"eval/step{step}/q_continue_logits"])
        loss = step_loss(logits, q, labels, kind="stablemax")
        np.testing.assert_allclose(float(loss.total), golden[f"eval/step{step}/loss"], rtol=4e-5)
        for part in ("lm", "q_halt"):
            np.testing.assert_allclose(
                float(getattr(loss, part)), golden[f"eval/step{step}/metrics/{part}_loss"], rtol=4e-5, err_msg=part
            )


def test_training_steps_halting_targets_and_gradients(model: HRM, golden: Arrays) -> None:
    names = ("inputs", "labels", "puzzle_identifiers")
    carry = fresh_carry(model, len(golden["train_batch0/inputs"]), torch.float32)
    compared = 0
    for step in range(4):
        batch = [tensor(golden, f"train_batch{step}/{name}") for name in names]
        carry = admit(model, carry, batch[0], batch[1], batch[2])
        done = act_step(model, carry, loss="stablemax")
        carry, at = done.carry, f"train/step{step}/"
        np.testing.assert_allclose(float(done.loss.total.detach()), golden[at + "loss"], rtol=4e-5)
        close(done.logits, golden[at + "logits"])
        close(done.q[:, 0], golden[at + "q_halt_logits"])
        close(done.q[:, 1], golden[at + "q_continue_logits"])
        for part in ("lm", "q_halt", "q_continue"):
            found = float(getattr(done.loss, part))
            np.testing.assert_allclose(found, golden[f"{at}metrics/{part}_loss"], rtol=4e-5, err_msg=part)
        assert done.q_continue_target is not None
        close(done.q_continue_target, golden[at + "target_q_continue"])
        np.testing.assert_array_equal(carry.steps.numpy(), golden[at + "steps"])
        np.testing.assert_array_equal(carry.halted.numpy(), golden[at + "halted"])
        model.zero_grad()
        done.loss.total.backward()
        for key in (k for k in golden if k.startswith(f"{at}grad/{PREFIX}")):
            name = key.removeprefix(f"{at}grad/{PREFIX}")
            leaf = done.puzzle if name.startswith("puzzle_emb") else model.get_parameter(name)
            assert leaf is not None
            assert leaf.grad is not None
            close(leaf.grad, golden[key], 1e-4)
            compared += 1
    assert compared > 30


def test_stablemax_in_float64(pieces: Arrays) -> None:
    losses = _token_losses(
        tensor(pieces, "stablemax/logits")[None], tensor(pieces, "stablemax/labels")[None], "stablemax"
    )
    np.testing.assert_allclose(losses[0].numpy(), pieces["stablemax/loss"], rtol=1e-12)


def test_sparse_sign_sgd_in_float64(pieces: Arrays) -> None:
    hyper = json.loads(str(pieces["sign_sgd/hyper_json"]))
    weights = tensor(pieces, "sign_sgd/w0")
    sparse_sign_sgd_(weights, tensor(pieces, "sign_sgd/ids"), tensor(pieces, "sign_sgd/grad"), **hyper)
    np.testing.assert_allclose(weights.numpy(), pieces["sign_sgd/w1"], rtol=1e-12)
