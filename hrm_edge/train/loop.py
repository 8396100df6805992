"""Training as a function: a recipe and a folder go in, checkpoints and a log come out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrm_edge import __version__
from hrm_edge.data.dataset import Dataset
from hrm_edge.errors import GateError, UserError
from hrm_edge.files import write_text
from hrm_edge.model.weights import CheckpointInfo, checkpoints
from hrm_edge.recipe import Recipe
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks import get_task
from hrm_edge.train.checkpoint import RECIPE_FILE, Restored, best_metrics, mark_best, prune, save_checkpoint
from hrm_edge.train.evaluation import evaluate
from hrm_edge.train.feed import Feed
from hrm_edge.train.learner import Learner
from hrm_edge.train.window import Window

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


class Trainer:
    """One run: a learner, its data, its folder; :meth:`run` drives it."""

    def __init__(self, recipe: Recipe, run: Path, *, resume: bool, report: Report = _ignore) -> None:
        self.recipe, self.run_folder, self.report = recipe, run, report
        self.task = get_task(recipe.task)
        if not recipe.data:
            raise UserError("recipe key 'data' is empty", "name a built data folder: --set data=DIR")
        self.data = Dataset(recipe.data, "train", self.task)
        self.test = Dataset(recipe.data, "test", self.task)
        self.learner = Learner(recipe, self._spec(), Feed(self.data, self.task, recipe.augment, recipe.seed))
        self.seconds = 0.0  # of training, over all sessions of the run
        self.accuracy: float | None = None
        if resume:
            saved = Restored(run)
            self._check_recipe(saved)
            self.learner.restore(saved)
            self.seconds = saved.loop["seconds"]

    def _spec(self) -> ModelSpec:
        meta = self.data.metadata
        grid = getattr(self.task, "grid", None)
        return self.recipe.spec(
            vocab=meta.vocab_size, seq_len=meta.seq_len, grid=grid, puzzles=meta.num_puzzle_identifiers
        )

    def _check_recipe(self, saved: Restored) -> None:
        if saved.info.recipe_hash == self.recipe.hash():
            return
        now, was = _flat(self.recipe.model_dump(mode="json")), _flat(saved.loop["recipe"])
        keys = [k for k in sorted({*now, *was}) if now.get(k) != was.get(k)]
        changed = ", ".join(f"{k} (was {was.get(k)!r}, is {now.get(k)!r})" for k in keys)
        raise UserError(
            f"--resume: the recipe differs from the one of {saved.folder}: {changed}",
            "resume with the same recipe and --set options, or start anew in another --out",
        )

    def run(self, *, time_limit: float | None = None, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Train to the recipe's last step, to ``time_limit`` seconds, or until ``stop()``; always ends saved."""
        started, before = time.monotonic(), self.seconds
        window = Window()
        recipe, learner = self.recipe, self.learner
        finished = learner.step >= recipe.train.steps
        while not finished:
            window.add(recipe.train.batch, learner.train_step())
            self.seconds = before + time.monotonic() - started
            finished = learner.step >= recipe.train.steps
            if learner.step % LOG_EVERY == 0 or finished:
                self._log_window(window)
                window = Window()
            if learner.step % recipe.evaluate.every == 0 or finished:
                finished |= self._evaluate()
                window = Window()
            elif learner.step % recipe.checkpoints.every == 0:
                self._save({})
            if not finished and (stop() or (time_limit is not None and time.monotonic() - started >= time_limit)):
                self._save({})
                break
        return Outcome(self.run_folder, learner.step, learner.samples, self.accuracy, finished, self.seconds)

    def _log_window(self, window: Window) -> None:
        line = window.line()
        if not math.isfinite(line["loss"]):
            raise self._diverged(f"the loss is {line['loss']}")
        self._log("train", {"lr": self.learner.optimizer.param_groups[0]["lr"], **line})

    def _diverged(self, what: str) -> GateError:
        return GateError(
            f"{what} at step {self.learner.step}",
            f"the last good checkpoint is kept in {self.run_folder}; lower train.lr or set train.precision=fp32",
        )

    def _evaluate(self) -> bool:
        """Measure, save, mark the best; True: good enough to stop."""
        options, learner = self.recipe.evaluate, self.learner
        begun = time.monotonic()
        metrics = evaluate(
            learner.model.spec,
            learner.weights(),
            self.test,
            self.task,
            options,
            device=learner.device,
            dtype=learner.dtype,
        )
        exact, cells = metrics["exact_accuracy"], metrics["cell_accuracy"]
        self.accuracy = exact
        self._log("eval", {"seconds": self.seconds, "eval_seconds": time.monotonic() - begun, **metrics})
        folder = self._save(metrics)
        best = best_metrics(self.run_folder)
        if (exact, cells) >= (best.get("exact_accuracy", -1.0), best.get("cell_accuracy", -1.0)):
            mark_best(self.run_folder, folder, metrics)
            prune(self.run_folder, self.recipe.checkpoints.keep)
        return exact >= options.stop_at

    def _save(self, metrics: dict[str, float]) -> Path:
        learner = self.learner
        if not learner.is_finite():
            raise self._diverged("a weight is not finite")
        info = CheckpointInfo(
            task=self.recipe.task,
            spec=learner.model.spec,
            recipe_hash=self.recipe.hash(),
            step=learner.step,
            samples=learner.samples,
            metrics=metrics,
        )
        folder = save_checkpoint(
            self.run_folder,
            info,
            weights=learner.model.state_dict(),
            ema=learner.ema.average if learner.ema else None,
            optimizer=learner.optimizer_state(),
            carry=learner.carry,
            loop={
                "recipe": self.recipe.model_dump(mode="json"),
                **learner.loop_state(),
                "seconds": self.seconds,
                "versions": {"hrm_edge": __version__, "torch": torch.__version__},
            },
            recipe=self.recipe.dump(),
        )
        prune(self.run_folder, self.recipe.checkpoints.keep)
        return folder

    def _log(self, kind: str, figures: dict[str, Any]) -> None:
        line = {"kind": kind, "step": self.learner.step, "samples": self.learner.samples, **figures}
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
