"""A real artifact, a real checkpoint and real puzzle files for the verbs that take them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hrm_edge.bench import roofline
from hrm_edge.cli import main as frame
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_puzzles, write_singles_artifact
from tests.shared import made_once

MINI = Sudoku(2, 2)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``hrm-edge`` in this process: exit code, stdout, stderr."""

    def invoke(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = frame.main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return invoke


@pytest.fixture(scope="session", autouse=True)
def _one_trial() -> Iterator[None]:
    """Every report has this CPU's rates beside it, which take longer than a small model's run: measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "trial_peaks", functools.cache(roofline.trial_peaks))
        yield


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``model`` (artifact that solves naked singles), ``answered.csv`` and ``plain.txt``."""
    folder = tmp_path_factory.mktemp("mini")
    write_singles_artifact(folder / "model", MINI)
    givens, answers = singles_puzzles(MINI, 12)
    pairs = [(MINI.format(g), MINI.format(a)) for g, a in zip(givens, answers, strict=True)]
    (folder / "answered.csv").write_text("question,answer\n" + "".join(f"{g},{a}\n" for g, a in pairs))
    (folder / "plain.txt").write_text("".join(f"{g}\n" for g, _ in pairs))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after a few optimizer steps: far from solving anything, but a checkpoint by the book."""
    pytest.importorskip("torch")
    return made_once(tmp_path_factory, "trained", train_briefly) / "run"


def train_briefly(folder: Path) -> None:
    """Build ``data`` and train ``run``."""
    from hrm_edge.data.sudoku import Options, build
    from hrm_edge.recipe import Recipe
    from hrm_edge.training.loop import start

    build(MINI, folder / "data", Options(source="generate", count=40, test_count=10, seed=0))
    recipe = Recipe.model_validate(
        {
            "task": "mini-sudoku", "variant": "nano", "data": str(folder / "data"),
            "model": {"hidden": 16, "heads": 4, "max_steps": 2},
            "train": {"batch": 4, "steps": 2, "precision": "fp32", "compile": False},
            "evaluate": {"every": 2, "puzzles": 4}, "checkpoints": {"every": 1},
        }
    )  # fmt: skip
    start(recipe, folder / "run", resume=False).run()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """An empty folder as the working folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
