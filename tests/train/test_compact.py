"""A run kept small in git: what is stored, that it goes on from there, and what is refused."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hrm_edge.checkpoint import checkpoints
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.model.load import load_model
from hrm_edge.recipe import Recipe, load_recipe
from hrm_edge.tasks import get_task
from hrm_edge.training.checkpoint import flatten_optimizers
from hrm_edge.training.loop import start
from scripts.keep_run import write_compact

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=100, test_count=20, seed=0))
    return folder


def recipe(data: Path, steps: int = 6) -> Recipe:
    train = {"batch": 16, "steps": steps, "warmup": 2, "precision": "fp32", "compile": False, "ema": 0.9}
    every = {"evaluate": {"every": 6, "puzzles": 8}, "checkpoints": {"every": 3, "keep": 2}}
    model = {"hidden": 16, "heads": 4, "max_steps": 3}
    return Recipe.model_validate(
        {"task": "mini-sudoku", "variant": "nano", "data": str(data), "model": model, "train": train, **every}
    )


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    trainer = start(recipe(data), folder, resume=False)
    trainer.run(stop=lambda: trainer.learner.step >= 4)
    return folder


def test_it_is_small_names_no_path_and_holds_the_weights(run: Path, data: Path, tmp_path: Path) -> None:
    folder = write_compact(run, tmp_path / "kept")
    whole = sum(path.stat().st_size for path in checkpoints(run)[-1].glob("*.safetensors"))
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 0.55 * whole
    texts = "".join(path.read_text() for path in (tmp_path / "kept").rglob("*") if path.suffix in (".json", ".yaml"))
    assert str(data) not in texts
    before, _, _ = load_model(run)
    after, info, _ = load_model(tmp_path / "kept")
    assert info.step == 4
    for name, tensor in before.state_dict().items():
        assert torch.allclose(tensor, after.state_dict()[name], atol=1e-6, rtol=1e-3), name


def test_it_goes_on_from_the_same_state_on_any_data(run: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build(get_task("mini-sudoku"), other, Options(source="generate", count=50, test_count=20, seed=7))
    write_compact(run, tmp_path / "kept")
    chosen = load_recipe(tmp_path / "kept" / "recipe.yaml", [f"data={other}"])
    whole = start(recipe(data), run, resume=True)
    again = start(chosen, tmp_path / "kept", resume=True)
    assert again.learner.step == 4
    assert again.learner.samples == whole.learner.samples
    assert again.learner.ema is not None
    assert again.learner.ema.updates == 4
    ours, full = (flatten_optimizers(each.learner.optimizers, each.learner.params) for each in (again, whole))
    assert ours.keys() == full.keys()
    for slot, value in full.items():
        assert ours[slot].dtype == torch.float32
        assert torch.allclose(ours[slot], value, rtol=1e-2, atol=1e-12), slot
    assert again.run().finished
    assert [folder.name for folder in checkpoints(tmp_path / "kept")][-1] == "step-00000006"


def test_a_later_checkpoint_replaces_the_kept_one(data: Path, tmp_path: Path) -> None:
    start(recipe(data), tmp_path / "run", resume=False).run(time_limit=0.0)
    write_compact(tmp_path / "run", tmp_path / "kept")
    start(recipe(data), tmp_path / "run", resume=True).run(time_limit=0.0)
    write_compact(tmp_path / "run", tmp_path / "kept")
    assert [folder.name for folder in checkpoints(tmp_path / "kept")] == ["step-00000002"]
    start(recipe(data, steps=9), tmp_path / "other", resume=False).run(time_limit=0.0)
    with pytest.raises(UserError, match="keeps a run of another recipe"):
        write_compact(tmp_path / "other", tmp_path / "kept")


def test_weights_alone_are_the_averaged_ones_and_a_start_for_another_run(run: Path, data: Path, tmp_path: Path) -> None:
    folder = write_compact(run, tmp_path / "kept", weights_only=True)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    averaged = load_model(run)[0].state_dict()
    begun = start(recipe(data).model_copy(update={"init": str(tmp_path / "kept")}), tmp_path / "next", resume=False)
    assert begun.learner.step == 0
    for name, tensor in begun.learner.model.state_dict().items():
        assert torch.allclose(tensor, averaged[name], atol=1e-6, rtol=1e-3), name
    with pytest.raises(UserError, match="keeps weights alone"):
        start(load_recipe(tmp_path / "kept" / "recipe.yaml", [f"data={data}"]), tmp_path / "kept", resume=True)


def test_what_is_no_run_and_what_holds_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint"):
        write_compact(tmp_path, tmp_path / "kept")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a kept run"):
        write_compact(run, tmp_path)


def test_one_command_saves_and_one_goes_on(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = str(ROOT / "scripts" / "keep_run.py")

    def do(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", [program, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(program, run_name="__main__")
        return ended.value.code

    assert do("save", str(run), "kept/mini") == 0
    assert "go-on kept/mini --data DIR" in capsys.readouterr().out
    words = [sys.executable, program, "go-on", "kept/mini", "--data", str(data)]  # it becomes another program
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 4 of a compact checkpoint" in done.stdout + done.stderr
    assert (tmp_path / "runs/mini/checkpoints/step-00000006").is_dir()

    assert do("save", str(run), "kept/weights", "--weights") == 0
    assert "hrm-edge train RECIPE --data DIR init=kept/weights" in capsys.readouterr().out
    assert do("go-on", "kept/weights", "--data", str(data)) == 2
    assert "keeps weights alone" in capsys.readouterr().err
    assert [folder.name for folder in checkpoints(tmp_path / "kept/mini")] == ["step-00000004"]
    assert do("go-on", "nothing", "--data", str(data)) == 2
