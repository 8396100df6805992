"""Logs: every line in JSON and CSV, a resumed run goes on without a gap or a repeat, TensorBoard and W&B."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from hrm_edge.errors import UserError
from hrm_edge.training.loggers import COLUMNS, CSV_FILE, LOG_FILE, TENSORBOARD, Logs, read_lines


def line(step: int, **figures: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "samples": 2 * step, "loss": 1.0 / step, **figures}


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    logs, shown = Logs(tmp_path), []
    logs.open(0, {}, shown.append)
    for step in (20, 40, 60):
        logs.write(line(step))
    logs.close()
    with open(tmp_path / LOG_FILE, "a") as stream:
        stream.write('{"kind": "train", "st')  # torn by a kill
    logs = Logs(tmp_path)
    logs.open(40, {}, shown.append)
    logs.write({"kind": "eval", "step": 50, "samples": 100, "exact_accuracy": 1 / 3})
    logs.close()
    logs.write(line(70))  # closed: goes nowhere
    assert [(found["kind"], found["step"]) for found in read_lines(tmp_path / LOG_FILE)] == [
        ("train", 20), ("train", 40), ("eval", 50)
    ]  # fmt: skip
    with open(tmp_path / CSV_FILE, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["loss"] for row in rows] == ["0.05", "0.025", ""]
    assert rows[2]["exact_accuracy"] == "0.333333"
    assert [found["step"] for found in shown] == [20, 40, 60, 50]


def test_a_torn_line_in_the_middle_costs_that_line_alone(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.open(0, {}, lambda _: None)
    for step in (20, 40, 60, 80):
        logs.write(line(step))
    logs.close()
    texts = (tmp_path / LOG_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG_FILE).write_bytes(texts[0] + texts[1][:20] + b"\xff\n" + b"17\n" + b"".join(texts[2:]))
    Logs(tmp_path).open(60, {}, lambda _: None)
    assert [found["step"] for found in read_lines(tmp_path / LOG_FILE)] == [20, 60]
    with open(tmp_path / CSV_FILE, newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["20", "60"]


def test_tensorboard_gets_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'hrm-edge[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = Logs(tmp_path)
    logs.open(0, {}, lambda _: None)
    logs.write(line(20))
    logs.write({"kind": "eval", "step": 20, "samples": 40, "exact_accuracy": 0.5})
    logs.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD))
    events.Reload()
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("train/loss")] == [(20, 0.05)]
    assert [e.value for e in events.Scalars("eval/exact_accuracy")] == [0.5]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_wandb_that_is_not_installed_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs wandb, which is not installed\npip install 'hrm-edge\[wandb\]'"):
        Logs(tmp_path, "project")
