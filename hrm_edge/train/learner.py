"""What learns: the model with its optimizer, average, carry and random state, and one optimizer step of it."""

from __future__ import annotations

from typing import Any

import torch

from hrm_edge.model.act import ActStep, act_step, admit, draw_minimum_steps, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.weights import EMA_FILE, MODEL_FILE, load_weights
from hrm_edge.recipe import Recipe
from hrm_edge.spec import ModelSpec
from hrm_edge.train.checkpoint import OPTIMIZER_FILE, Restored, flatten_optimizer, restore_optimizer
from hrm_edge.train.feed import Feed
from hrm_edge.train.optim import Ema, lr_factor, make_optimizer, sparse_sign_sgd_


class Learner:
    """State of one run on one process; :meth:`train_step` moves it one optimizer step on."""

    def __init__(self, recipe: Recipe, spec: ModelSpec, feed: Feed) -> None:
        self.recipe, self.feed = recipe, feed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.seed)
        self.model = HRM(spec).to(self.device)
        self.model.grad_l_updates = spec.l_cycles if recipe.train.gradient == "last_cycle" else 1
        self.dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
        self.params = dict(self.model.named_parameters())
        self.optimizer = make_optimizer(recipe.train, self.params.values())
        self.ema = Ema(self.params, recipe.train.ema) if recipe.train.ema else None
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.carry = fresh_carry(self.model, recipe.train.batch, self.dtype)
        self.step = self.samples = 0
        self.forward = torch.compile(self.model.forward, dynamic=False) if recipe.train.compile else self.model.forward

    # -- one optimizer step -----------------------------------------------------------------------------------

    def train_step(self) -> ActStep:
        """Refill halted slots, one ACT step with gradient, one optimizer step."""
        options = self.recipe.train
        self._refill()
        factor = lr_factor(self.step, options)
        for group in self.optimizer.param_groups:
            group["lr"] = options.lr * factor
        step = act_step(
            self.model,
            self.carry,
            loss=options.loss,
            minimum_steps=draw_minimum_steps(
                options.batch, self.model.spec.max_steps, options.halt_exploration, self.generator
            ),
            forward=self.forward,
        )
        (step.loss.total / options.batch).backward()
        if options.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.params.values(), options.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if step.puzzle is not None and step.puzzle.grad is not None:
            width = self.model.spec.puzzle_dim
            sparse_sign_sgd_(
                self.model.puzzle_emb.weights,
                self.carry.puzzle_ids,
                step.puzzle.grad[:, :width],
                lr=options.puzzle_lr * factor,
                weight_decay=options.puzzle_weight_decay,
            )
        if self.ema is not None:
            self.ema.update(self.params)
        self.carry = step.carry
        self.step += 1
        self.samples += options.batch
        return step

    def _refill(self) -> None:
        halted = self.carry.halted.nonzero().squeeze(1)
        drawn = self.feed.take(len(halted), self.step / self.recipe.train.steps)
        rows = []
        for old, new in zip((self.carry.inputs, self.carry.labels, self.carry.puzzle_ids), drawn, strict=True):
            full = old.clone()
            full[halted] = new.to(self.device)
            rows.append(full)
        self.carry = admit(self.model, self.carry, rows[0], rows[1], rows[2])

    # -- its whole state --------------------------------------------------------------------------------------

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and buffers to evaluate with: the averaged ones where the recipe averages."""
        return {**self.model.state_dict(), **(self.ema.average if self.ema is not None else {})}

    def is_finite(self) -> bool:
        """Is every weight a number?"""
        return all(bool(p.isfinite().all()) for p in self.model.state_dict().values())

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Optimizer state by ``<parameter>/<slot>``."""
        return flatten_optimizer(self.optimizer, list(self.params))

    def loop_state(self) -> dict[str, Any]:
        """What is not a tensor of a size: JSON-ready."""
        return {
            "feed": self.feed.state(),
            "generator": self.generator.get_state().tolist(),
            "ema_updates": self.ema.updates if self.ema else 0,
        }

    def restore(self, saved: Restored) -> None:
        """Go on from a checkpoint, bit for bit."""
        load_weights(self.model, saved.tensors(MODEL_FILE), saved.folder)
        if self.ema is not None:
            self.ema.average = {n: t.to(self.device) for n, t in saved.tensors(EMA_FILE).items()}
            self.ema.updates = saved.loop["ema_updates"]
        restore_optimizer(self.optimizer, list(self.params), saved.tensors(OPTIMIZER_FILE))
        self.carry = saved.carry(self.device)
        self.feed.restore(saved.loop["feed"])
        self.generator.set_state(torch.tensor(saved.loop["generator"], dtype=torch.uint8))
        self.step, self.samples = saved.info.step, saved.info.samples
