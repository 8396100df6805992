"""ARC by votes and mazes by their rules, with answers that are known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.bench.arc import cell_accuracies, evaluate_arc
from hrm_edge.bench.run import Subject, evaluate
from hrm_edge.bench.scenarios import BenchOptions, Solver, offline, single_stream
from hrm_edge.data.arc import Options, build, read_questions
from hrm_edge.errors import UserError
from hrm_edge.report.schema import Data, EvalReport, ModelInfo
from hrm_edge.report.text import markdown, rows
from hrm_edge.solve import SolveOptions
from hrm_edge.spec import variant_spec
from hrm_edge.tasks.arc import Arc, encode
from hrm_edge.tasks.arc_votes import Questions
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.puzzles import Puzzles
from tests.scripted import Oracle

SAMPLES = Path(__file__).parent.parent / "data" / "arc" / "ARC-AGI"
VIEWS = 9


def model(task: str) -> ModelInfo:
    return ModelInfo(
        name="m", path="m", kind="checkpoint", task=task, variant="reduced", precision="fp32", parameters=1,
        size_bytes=1, sha256=None, gate_passed=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Questions:
    folder = tmp_path_factory.mktemp("arc") / "data"
    build(folder, Options((str(SAMPLES),), augment=VIEWS - 1))
    return read_questions(folder)


def arc_solver(questions: Questions, right: np.ndarray, rows_of_table: int | None = None) -> Solver:
    """Answers the questions ``right`` (a mask) as they should be, and repeats the others."""
    spec = variant_spec(
        "reduced", vocab=12, seq_len=900, hidden=8, heads=1, puzzle_dim=8, puzzles=rows_of_table or questions.table
    )
    oracle = Oracle(spec, {})
    oracle.tell(
        questions.puzzle_ids[right], questions.inputs[right], questions.labels[right], np.full(right.sum(), 2.0)
    )
    return Solver(oracle, Arc(), SolveOptions(halt="fixed", max_steps=1, slots=16))


def judge(questions: Questions, right: np.ndarray, views: int = VIEWS) -> tuple[EvalReport, dict]:
    data = Data(path="p", task="arc", puzzles=len(questions), answers="data")
    return evaluate_arc(arc_solver(questions, right), questions, views, Subject(model("arc"), data))


def test_a_model_that_is_right_under_augmentation_only_needs_the_votes(questions: Questions) -> None:
    report, file = judge(questions, questions.view > 0)
    assert report.arc is not None
    assert [(at.views, at.pass_at_1, at.solved_at_2) for at in report.arc.by_views] == [(1, 0, 0), (4, 1, 2), (9, 1, 2)]
    assert (report.arc.tasks, report.arc.questions, report.arc.asked) == (2, 3, 3)
    assert (report.count, report.exact_accuracy) == (len(questions), 8 / 9)
    assert (report.views, report.mean_views, report.verified, report.halt) == (VIEWS, VIEWS, 0, "fixed")
    for name in ("00576224", "6ea4a07e"):
        published = json.loads((SAMPLES / f"data/evaluation/{name}.json").read_text())["test"]
        assert [attempt["attempt_1"] for attempt in file[name]] == [pair["output"] for pair in published]
        assert all(set(attempt) == {"attempt_1", "attempt_2"} for attempt in file[name])
    assert ("pass@1, pass@2", "100.00 %, 100.00 %") in rows(report)
    assert "| 4 | 100.00 % | 100.00 % | 2 | 2 |" in markdown(report)


def test_the_second_attempt_counts(questions: Questions) -> None:
    """Four of nine votes are right, the others repeat the question: with all votes only the second attempt is."""
    report, _ = judge(questions, questions.view < 4)
    assert report.arc is not None
    assert [(at.pass_at_1, at.pass_at_2) for at in report.arc.by_views] == [(1, 1), (1, 1), (0, 1)]
    few, file = judge(questions, questions.view < 4, views=1)
    assert few.arc is not None
    assert (few.count, len(few.arc.by_views), len(file)) == (3, 1, 2)


def test_questions_without_answers_are_asked_but_not_scored(questions: Questions) -> None:
    labels = questions.labels.copy()
    first = np.array([name.startswith("00576224") for name in questions.identifiers])
    labels[first] = 0
    report, file = judge(replace(questions, labels=labels), np.ones(len(questions), bool))
    assert report.arc is not None
    assert (report.arc.tasks, report.arc.questions, report.arc.asked, len(file)) == (1, 2, 3, 2)
    assert (report.count, report.exact_accuracy) == ((~first).sum(), 1.0)
    report, file = judge(replace(questions, labels=np.zeros_like(labels)), np.ones(len(questions), bool))
    assert report.arc is not None
    assert (report.arc.by_views, report.arc.questions, report.count, len(file)) == ([], 0, 0, 2)
    assert ("answers", "not known, 3 asked") in rows(report)


def test_single_cells_are_counted_beside_answers_that_take_no_model(questions: Questions) -> None:
    """A right model has all cells; one that repeats the question has what copying has, and the canvas counts more."""
    right, _ = judge(questions, np.ones(len(questions), bool))
    repeated, _ = judge(questions, np.zeros(len(questions), bool))
    assert right.arc is not None
    assert repeated.arc is not None
    assert right.arc.cells is not None
    assert repeated.arc.cells is not None
    assert right.arc.cells.questions == 3
    assert (right.arc.cells.model.grid, right.arc.cells.model.canvas) == (1, 1)
    assert repeated.arc.cells.model == repeated.arc.cells.copied_input == right.arc.cells.copied_input
    assert 0 < repeated.arc.cells.copied_input.grid < 1
    assert any(name == "input copied" for name, _ in rows(right))
    blank, _ = judge(replace(questions, labels=np.zeros_like(questions.labels)), np.ones(len(questions), bool))
    assert blank.arc is not None
    assert blank.arc.cells is None


def test_the_trivial_answers_of_a_small_grid() -> None:
    """Given 2 2 | 2 1, wanted 2 2 2 | 2 1 1: copying has 4 of 6 cells right, one colour 3."""
    given, wanted = encode(np.array([[2, 2], [2, 1]], np.uint8)), encode(np.array([[2, 2, 2], [2, 1, 1]], np.uint8))
    untidy = wanted.copy()
    untidy[-1] = 5  # far outside of the grid
    cells = cell_accuracies(given[None], wanted[None], untidy[None])
    assert cells is not None
    assert (cells.model.grid, cells.model.canvas) == (1, 1)
    assert (cells.copied_input.grid, cells.commonest_colour.grid) == (4 / 6, 3 / 6)
    assert cells.copied_input.canvas == 1 - 5 / 900  # two cells of the grid, three of the end markers around it


def test_a_folder_of_another_build_is_refused(questions: Questions) -> None:
    solver = arc_solver(questions, questions.view > 0, rows_of_table=7)
    data = Data(path="p", task="arc", puzzles=1, answers="data")
    with pytest.raises(UserError, match="puzzle table has 7 rows, p has 46 identifiers"):
        evaluate_arc(solver, questions, 1, Subject(model("arc"), data))


@pytest.mark.parametrize("scenario", [single_stream, offline])
def test_measuring_asks_with_the_puzzles_own_rows(questions: Questions, scenario) -> None:
    solver = arc_solver(questions, np.ones(len(questions), bool))
    asked = Puzzles.of(Arc(), questions.inputs, ids=questions.puzzle_ids, called="p")
    measured = scenario(solver, asked, BenchOptions(duration_s=0.0), lambda share: None)
    count = len(measured.solutions)
    assert (measured.solutions.answers == questions.labels[:count]).all()
    blank = scenario(
        solver, Puzzles.of(Arc(), questions.inputs, called="p"), BenchOptions(duration_s=0.0), lambda share: None
    )
    assert (blank.solutions.answers == questions.inputs[:count]).all()


# -- mazes ------------------------------------------------------------------------------------------------------

MAZE = Maze(3, 4)
GIVEN = "S   " + " #  " + "   G"  # two shortest ways, along either side of the wall, and longer ones
ANSWERS = {
    "label": "Sooo" + " # o" + "   G",
    "another shortest": "S   " + "o#  " + "oooG",
    "through a wall": "S   " + "oo  " + " ooG",
}


def maze_report(task: Maze, given: str, label: str, answer: str) -> EvalReport:
    def cells(text: str) -> np.ndarray:
        return np.array(["?# SGo".index(character) for character in text], np.uint8)[None]

    oracle = Oracle(variant_spec("reduced", vocab=6, seq_len=task.seq_len, hidden=8, heads=1), {})
    oracle.tell(np.zeros(1, np.int32), cells(given), cells(answer), np.zeros(1))
    data = Data(path="p", task=task.name, puzzles=1, answers="data")
    solver = Solver(oracle, task, SolveOptions(max_steps=1, slots=1))
    return evaluate(
        solver,
        Puzzles.of(task, cells(given), cells(label), called="p"),
        Subject(model(task.name), data),
    )


@pytest.mark.parametrize(
    ("answer", "exact", "optimal", "verified"),
    [("label", 1.0, 1, 1), ("another shortest", 0.0, 1, 1), ("through a wall", 0.0, 0, 0)],
)
def test_any_shortest_path_of_a_maze_is_right(answer: str, exact: float, optimal: int, verified: int) -> None:
    report = maze_report(MAZE, GIVEN, ANSWERS["label"], ANSWERS[answer])
    assert (report.exact_accuracy, report.optimal, report.verified, report.false_verified) == (
        exact, optimal, verified, 0,
    )  # fmt: skip
    assert report.by_views[0].optimal == optimal
    assert ("valid and optimal", f"{optimal} of 1") in rows(report)


def test_a_longer_path_is_valid_but_not_optimal() -> None:
    given = "S  " + "   " + "G  "
    report = maze_report(Maze(3, 3), given, "S  " + "o  " + "G  ", "Soo" + "  o" + "Goo")
    assert (report.verified, report.optimal, report.false_verified) == (1, 0, 1)
    assert ("verified", "1 of 1, 1 of them longer than the shortest path") in rows(report)
