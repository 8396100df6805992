"""``hrm-edge train --set init=``: a run starts from whatever holds float32 weights, a shipped artifact by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from hrm_edge import zoo
from hrm_edge.api.train import load_initial
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.manifest import STATE_FILE, STEP_FILE, parse_manifest, write_manifest
from hrm_edge.model.load import load_model
from hrm_edge.model.session import TorchSession
from hrm_edge.recipe import load_recipe
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.training.loop import start
from tests.artifacts import write_random_artifact

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
    inputs, _, ids = Dataset(recipe.data, "test", get_task(recipe.task)).examples(np.arange(8))
    sessions = [TorchSession(one.eval().cpu()) for one in (source, model, begun)]
    wanted, *others = (session.step(inputs, ids, session.initial_carry(len(inputs)))[1] for session in sessions)
    for other in others:
        np.testing.assert_allclose(other, wanted, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_trained_on(nine, tmp_path):
    for name, what in (
        ("sudoku-nano-int8", "is an INT8 artifact: its float32 weights are gone"),
        (str(nine), "no checkpoint"),
        (str(tmp_path / "none"), "none"),
    ):
        with pytest.raises(UserError, match=what) as error:
            load_initial(name)
        assert error.value.hint
    recipe = load_recipe(RECIPE, [f"data={nine}", "init=sudoku-nano", "model.hidden=64", "train.batch=4"])
    with pytest.raises(UserError, match=r"sudoku-nano: .* is .*, a nano model needs"):
        start(recipe, tmp_path / "run", resume=False, load=load_initial)


# -- what somebody made to break it ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A float32 artifact of the run in ``trained``'s sizes."""
    task = get_task("mini-sudoku")
    sizes = {"vocab": task.vocab, "seq_len": task.seq_len, "grid": task.grid, "hidden": 16, "heads": 4, "max_steps": 2}
    folder = tmp_path_factory.mktemp("small") / "artifact"
    return write_random_artifact(folder, variant_spec("nano", **sizes), "fp32", task.name)


def crafted(small: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    """A copy with ``change`` made to it and the hashes of what it holds then."""
    shutil.copytree(small, folder)
    manifest = parse_manifest(folder)
    change(folder)
    write_manifest(folder, manifest)
    return folder


def constant(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Change one tensor of the step, as it stands in the file."""

    def make(folder: Path) -> None:
        model = onnx.load(folder / STEP_FILE)
        change(next(tensor for tensor in model.graph.initializer if tensor.name == name))
        (folder / STEP_FILE).write_bytes(model.SerializeToString())

    return make


def filled(value: float) -> Callable[[Any], object]:
    return lambda tensor: tensor.CopyFrom(
        numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), value), tensor.name)
    )


def replaced(array: np.ndarray) -> Callable[[Any], object]:
    return lambda tensor: tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def text(tensor: Any) -> None:
    tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.STRING, [1], [b"a"]))


CRAFTED: dict[str, Callable[[Path], object]] = {
    "an empty step": lambda f: (f / STEP_FILE).write_bytes(b""),
    "a step of other bytes": lambda f: (f / STEP_FILE).write_bytes(b"step" * 50_000),
    "a tensor with too few bytes": constant("embedding", lambda t: setattr(t, "raw_data", t.raw_data[:-4])),
    "a tensor with half a number": constant("embedding", lambda t: setattr(t, "raw_data", t.raw_data + b"x")),
    "a tensor of absurd sizes": constant("embedding", lambda t: t.dims.extend([1 << 40, 1 << 20])),
    "a tensor of no known type": constant("embedding", lambda t: setattr(t, "data_type", 99)),
    "a tensor of words": constant("embedding", text),
    "one number for a table": constant("embedding", replaced(np.float32(1))),
    "a state without end": lambda f: (f / STATE_FILE).write_bytes(b"\xff" * 64),
    "an empty state": lambda f: (f / STATE_FILE).write_bytes(b""),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_artifact_is_refused(case, small, tmp_path):
    with pytest.raises(UserError) as error:
        load_initial(str(crafted(small, tmp_path / "a", CRAFTED[case])))
    assert str(tmp_path / "a") in error.value.problem
    assert error.value.hint


@settings(max_examples=40)
@given(st.sampled_from([STEP_FILE, STATE_FILE]), st.integers(0, 1 << 20), st.binary(max_size=8), st.integers(0, 64))
def test_no_change_of_its_bytes_is_a_bug(small, tmp_path_factory, name, at, new, gone):
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        place = at % len(content)
        (folder / name).write_bytes(content[:place] + new + content[place + gone :])

    folder = crafted(small, tmp_path_factory.mktemp("crafted") / "a", change)
    try:
        model, _, _ = load_initial(str(folder))
    except UserError as error:
        assert error.hint  # noqa: PT017 - most changes are refused, some leave a model
    else:
        assert model.spec.hidden == 16
    shutil.rmtree(folder)


def test_a_start_that_is_no_number_is_refused_before_it_is_trained(run, trained, small, tmp_path):
    """It ended after the first step, in advice about the rate."""
    bad = crafted(small, tmp_path / "bad", constant("lm_head.weight", filled(np.nan)))
    done = run("train", trained / "recipe.yaml", "--set", f"init={bad}", "--out", tmp_path / "run")
    assert (done.code, "'lm_head.weight' holds values that are no numbers" in done.err) == (2, True), done.err


def test_a_published_file_whose_tables_are_none(trained, tmp_path):
    model, _, _ = load_model(trained)
    for name in ("puzzle_emb.weights", "embed_pos.embedding_weight"):
        torch.save({**model.state_dict(), name: torch.zeros(16)}, tmp_path / "x.pt")
        with pytest.raises(UserError, match=f"it has no matrix '{name}'"):
            load_initial(str(tmp_path / "x.pt"))
