"""QAT: a run that starts from another's weights, rounds as the export does, and answers better when rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrm_edge.data.dataset import Dataset
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.model.load import load_model
from hrm_edge.quant.policy import int8_layers
from hrm_edge.quant.sensitivity import final, rounded
from hrm_edge.recipe import Recipe
from hrm_edge.tasks import get_task
from hrm_edge.training.loop import start


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    data = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), data, Options(source="generate", count=200, test_count=32, seed=0))
    return Recipe.model_validate(
        {
            "task": "mini-sudoku", "variant": "nano", "data": str(data),
            "model": {"hidden": 32, "heads": 4, "max_steps": 2},
            "train": {"batch": 32, "steps": 20, "warmup": 5, "lr": 3e-3, "precision": "fp32", "compile": False},
            "evaluate": {"every": 1000, "puzzles": 8},
            "quantization": {"calibration_puzzles": 32, "observer": "max"},
        }
    )  # fmt: skip


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    scores = torch.from_numpy(logits).flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels).flatten().long()))


def test_fine_tuning_with_rounding(recipe: Recipe, tmp_path):
    start(recipe, tmp_path / "float", resume=False).run()
    aware = recipe.model_copy(
        update={
            "init": str(tmp_path / "float"),
            "quantization": recipe.quantization.model_copy(update={"aware": True}),
        }
    )
    trainer = start(aware, tmp_path / "aware", resume=False)
    layers = int8_layers(trainer.learner.model)
    scales = {name: float(layer.input_scale) for name, layer in layers.items() if layer.input_scale is not None}
    assert set(scales) == set(layers)
    before, _, _ = load_model(tmp_path / "float")
    trainer.run()
    after, _, _ = load_model(tmp_path / "aware")
    check = Dataset(recipe.data, "test", get_task("mini-sudoku")).head(32)
    losses = []
    for model in (before, after):
        with rounded(model, scales):
            losses.append(cross_entropy(final(model, check, 2).logits, check.labels))
    assert losses[1] < losses[0]
    again = start(aware, tmp_path / "aware", resume=True)  # a resumed run rounds by the same scales
    resumed = int8_layers(again.learner.model)
    assert {
        name: float(layer.input_scale) for name, layer in resumed.items() if layer.input_scale is not None
    } == scales


def test_rounding_needs_a_trained_model(recipe: Recipe, tmp_path):
    alone = recipe.model_copy(update={"quantization": recipe.quantization.model_copy(update={"aware": True})})
    with pytest.raises(UserError, match=r"'quantization.aware' is true without 'init'.*\n.*--set init=MODEL"):
        start(alone, tmp_path / "run", resume=False)
