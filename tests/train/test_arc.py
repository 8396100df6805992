"""Training on real ARC tasks (see ``tests/data/arc/NOTICE``): what is a cell, what tells a task from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm_edge.cli.main import main
from hrm_edge.data.arc import Options, build
from hrm_edge.data.dataset import Dataset
from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.load import load_model
from hrm_edge.model.losses import IGNORE
from hrm_edge.recipe import Augment, Recipe
from hrm_edge.tasks.arc import Arc
from hrm_edge.tasks.base import exact
from hrm_edge.training.feed import Feed
from hrm_edge.training.loggers import LOG_FILE
from hrm_edge.training.loop import start

RECIPE = Path(__file__).parents[2] / "recipes" / "arc-1_reduced.yaml"
SAMPLES = Path(__file__).parent.parent / "data" / "arc" / "ARC-AGI"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arc") / "data"
    build(folder, Options((str(SAMPLES),), augment=4))
    return folder


def recipe(data: Path, **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "arc", "variant": "reduced", "data": str(data),
            "model": {"hidden": 16, "heads": 2, "h_layers": 1, "l_layers": 1, "puzzle_dim": 16, "max_steps": 2},
            "train": {"batch": 4, "steps": 4, "precision": "fp32", "compile": False, **train},
            "evaluate": {"every": 2, "puzzles": 3}, "checkpoints": {"every": 2},
        }
    )  # fmt: skip


def test_the_canvas_around_a_grid_is_no_label(data: Path) -> None:
    dataset = Dataset(data, "train", Arc())
    inputs, labels, ids = Feed(dataset, Augment(), seed=0).take(20, 0.0)
    again, raw, _ = Feed(dataset, Augment(), seed=0).sampler.take(20)
    assert (inputs.numpy() == again).all()
    assert (labels.numpy() == np.where(raw == 0, IGNORE, raw.astype(np.int32))).all()
    assert (labels == IGNORE).any(dim=1).all(), "every sample grid is smaller than the canvas"
    assert (ids > 0).all()


def test_it_trains_its_puzzle_table_and_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    whole = start(recipe(data), tmp_path / "whole", resume=False)
    assert whole.learner.model.puzzle_emb.weights.shape == (1 + 5 * 5, 16)
    whole.run()
    assert whole.learner.model.puzzle_emb.weights.any(dim=1).sum() > 1
    first = start(recipe(data), tmp_path / "parts", resume=False)
    first.run(stop=lambda: first.learner.step >= 2)
    second = start(recipe(data), tmp_path / "parts", resume=True)
    second.run()
    for name, tensor in whole.learner.model.state_dict().items():
        assert torch.equal(tensor, second.learner.model.state_dict()[name]), name


def test_evaluation_in_training_sees_every_task(data: Path) -> None:
    test = Dataset(data, "test", Arc())
    rows = test.spread(10)
    assert len(set(rows.tolist())) == 10
    half = test.part.puzzle_indices[test.part.group_indices[1]]  # where the second task begins
    assert set(rows < half) == {True, False}
    assert test.spread(10**6).tolist() == list(range(len(test)))


def test_an_answer_is_right_whatever_it_puts_around_the_grid() -> None:
    labels = np.array([[2, 3, 1, 0, 0], [2, 3, 1, 0, 0], [0, 0, 0, 0, 0]], np.uint8)
    answers = np.array([[2, 3, 1, 7, 0], [2, 4, 1, 0, 0], [0, 0, 0, 0, 0]], np.uint8)
    assert exact(answers, labels).tolist() == [True, False, False]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_reduced_recipe_learns_on_a_cpu_and_resumes(data: Path, tmp_path: Path) -> None:
    """The recipe in its full size, one cycle, a small batch: 200 steps, stopped once on the way."""
    sets = {
        "data": data, "model.h_cycles": 1, "model.l_cycles": 1, "model.max_steps": 4, "train.batch": 2,
        "train.steps": 200, "train.warmup": 20, "train.lr": 5e-4, "train.compile": "false", "evaluate.every": 200,
        "evaluate.puzzles": 3,
    }  # fmt: skip
    command = ["train", str(RECIPE), "--out", str(tmp_path / "run")]
    command += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    assert main([*command, "--time-limit", "40s"]) == 0
    stopped = max(int(folder.name.removeprefix("step-")) for folder in (tmp_path / "run/checkpoints").glob("step-*"))
    assert 0 < stopped < 200
    assert main([*command, "--resume"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [200]
    trained, info, _ = load_model(tmp_path / "run")
    assert info.step == 200
    torch.manual_seed(0)
    fresh = first_loss(HRM(trained.spec), data)
    assert first_loss(trained, data) < 0.85 * fresh


@torch.no_grad()
def first_loss(model: HRM, data: Path) -> float:
    """Loss of the first ACT step on eight training puzzles, always the same: puzzles differ by more than it falls."""
    batch = Feed(Dataset(data, "train", Arc()), Augment(), seed=7).take(8, 0.0)
    carry = admit(model, fresh_carry(model, 8, torch.bfloat16), *batch)
    return float(act_step(model, carry, loss="stablemax").loss.lm) / 8
