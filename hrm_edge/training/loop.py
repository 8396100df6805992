"""Training as a function: a recipe and a folder go in, checkpoints and a log come out."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrm_edge import __version__
from hrm_edge.checkpoint import CheckpointInfo, checkpoints
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.layout import folder_hash, identifiers_hash
from hrm_edge.errors import EXIT_USER, GateError, HrmEdgeError, UserError
from hrm_edge.files import write_text
from hrm_edge.model.hrm import HRM
from hrm_edge.model.load import load_model
from hrm_edge.model.weights import load_weights
from hrm_edge.quant.aware import train_rounded
from hrm_edge.recipe import Recipe, changed_keys
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks import get_task
from hrm_edge.training.checkpoint import RECIPE_FILE, Best, Restored, Snapshot, mark_best, prune, save_checkpoint
from hrm_edge.training.distributed import OtherRankFailed, World, alone
from hrm_edge.training.evaluation import evaluate
from hrm_edge.training.feed import Feed
from hrm_edge.training.folder import lock_run_folder, was_restarted
from hrm_edge.training.learner import Learner
from hrm_edge.training.loggers import Line, Logs
from hrm_edge.training.precision import Bf16, bf16_on, decided
from hrm_edge.training.window import Window
from hrm_edge.training.writer import Writer

_LOG_EVERY = 20  # optimizer steps between log lines
_GO_ON, _TIME, _STOP, _FAILED = range(4)  # what a rank says after each step; the highest holds for all

Report = Callable[[Line], None]
"""Takes each log line: kind ``train`` or ``eval``, and its figures."""


@dataclass
class Outcome:
    """End of a run; ``interrupted``: by ``stop()`` of any rank; ``reason``: why it ended early, if it did."""

    run: Path
    step: int
    samples: int
    exact_accuracy: float | None
    finished: bool
    seconds: float
    best: Best | None
    interrupted: bool = False
    reason: str = ""


_LoadModel = Callable[[str], tuple[HRM, Any, Path]]
"""From a name to (model, what it is, its file or folder)."""


class Trainer:
    """One rank of one run: a learner, its data, its folder; :meth:`run` drives it. Rank 0 writes."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: World,
        *,
        resume: bool,
        bf16: Bf16,
        wandb: str = "",
        load: _LoadModel = load_model,
    ) -> None:
        saved = Restored(run) if resume else None
        recipe, note = decided(recipe, bf16, saved.precision if saved is not None else None)
        self.recipe, self.run_folder, self.world, self.load = recipe, run, world, load
        self.notes = [note] if note else []  # about how it starts, for a person
        self.task = get_task(recipe.task)
        if not recipe.data:
            raise UserError("recipe key 'data' is empty", "name a built data folder: --data DIR")
        check_batch(recipe, world.size)
        scan = world.local_rank == 0
        self.data = Dataset(recipe.data, "train", self.task, scan=scan)
        self.test = Dataset(recipe.data, "test", self.task, scan=scan)
        if len(self.test) < world.size:
            raise UserError(
                f"{recipe.data}/test has {len(self.test)} examples for {world.size} processes",
                "build it with more test examples",
            )
        self.data_hash = folder_hash(recipe.data) if world.rank == 0 else ""
        feed = Feed(self.data, recipe.augment, recipe.seed)
        self.learner = Learner(recipe, self._spec(), feed, world, self._start_weights)
        self.logs, self.writer = Logs(run, wandb), Writer()
        self.seconds = 0.0  # of training, over all sessions of the run
        self.accuracy: float | None = None
        self.best: Best | None = None
        self.worse = 0  # evaluations in a row that were worse than the best
        if saved is not None:
            self._restore(saved)

    def _spec(self) -> ModelSpec:
        meta = self.data.metadata
        grid = getattr(self.task, "grid", None)
        return self.recipe.spec(
            vocab=meta.vocab_size, seq_len=meta.seq_len, grid=grid, puzzles=meta.num_puzzle_identifiers
        )

    def _start_weights(self, model: HRM) -> None:
        """Load weights of another run, and switch INT8 rounding on, where the recipe says so."""
        if self.recipe.init:
            source, _, place = self.load(self.recipe.init)
            tensors = dict(source.state_dict())
            if odd := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
                raise UserError(f"{place}: '{odd}' holds values that are no numbers", "start from another model")
            load_weights(model, tensors, place)
        if self.recipe.quantization.aware:
            train_rounded(model, self.recipe, self.data)

    def _restore(self, saved: Restored) -> None:
        before = saved.loop["recipe"]
        if saved.is_compact:
            before = {**before, "data": self.recipe.data, "init": self.recipe.init}
        if changed := changed_keys(before, self.recipe):
            raise UserError(
                f"--resume: the recipe differs from the one of {saved.folder}: {changed}",
                "resume with the same recipe and --set options, or start anew in another --out",
            )
        loop = saved.loop
        if self.world.rank == 0 and loop.get("data_hash", self.data_hash) != self.data_hash:  # older runs have none
            raise UserError(
                f"--resume: the data in {self.recipe.data} is not what {saved.folder} was trained on",
                "put the run's data back there, or start anew in another --out",
            )
        self.learner.restore(saved)
        self.seconds, self.worse = loop["seconds"], loop.get("worse", 0)
        self.best = Best(**loop["best"]) if loop.get("best") else None
        ranks = loop.get("ranks", self.world.size)
        note = f"resumed at step {saved.info.step}"
        if saved.is_compact:
            note += " of a compact checkpoint: puzzles are drawn in another order than in the run it is of"
        if ranks != self.world.size:
            note += (
                f" on {self.world.size} ranks, saved on {ranks}: the same puzzles and draws in the same order, but "
                "sums are added in another order, so results agree to rounding, not bit for bit"
            )
        self.notes.append(note)

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        time_limit: float | None = None,
        stop: Callable[[], bool] = lambda: False,
        on_progress: Report = lambda line: None,
    ) -> Outcome:
        """Train to the recipe's last step, to ``time_limit`` seconds, or until ``stop()``; always ends saved.

        Raises ``GateError`` when the loss is no number any more, ``UserError`` when a checkpoint cannot be written,
        ``LostPeers`` when another rank is gone. The last whole checkpoint is kept in every case.
        """
        with self.world.watched(), contextlib.ExitStack() as stack:
            self.world.on_all_ranks(lambda: self._open(stack, on_progress) if self.world.rank == 0 else None)
            try:
                outcome = self._train(time_limit, stop)
            except BaseException as error:
                self._end_writing(error)
                raise
            self.world.on_all_ranks(self.writer.wait)  # no rank leaves before all is written
        return outcome

    def _open(self, stack: contextlib.ExitStack, on_progress: Report) -> None:
        stack.enter_context(lock_run_folder(self.run_folder))
        write_text(self.run_folder / RECIPE_FILE, self.recipe.dump())
        if self.best is not None:  # a kill may have come between the checkpoint and this mark
            mark_best(self.run_folder, self.best)
        self.logs.open(self.learner.step, self.recipe.model_dump(mode="json"), on_progress)
        stack.callback(self.logs.close)

    def _end_writing(self, error: BaseException) -> None:
        """Wait for the checkpoint that is being written, and tell when it fails after ``error``."""
        try:
            self.writer.wait()
        except HrmEdgeError as failure:
            what = error.problem if isinstance(error, HrmEdgeError) else repr(error)
            raise UserError(f"{failure.problem} (when ending after: {what})", failure.hint) from error

    def _train(self, time_limit: float | None, stop: Callable[[], bool]) -> Outcome:
        started, before = time.monotonic(), self.seconds
        window = Window()
        recipe, learner = self.recipe, self.learner
        reason, verdict = "", _GO_ON
        finished = learner.step >= recipe.train.steps
        while not finished:
            window.add(recipe.train.batch, learner.train_step())
            self.seconds = before + time.monotonic() - started
            finished = learner.step >= recipe.train.steps
            if learner.step % _LOG_EVERY == 0 or finished:
                self._log_window(window)
                window = Window()
            if learner.step % recipe.evaluate.every == 0 or finished:
                reason = self._evaluate()
                finished |= bool(reason)
                window = Window()
            elif learner.step % recipe.checkpoints.every == 0:
                self._save({})
            ends = time_limit is not None and time.monotonic() - started >= time_limit
            verdict = self._agree(_STOP if stop() else _TIME if ends else _GO_ON)
            if verdict != _GO_ON and not finished:
                self._save({})
                break
        return Outcome(
            self.run_folder,
            learner.step,
            learner.samples,
            self.accuracy,
            finished,
            self.seconds,
            self.best,
            interrupted=verdict == _STOP and not finished,
            reason=reason,
        )

    def _agree(self, vote: int) -> int:
        """Agree on what all ranks do now, by the highest vote. Raises what the writer met since the last step."""
        if self.writer.failed():
            vote = _FAILED
        verdict = max(self.world.exchange(vote))
        if verdict == _FAILED:
            self.writer.wait()
            raise OtherRankFailed(EXIT_USER)
        return verdict

    def _log_window(self, window: Window) -> None:
        line = window.line(self.world)
        if not math.isfinite(line["loss"]):
            raise self._diverged(f"the loss is {line['loss']}")
        self._log("train", {"lr": self.learner.optimizers[0].param_groups[0]["lr"], **line})

    def _diverged(self, what: str) -> GateError:
        return GateError(
            f"{what} at step {self.learner.step}",
            f"the last good checkpoint is kept in {self.run_folder}; lower train.lr or set train.precision=fp32",
        )

    def _evaluate(self) -> str:
        """Measure, save, mark the best; a reason to stop the run here, or nothing."""
        options, learner = self.recipe.evaluate, self.learner
        begun = time.monotonic()
        metrics = evaluate(
            learner.model.spec,
            learner.weights(),
            self.test,
            options,
            world=self.world,
            dtype=learner.dtype,
        )
        self.accuracy = metrics["exact_accuracy"]
        self._log("eval", {"seconds": self.seconds, "eval_seconds": time.monotonic() - begun, **metrics})
        is_best = self.best is None or self.best.beaten_by(metrics)
        if is_best:
            self.best = Best(learner.step, metrics)
        assert self.best is not None
        # Before anything is solved at all, cells go up and down: that is no decline.
        self.worse = self.worse + 1 if not is_best and self.best.metrics["exact_accuracy"] > 0 else 0
        self._save(metrics)
        if self.accuracy >= options.stop_at:
            return f"evaluate.stop_at reached: exact accuracy {self.accuracy:.2%}"
        if options.patience and self.worse >= options.patience:
            return f"evaluate.patience: {self.worse} evaluations worse than step {self.best.step}, which is kept"
        return ""

    def _save(self, metrics: dict[str, float]) -> None:
        """Copy the state now, write it beside the training; ``metrics`` of an evaluation of this very step."""
        learner, best, keep = self.learner, self.best, self.recipe.checkpoints.keep
        if not learner.is_finite():
            raise self._diverged("a weight is not finite")
        info = CheckpointInfo(
            task=self.recipe.task,
            spec=learner.model.spec,
            recipe_hash=self.recipe.hash(),
            step=learner.step,
            samples=learner.samples,
            metrics=metrics,
            identifiers=identifiers_hash(self.recipe.data),
        )
        loop = {
            "recipe": self.recipe.model_dump(mode="json"),
            "data_hash": self.data_hash,
            **learner.values(),
            "seconds": self.seconds,
            "best": best._asdict() if best is not None else None,
            "worse": self.worse,
            "versions": {"hrm_edge": __version__, "torch": torch.__version__},
        }
        moment = Snapshot(info, learner.tensors(), loop, self.recipe.dump())

        def write() -> None:
            save_checkpoint(self.run_folder, moment)
            if best is not None and best.step == moment.info.step:
                mark_best(self.run_folder, best)
            prune(self.run_folder, keep)

        if self.world.rank == 0:
            self.writer.submit(write)

    def _log(self, kind: str, figures: dict[str, float]) -> None:
        self.logs.write({"kind": kind, "step": self.learner.step, "samples": self.learner.samples, **figures})


