"""Logs of a run's figures: JSON lines and CSV always, TensorBoard where installed, W&B on request."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrm_edge.files import write_text
from hrm_edge.packages import check_installed
from hrm_edge.training.window import FIGURES

LOG_FILE = "metrics.jsonl"
CSV_FILE = "metrics.csv"
TENSORBOARD = "tensorboard"
_WANDB_ID_FILE = "wandb-id.txt"
COLUMNS = ("kind", "step", "samples", "lr", *FIGURES, "exact_accuracy", "puzzles", "seconds", "eval_seconds")

Line = dict[str, Any]
"""``kind`` (``train`` or ``eval``), ``step``, ``samples`` and figures by name."""


class Logs:
    """Takes the log lines of a run once it is opened, which only the rank that writes does."""

    def __init__(self, run: Path, wandb_project: str = "") -> None:
        if wandb_project:
            check_installed("wandb", "--wandb")
        self.run, self.wandb_project = run, wandb_project
        self._sinks: list[Callable[[Line], None]] = []
        self._closers: list[Callable[[], None]] = []

    def open(self, step: int, recipe: dict[str, Any], on_progress: Callable[[Line], None]) -> None:
        """Go on after optimizer step ``step``: lines beyond it, of a run that was killed, are removed."""
        kept = [line for line in read_lines(self.run / LOG_FILE) if line["step"] <= step]
        write_text(self.run / LOG_FILE, "".join(map(_as_json, kept)))
        write_text(self.run / CSV_FILE, _as_csv({name: name for name in COLUMNS}) + "".join(map(_as_csv, kept)))
        self._sinks = [self._append, on_progress]
        if importlib.util.find_spec("tensorboard") is not None:
            self._open_tensorboard(step)
        if self.wandb_project:
            self._open_wandb(recipe)

    def write(self, line: Line) -> None:
        """Give ``line`` to every log."""
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in line.items()}
        for sink in self._sinks:
            sink(rounded)

    def close(self) -> None:
        """Flush and close what is open."""
        while self._closers:
            self._closers.pop()()
        self._sinks = []

    def _append(self, line: Line) -> None:
        for name, text in ((LOG_FILE, _as_json(line)), (CSV_FILE, _as_csv(line))):
            with open(self.run / name, "a", encoding="utf-8", newline="") as stream:
                stream.write(text)

    def _open_tensorboard(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.run / TENSORBOARD), purge_step=step + 1, flush_secs=30)

        def sink(line: Line) -> None:
            for name, value in _figures(line).items():
                writer.add_scalar(f"{line['kind']}/{name}", value, line["step"])

        self._sinks.append(sink)
        self._closers.append(writer.close)

    def _open_wandb(self, recipe: dict[str, Any]) -> None:
        import wandb

        file = self.run / _WANDB_ID_FILE  # a resumed run goes on in the same chart
        name = file.read_text(encoding="utf-8") if file.is_file() else wandb.util.generate_id()
        write_text(file, name)
        live = wandb.init(
            project=self.wandb_project, id=name, name=self.run.name, dir=str(self.run), config=recipe, resume="allow"
        )

        def sink(line: Line) -> None:
            figures = {f"{line['kind']}/{name}": value for name, value in _figures(line).items()}
            live.log(figures, step=line["step"])

        self._sinks.append(sink)
        self._closers.append(live.finish)


def read_lines(path: Path) -> list[Line]:
    """Read a JSON lines log; a line that a kill or a full disk has torn is left out, the others stay."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


def _figures(line: Line) -> Line:
    return {name: value for name, value in line.items() if name not in ("kind", "step")}


def _as_json(line: Line) -> str:
    return json.dumps(line) + "\n"


def _as_csv(line: Line) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, COLUMNS, lineterminator="\n").writerow(line)
    return stream.getvalue()
