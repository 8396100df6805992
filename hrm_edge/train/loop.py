"""Training as a function: a recipe and a folder go in, checkpoints and a log come out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hrm_edge import __version__
from hrm_edge.data.dataset import Dataset
from hrm_edge.errors import GateError, UserError
from hrm_edge.files import write_text
from hrm_edge.model.act import ActStep, act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.session import TorchSession
from hrm_edge.model.weights import EMA_FILE, MODEL_FILE, CheckpointInfo, checkpoints, load_weights
from hrm_edge.recipe import Recipe
from hrm_edge.solve import solve
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import PAD_TOKEN, exact
from hrm_edge.train.checkpoint import (
    OPTIMIZER_FILE,
    RECIPE_FILE,
    Restored,
    best_metrics,
    flatten_optimizer,
    mark_best,
    prune,
    restore_optimizer,
    save_checkpoint,
)
from hrm_edge.train.feed import Feed
from hrm_edge.train.optim import Ema, lr_factor, make_optimizer, sparse_sign_sgd_

LOG_FILE = "metrics.jsonl"
LOG_EVERY = 20  # optimizer steps between log lines

Report = Callable[[dict[str, Any]], None]
"""Takes each log line: kind ``train`` or ``eval``, and its figures."""


def _ignore(line: dict[str, Any]) -> None:
    """The default report: nothing beyond the log file."""


@dataclass
class Outcome:
    """How a run ended."""

    run: Path
    step: int
    samples: int
    exact_accuracy: float | None
    finished: bool
    seconds: float


@dataclass
class _Window:
    """Sums since the last log line, kept as tensors so that a GPU need not be waited for every step."""

    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    sums: torch.Tensor | None = None

    def add(self, batch: int, step: ActStep) -> None:
        loss, carry = step.loss, step.carry
        halted = carry.halted
        sums = torch.stack(
            [
                loss.total.detach().double(),
                loss.lm.double(),
                loss.q_halt.double(),
                loss.cell_accuracy.double(),
                loss.right.sum().double(),
                halted.sum().double(),
                carry.steps[halted].sum().double(),
                loss.right[halted].sum().double(),
            ]
        )
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += batch

    def line(self) -> dict[str, float]:
        assert self.sums is not None
        total, lm, q_halt, cells, right, halted, steps, right_halted = self.sums.tolist()
        return {
            "loss": total / self.rows,
            "lm_loss": lm / self.rows,
            "q_halt_loss": q_halt / self.rows,
            "cell_accuracy": cells / self.rows,
            "right_now": right / self.rows,
            "halted_right": right_halted / max(1.0, halted),
            "mean_steps": steps / max(1.0, halted),
            "samples_per_s": self.rows / (time.monotonic() - self.started),
        }


class Trainer:
    """State of one run on one process; :meth:`run` drives it."""

    def __init__(self, recipe: Recipe, run: Path, *, resume: bool, report: Report = _ignore) -> None:
        self.recipe, self.run_folder, self.report = recipe, run, report
        self.task = get_task(recipe.task)
        if not recipe.data:
            raise UserError("recipe key 'data' is empty", "name a built data folder: --set data=DIR")
        self.data = Dataset(recipe.data, "train", self.task)
        self.test = Dataset(recipe.data, "test", self.task)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.seed)
        self.model = HRM(self._spec()).to(self.device)
        self.model.grad_l_updates = self.model.spec.l_cycles if recipe.train.gradient == "last_cycle" else 1
        self.dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
        self.params = dict(self.model.named_parameters())
        self.optimizer = make_optimizer(recipe.train, self.params.values())
        self.ema = Ema(self.params, recipe.train.ema) if recipe.train.ema else None
        self.feed = Feed(self.data, self.task, recipe.augment, recipe.seed)
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.carry = fresh_carry(self.model, recipe.train.batch, self.dtype)
        self.step = self.samples = 0
        self.seconds = 0.0  # of training, over all sessions of the run
        self.accuracy: float | None = None
        if resume:
            self._restore(Restored(run))
        self.forward = torch.compile(self.model.forward, dynamic=False) if recipe.train.compile else self.model.forward

    def _spec(self) -> ModelSpec:
        meta = self.data.metadata
        grid = getattr(self.task, "grid", None)
        return self.recipe.spec(
            vocab=meta.vocab_size, seq_len=meta.seq_len, grid=grid, puzzles=meta.num_puzzle_identifiers
        )

    def _restore(self, from_: Restored) -> None:
        saved = from_.loop
        if from_.info.recipe_hash != self.recipe.hash():
            raise UserError(
                f"--resume: the recipe differs from the one of {from_.folder}: {self._changed(saved['recipe'])}",
                "resume with the same recipe and --set options, or start anew in another --out",
            )
        load_weights(self.model, from_.tensors(MODEL_FILE), from_.folder)
        if self.ema is not None:
            self.ema.average = {n: t.to(self.device) for n, t in from_.tensors(EMA_FILE).items()}
            self.ema.updates = saved["ema_updates"]
        restore_optimizer(self.optimizer, list(self.params), from_.tensors(OPTIMIZER_FILE))
        self.carry = from_.carry(self.device)
        self.feed.restore(saved["feed"])
        self.generator.set_state(torch.tensor(saved["generator"], dtype=torch.uint8))
        self.step, self.samples, self.seconds = from_.info.step, from_.info.samples, saved["seconds"]

    def _changed(self, before: dict[str, Any]) -> str:
        now = _flat(self.recipe.model_dump(mode="json"))
        was = _flat(before)
        keys = [k for k in sorted({*now, *was}) if now.get(k) != was.get(k)]
        return ", ".join(f"{k} (was {was.get(k)!r}, is {now.get(k)!r})" for k in keys)

    # -- one optimizer step -----------------------------------------------------------------------------------

    def train_step(self) -> ActStep:
        """Refill halted slots, one ACT step with gradient, one optimizer step."""
        options = self.recipe.train
        self._refill()
        for group in self.optimizer.param_groups:
            group["lr"] = options.lr * lr_factor(self.step, options)
        step = act_step(
            self.model,
            self.carry,
            loss=options.loss,
            exploration=options.halt_exploration,
            generator=self.generator,
            forward=self.forward,
        )
        (step.loss.total / options.batch).backward()
        if options.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.params.values(), options.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if step.puzzle is not None and step.puzzle.grad is not None:
            factor = lr_factor(self.step, options)
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

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self, *, time_limit: float | None = None, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Train to the recipe's last step, to ``time_limit`` seconds, or until ``stop()``; always ends saved."""
        started, before = time.monotonic(), self.seconds
        window = _Window()
        recipe = self.recipe
        finished = self.step >= recipe.train.steps
        while not finished:
            step = self.train_step()
            window.add(recipe.train.batch, step)
            self.seconds = before + time.monotonic() - started
            finished = self.step >= recipe.train.steps
            if self.step % LOG_EVERY == 0 or finished:
                self._log_window(window)
                window = _Window()
            if self.step % recipe.evaluate.every == 0 or finished:
                finished |= self._evaluate()
                window = _Window()
            elif self.step % recipe.checkpoints.every == 0:
                self._save({})
            if not finished and (stop() or (time_limit is not None and time.monotonic() - started >= time_limit)):
                self._save({})
                break
        return Outcome(self.run_folder, self.step, self.samples, self.accuracy, finished, self.seconds)

    def _log_window(self, window: _Window) -> None:
        line = window.line()
        if not math.isfinite(line["loss"]):
            raise self._diverged(f"the loss is {line['loss']}")
        lr = self.optimizer.param_groups[0]["lr"]
        self._log({"kind": "train", "step": self.step, "samples": self.samples, "lr": lr, **line})

    def _diverged(self, what: str) -> GateError:
        return GateError(
            f"{what} at step {self.step}",
            f"the last good checkpoint is kept in {self.run_folder}; lower train.lr or set train.precision=fp32",
        )

    def _evaluate(self) -> bool:
        """Exact accuracy on some of the test part; saves, marks the best; True: good enough to stop."""
        options = self.recipe.evaluate
        spec = self.model.spec
        model = HRM(spec).to(self.device)
        tensors = dict(self.model.state_dict())
        if self.ema is not None:
            tensors.update(self.ema.average)
        load_weights(model, tensors, "the run's weights")
        rows = self.test.spread(options.puzzles)
        inputs, labels = self.test.examples(rows)
        begun = time.monotonic()
        answers = solve(
            TorchSession(model, dtype=self.dtype),
            self.task,
            inputs,
            puzzle_ids=self.test.identifiers(rows),
            halt=options.halt,
            max_steps=options.max_steps or spec.max_steps,
            slots=256,
        )
        right = float(exact(answers.answers, labels).mean())
        known = labels != PAD_TOKEN
        cells = float(((answers.answers == labels) & known).sum() / max(1, known.sum()))
        self.accuracy = right
        metrics = {"exact_accuracy": right, "cell_accuracy": cells, "puzzles": float(len(rows))}
        self._log({"kind": "eval", "step": self.step, "samples": self.samples, "seconds": self.seconds,
                   "eval_seconds": time.monotonic() - begun, **metrics})  # fmt: skip
        folder = self._save(metrics)
        best = best_metrics(self.run_folder)
        if (right, cells) >= (best.get("exact_accuracy", -1.0), best.get("cell_accuracy", -1.0)):
            mark_best(self.run_folder, folder, metrics)
            prune(self.run_folder, self.recipe.checkpoints.keep)
        return right >= options.stop_at

    def _save(self, metrics: dict[str, float]) -> Path:
        if not all(bool(p.isfinite().all()) for p in self.params.values()):
            raise self._diverged("a weight is not finite")
        info = CheckpointInfo(
            task=self.recipe.task,
            spec=self.model.spec,
            recipe_hash=self.recipe.hash(),
            step=self.step,
            samples=self.samples,
            metrics=metrics,
        )
        loop = {
            "recipe": self.recipe.model_dump(mode="json"),
            "feed": self.feed.state(),
            "generator": self.generator.get_state().tolist(),
            "ema_updates": self.ema.updates if self.ema else 0,
            "seconds": self.seconds,
            "versions": {"hrm_edge": __version__, "torch": torch.__version__},
        }
        folder = save_checkpoint(
            self.run_folder,
            info,
            weights=self.model.state_dict(),
            ema=self.ema.average if self.ema else None,
            optimizer=flatten_optimizer(self.optimizer, list(self.params)),
            carry=self.carry,
            loop=loop,
            recipe=self.recipe.dump(),
        )
        prune(self.run_folder, self.recipe.checkpoints.keep)
        return folder

    def _log(self, line: dict[str, Any]) -> None:
        with open(self.run_folder / LOG_FILE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
        self.report(line)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def start(recipe: Recipe, run: Path, *, resume: bool, report: Report = _ignore) -> Trainer:
    """Prepare the run folder and a trainer; refuses a folder that holds another run unless resuming."""
    if not resume and checkpoints(run):
        raise UserError(f"{run} holds a run already", "add --resume to go on with it, or choose another --out")
    trainer = Trainer(recipe, run, resume=resume, report=report)
    write_text(run / RECIPE_FILE, recipe.dump())
    return trainer
