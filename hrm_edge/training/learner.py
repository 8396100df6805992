"""State of training: model, optimizer, average, carry and random generators, and one optimizer step.

Axes: B slots of all ranks (the recipe's batch), of which a rank has its share, S cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hrm_edge.checkpoint import EMA_FILE, MODEL_FILE
from hrm_edge.model.act import ActStep, act_step, admit, draw_minimum_steps, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.torch_compile import compile_step
from hrm_edge.model.weights import load_weights
from hrm_edge.recipe import Recipe
from hrm_edge.spec import ModelSpec
from hrm_edge.training.checkpoint import CARRY_FILE, OPTIMIZER_FILE, Restored, flatten_optimizers, restore_optimizers
from hrm_edge.training.distributed import World
from hrm_edge.training.feed import Feed
from hrm_edge.training.optim import Ema, lr_factor, make_optimizers, sparse_sign_sgd_
from hrm_edge.training.precision import DTYPES


class Learner:
    """One rank's state of a run; :meth:`train_step` moves it one optimizer step on, together with the other ranks.

    Weights, optimizer, average and random state are the same on every rank; the slots of the carry are shared out.
    """

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, feed: Feed, world: World, prepare: Callable[[HRM], None]
    ) -> None:
        """Build the fresh model, which ``prepare`` changes before anything is derived from it."""
        self.recipe, self.feed, self.world = recipe, feed, world
        self.device = world.device
        self.slots = world.share(recipe.train.batch)
        torch.manual_seed(recipe.seed)
        self.model = HRM(spec).to(self.device)
        prepare(self.model)
        self.model.grad_l_updates = min(1, spec.l_cycles) if recipe.train.gradient == "one_step" else spec.l_cycles
        self.model.grad_cycles = spec.h_cycles if recipe.train.gradient == "all_cycles" else 1
        self.dtype = DTYPES[recipe.train.precision]
        self.params = dict(self.model.named_parameters())
        self.optimizers = make_optimizers(recipe.train, self.params)
        self.ema = Ema(self.params, recipe.train.ema) if recipe.train.ema else None
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.carry = fresh_carry(self.model, self.slots.stop - self.slots.start, self.dtype)
        self.step = self.samples = 0
        self.why_not_compiled = ""
        if recipe.train.compile:
            self.why_not_compiled = compile_step(self.model, self.slots.stop - self.slots.start, self.dtype)

    def connect(self) -> None:
        """Join the gradients of the ranks; to be called by all of them, and once before the first step."""
        self.parallel = self.world.parallel(self.model)
        if self.world.size > 1:
            # DDP lays its buckets out anew after the first backward pass, and sums round by that layout. Get past it
            # with a step that counts for nothing, so that a resumed run rounds as an uninterrupted one does.
            step = act_step(self.model, self.carry, loss=self.recipe.train.loss, forward=self.parallel)
            step.loss.total.backward()
            self.model.zero_grad()

    # -- one optimizer step -----------------------------------------------------------------------------------

    def train_step(self) -> ActStep:
        """Refill halted slots, one ACT step with gradient, one optimizer step."""
        options = self.recipe.train
        self._refill()
        factor = lr_factor(self.step, options)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = options.lr * factor
        step = act_step(
            self.model,
            self.carry,
            loss=options.loss,
            minimum_steps=self._minimum_steps(),
            forward=self.parallel,
        )
        # The ranks' gradients are averaged, and each has the sum over its slots: W / B gives the mean over all slots.
        (step.loss.total * (self.world.size / options.batch)).backward()
        if options.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.params.values(), options.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad()
        if step.puzzle is not None and step.puzzle.grad is not None:
            sparse_sign_sgd_(
                self.model.puzzle_emb.weights,
                self.world.gather(self.carry.puzzle_ids),
                self.world.gather(step.puzzle.grad[:, : self.model.spec.puzzle_dim]),
                lr=options.puzzle_lr * factor,
                weight_decay=options.puzzle_weight_decay,
            )
        if self.ema is not None:
            self.ema.update(self.params)
        self.carry = step.carry
        self.step += 1
        self.samples += options.batch
        return step

    def _minimum_steps(self) -> torch.Tensor | None:
        """Draw for all slots, so that a slot's draw does not depend on the number of ranks."""
        options = self.recipe.train
        minimum = draw_minimum_steps(options.batch, self.model.spec.max_steps, options.halt_exploration, self.generator)
        return None if minimum is None else minimum[self.slots]

    def _refill(self) -> None:
        halted = self.carry.halted.nonzero().squeeze(1)
        counts = self.world.exchange(len(halted))
        before = sum(counts[: self.world.rank])
        share = slice(before, before + len(halted))
        drawn = self.feed.take(sum(counts), self.step / self.recipe.train.steps, share)
        rows = []
        for old, new in zip((self.carry.inputs, self.carry.labels, self.carry.puzzle_ids), drawn, strict=True):
            full = old.clone()
            full[halted] = new.to(self.device)
            rows.append(full)
        self.carry = admit(self.model, self.carry, rows[0], rows[1], rows[2])

    # -- its whole state --------------------------------------------------------------------------------------

    def weights(self) -> dict[str, torch.Tensor]:
        """Return weights and buffers to evaluate with: the averaged ones where the recipe averages."""
        return {**self.model.state_dict(), **(self.ema.average if self.ema is not None else {})}

    def is_finite(self) -> bool:
        """Return whether every weight is a number."""
        return all(bool(p.isfinite().all()) for p in self.model.state_dict().values())

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return a CPU copy of every tensor of the state, by file, complete on rank 0. Every rank has to call it."""
        parts = {
            MODEL_FILE: self.model.state_dict(),
            OPTIMIZER_FILE: flatten_optimizers(self.optimizers, self.params),
            **({EMA_FILE: self.ema.average} if self.ema is not None else {}),
        }
        carry = {name: self.world.collect(t) for name, t in self.carry.tensors().items()}
        if self.world.rank:
            return {}
        copied = {
            file: {name: t.detach().to("cpu", copy=True).contiguous() for name, t in part.items()}
            for file, part in parts.items()
        }
        return {**copied, CARRY_FILE: carry}

    def values(self) -> dict[str, Any]:
        """Return the rest of the state, JSON-ready: position in the data, random generators, counters."""
        return {
            "feed": self.feed.state(),
            "generator": self.generator.get_state().tolist(),
            "ema_updates": self.ema.updates if self.ema else 0,
            "ranks": self.world.size,
        }

    def restore(self, saved: Restored) -> None:
        """Go on from a checkpoint: bit for bit on as many ranks as it was saved on, unless it is a compact one."""
        load_weights(self.model, saved.tensors(MODEL_FILE), saved.folder)
        if self.ema is not None:
            self.ema.average = {n: t.to(self.device) for n, t in saved.tensors(EMA_FILE).items()}
            self.ema.updates = saved.loop["ema_updates"]
        restore_optimizers(self.optimizers, self.params, saved.tensors(OPTIMIZER_FILE))
        self.step, self.samples = saved.info.step, saved.info.samples
        if saved.is_compact:  # other puzzles than at the start of the run, whatever the data are now
            seed = self.recipe.seed + self.step
            self.feed, self.generator = self.feed.anew(seed), self.generator.manual_seed(seed)
            return
        self.carry = saved.carry(self.device, self.slots)
        self.feed.restore(saved.loop["feed"])
        self.generator.set_state(torch.tensor(saved.loop["generator"], dtype=torch.uint8))
