"""Display of a training run: a live bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich import progress
from rich.table import Table

from hrm_edge.costs import parameter_table
from hrm_edge.terminal import open_console
from hrm_edge.training.loop import Outcome, Trainer


class Progress:
    """Shows the log lines of a run on stderr; use as a context manager around ``Trainer.run``."""

    def __init__(self, trainer: Trainer) -> None:
        recipe, world, spec = trainer.recipe, trainer.world, trainer.learner.model.spec
        self.console = open_console(stderr=True, quiet=world.rank > 0)
        ranks = f" · {world.size} processes" if world.size > 1 else ""
        self.console.print(
            f"{recipe.task} · {spec.variant}, {parameter_table(spec)['trainable']:,} parameters · "
            f"{len(trainer.data):,} training examples · {recipe.train.precision} on {world.device.type}{ranks} · "
            f"checkpoints in {trainer.run_folder}"
        )
        for note in (*trainer.notes, trainer.learner.why_not_compiled):
            if note:
                self.console.print(note)
        self.bar = progress.Progress(
            progress.TextColumn("step"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("ETA"),
            progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal or world.rank > 0,
        )
        self.row = self.bar.add_task("", total=recipe.train.steps, completed=trainer.learner.step, figures="compiling")
        self.exact = ""

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, line: dict[str, Any]) -> None:
        """Take one log line of the trainer."""
        if line["kind"] == "train":
            figures = f"loss {line['loss']:.3f} · {_rate(line['samples_per_s'])} samples/s{self.exact}"
            self.bar.update(self.row, completed=line["step"], figures=figures)
            return
        self.exact = f" · exact {line['exact_accuracy']:.1%}"
        self.console.print(
            f"step {line['step']}: exact accuracy {line['exact_accuracy']:.2%} on {line['puzzles']:.0f} unseen puzzles "
            f"(cells {line['cell_accuracy']:.2%}), {line['samples']:,} samples, {line['seconds']:.0f} s"
        )

    def table(self, outcome: Outcome) -> None:
        """Return the table of the run's result."""
        table = Table(title=f"{outcome.run}")
        for column in ("steps", "samples", "training time", "samples/s", "exact accuracy, last", "best, at step"):
            table.add_column(column, justify="right")
        exact = "not evaluated" if outcome.exact_accuracy is None else f"{outcome.exact_accuracy:.2%}"
        best = outcome.best
        highest = "–" if best is None else f"{best.metrics['exact_accuracy']:.2%}, {best.step}"
        rate = outcome.samples / outcome.seconds if outcome.seconds else 0.0
        table.add_row(
            str(outcome.step), f"{outcome.samples:,}", f"{outcome.seconds:.0f} s", _rate(rate), exact, highest
        )
        self.console.print(table)
        if outcome.reason:
            self.console.print(f"Stopped early, {outcome.reason}")


def _rate(per_second: float) -> str:
    """Two figures of a slow rate: ``0`` would say that nothing moved."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"
