"""``hrm-edge eval`` on ARC and mazes with real, hardly trained checkpoints: report, submission file, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_edge.report.schema import BenchReport, EvalReport
from hrm_edge.tasks.maze import Maze

torch = pytest.importorskip("torch")

SAMPLES = Path(__file__).parent.parent / "data" / "arc" / "ARC-AGI"
TINY = {"hidden": 16, "heads": 2, "h_layers": 1, "l_layers": 1, "h_cycles": 1, "l_cycles": 1, "max_steps": 2}


def trained_on(folder: Path, task: str, **model: Any) -> Path:
    from hrm_edge.recipe import Recipe
    from hrm_edge.training.loop import start

    recipe = Recipe.model_validate(
        {
            "task": task, "variant": "reduced", "data": str(folder / "data"), "model": {**TINY, **model},
            "train": {"batch": 2, "steps": 1, "precision": "fp32", "compile": False}, "evaluate": {"puzzles": 2},
        }
    )  # fmt: skip
    start(recipe, folder / "run", resume=False).run()
    return folder / "run"


@pytest.fixture(scope="module")
def arc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data``, four augmentations a task, and ``run``."""
    from hrm_edge.data.arc import Options, build

    folder = tmp_path_factory.mktemp("arc")
    build(folder / "data", Options((str(SAMPLES),), augment=4))
    trained_on(folder, "arc", puzzle_dim=16)
    return folder


def test_arc_is_scored_by_votes_and_submitted(run, arc, tmp_path):
    file = tmp_path / "out" / "submission.json"
    done = run("eval", arc / "run", "--data", arc / "data", "--submission", file, "--json", "-")
    assert done.code == 0, done.err
    report = EvalReport.model_validate_json(done.out)
    assert report.arc is not None
    assert (report.arc.tasks, report.arc.questions, report.views, report.count) == (2, 3, 5, 15)
    assert [at.views for at in report.arc.by_views] == [1, 4, 5]
    assert report.halt == "fixed"
    answers = json.loads(file.read_text())
    assert {name: len(pairs) for name, pairs in answers.items()} == {"00576224": 1, "6ea4a07e": 2}
    for attempts in (attempt for pairs in answers.values() for pair in pairs for attempt in pair.values()):
        assert all(isinstance(colour, int) and 0 <= colour <= 9 for row in attempts for colour in row)
        assert len({len(row) for row in attempts}) == 1
    assert "pass@1, pass@2" in done.err
    assert f"Submission: {file}" in done.err
    assert "Report" not in done.err
    done = run("eval", arc / "run", "--data", arc / "data", "--limit", 1, "--views", 2, "--json", "-")
    few = EvalReport.model_validate_json(done.out)
    assert few.arc is not None
    assert (few.arc.tasks, few.views, few.count) == (1, 2, 2)


def test_an_artifact_of_arc_answers_the_same_and_is_measured(run, arc):
    out = arc / "artifact"
    done = run("export", arc / "run", "--out", out, "--calibration", arc / "data")
    assert done.code == 0, done.err
    reports = [
        EvalReport.model_validate_json(run("eval", model, "--data", arc / "data", "--json", "-").out)
        for model in (arc / "run", out)
    ]
    assert reports[0].arc == reports[1].arc
    done = run("bench", out, "--data", arc / "data", "--limit", 3, "--duration", "0.1s", "--json", "-")
    assert BenchReport.model_validate_json(done.out).count == 3


def test_what_arc_refuses(run, arc, mini, trained, tmp_path):
    other = tmp_path / "other"
    assert run("data", "build", "arc", "--source", SAMPLES, "--augment", 4, "--seed", 1, "--out", other).code == 0
    for arguments, what, hint in (
        (("eval", arc / "run", "--data", other), "is not the data folder that", "the same sources, options and seed"),
        (("eval", arc / "run", "--data", trained.parent / "data"), "expected arc, found mini-sudoku", "belongs to"),
        (("eval", arc / "run", "--data", mini / "plain.txt"), "plain.txt is no built data folder", "--source "),
        (("eval", arc / "run", "--data", arc / "data", "--submission", "-"), "--submission -", "name a file"),
        (("eval", arc / "run", "--data", arc / "data", "--submission", tmp_path), "it is a folder", "--submission"),
        (
            ("eval", mini / "model", "--data", mini / "plain.txt", "--submission", "x.json"),
            "is for arc",
            "leave it out",
        ),
        (("solve", "01|10", "--model", arc / "run"), "a grid alone does not say", "--submission FILE"),
        (("export", arc / "run", "--out", tmp_path / "a"), "no puzzles of arc to check on", "--calibration PATH"),
    ):
        done = run(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert what in done.err
        assert hint in done.err
    damaged = shutil.copytree(arc / "data", tmp_path / "damaged")
    (damaged / "identifiers.json").unlink()
    assert "identifiers.json: No such file" in run("eval", arc / "run", "--data", damaged).err


def test_mazes_tell_valid_and_optimal(run, tmp_path):
    from hrm_edge.data.maze import Options, build

    build(Maze(6, 6), tmp_path / "data", Options(count=4, test_count=3, min_length=6))
    model = trained_on(tmp_path, "maze-6x6")
    done = run("eval", model, "--data", tmp_path / "data", "--views", 2, "--json", "-")
    assert done.code == 0, done.err
    report = EvalReport.model_validate_json(done.out)
    assert report.optimal is not None
    assert report.optimal <= report.verified
    assert "valid and optimal" in done.err