def check_batch(recipe: Recipe, ranks: int) -> None:
    """Raise ``UserError`` unless the recipe's batch can be shared out equally."""
    if recipe.train.batch % ranks:
        near = max(ranks, round(recipe.train.batch / ranks) * ranks)
        raise UserError(
            f"train.batch is {recipe.train.batch}, which {ranks} processes cannot share equally",
            f"use --set train.batch={near}, or another number of processes",
        )


def start(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool,
    world: World | None = None,
    wandb: str = "",
    load: _LoadModel = load_model,
) -> Trainer:
    """Start a trainer on every rank; refuse a folder that holds another run unless resuming.

    A job whose launcher starts its workers again goes on from its own newest checkpoint unasked. ``world``: the ranks
    that train together (default: this process alone). ``wandb``: a W&B project to log to. ``load``: reads the model
    that ``init`` names; the default knows runs, checkpoints and published files.
    """
    world = world or alone()
    with world.watched():
        existing = checkpoints(run)
        newest = int(existing[-1].name.rpartition("-")[2]) if existing else -1
        steps = world.exchange(newest)
        resume |= bool(world.exchange(was_restarted(run))[0])
        bf16 = bf16_on(world)

        def prepare() -> Trainer:
            if len(set(steps)) > 1:
                raise UserError(
                    f"the processes find different checkpoints in {run}: steps {steps} (-1: none)",
                    "--out has to be a folder that all hosts share",
                )
            if not resume and existing:
                raise UserError(f"{run} holds a run already", "add --resume to go on with it, or choose another --out")
            return Trainer(recipe, run, world, resume=resume, bf16=bf16, wandb=wandb, load=load)

        trainer = world.on_all_ranks(prepare)
        trainer.learner.connect()
    return trainer
