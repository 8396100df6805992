"""``hrm-edge train --set init=``: a run starts from whatever holds float32 weights, a shipped artifact by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hrm_edge import zoo
from hrm_edge.api.train import load_initial
from hrm_edge.data.build import Options, build
from hrm_edge.data.dataset import Dataset
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.model.load import load_model
from hrm_edge.model.session import TorchSession
from hrm_edge.recipe import load_recipe
from hrm_edge.tasks import get_task
from hrm_edge.training.loop import start

RECIPE = Path(__file__).parent.parent.parent / "recipes/sudoku_nano_more.yaml"


@pytest.fixture(scope="module")
def nine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nine") / "data"
    build(get_task("sudoku"), folder, Options(count=80, test_count=16, seed=0))
    return folder


def test_the_shipped_model_is_trained_on(run, nine, tmp_path):
    """One step of its own recipe with a rate of nothing: the checkpoint answers as the artifact's model does."""
    small = ("train.steps=1", "train.batch=4", "train.lr=1e-12", "train.weight_decay=0", "train.compile=false",
             "train.precision=fp32", "evaluate.puzzles=4")  # fmt: skip
    sets = [part for value in (f"data={nine}", "init=sudoku-nano", *small) for part in ("--set", value)]
    done = run("train", RECIPE, *sets, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    trained, _, _ = load_model(tmp_path / "run")
    shipped, _ = recover(zoo.folder_of("sudoku-nano"))
    for name, value in shipped.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, atol=1e-5, rtol=0, msg=name)


def test_an_exported_artifact_starts_where_its_run_ended(run, trained, tmp_path):
    assert run("export", trained, "--out", tmp_path / "fp32").code in (0, 1)  # its accuracy is no matter here
    recipe = load_recipe(trained / "recipe.yaml")
    model, _, folder = load_initial(str(tmp_path / "fp32"))
    assert folder == tmp_path / "fp32"
    begun = start(
        recipe.model_copy(update={"init": str(folder)}), tmp_path / "more", resume=False, load=load_initial
    ).learner.model
    source, _, _ = load_model(trained)
    inputs, _ = Dataset(recipe.data, "test", get_task(recipe.task)).examples(np.arange(8))
    ids = np.zeros(len(inputs), np.int32)
    sessions = [TorchSession(one.eval().cpu()) for one in (source, model, begun)]
    wanted, *others = (session.step(inputs, ids, session.initial_carry(len(inputs)))[1] for session in sessions)
    for other in others:
        np.testing.assert_allclose(other, wanted, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_trained_on(nine, tmp_path):
    for name, what in (
        ("sudoku-nano-int8", "is a int8 artifact: its float32 weights are gone"),
        ("sudoku-nano-fp16", "is a fp16 artifact: its float32 weights are gone"),
        (str(nine), "no checkpoint"),
        (str(tmp_path / "none"), "none"),
    ):
        with pytest.raises(UserError, match=what) as error:
            load_initial(name)
        assert error.value.hint
    recipe = load_recipe(RECIPE, [f"data={nine}", "init=sudoku-nano", "model.hidden=64", "train.batch=4"])
    with pytest.raises(UserError, match=r"sudoku-nano: .* is .*, a nano model needs"):
        start(recipe, tmp_path / "run", resume=False, load=load_initial)
