"""``hrm-edge solve``: a verified grid or an honest no."""

from __future__ import annotations

import io
import json
import types
from pathlib import Path

import pytest

from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import rounds_needed, singles_puzzles, write_singles_artifact

MINI, NINE = Sudoku(2, 2), Sudoku(3, 3)
WIKIPEDIA = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
WIKIPEDIA_ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
KEYS = {"source", "read_as", "puzzle", "answer", "verified", "steps", "views", "latency_ms"}


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """A 9x9 artifact, a puzzle it solves, its answer, and a proper puzzle that is beyond it."""
    folder = write_singles_artifact(tmp_path_factory.mktemp("nine") / "model", NINE, max_steps=81)
    easy, answers = singles_puzzles(NINE, 1)
    hard, _ = singles_puzzles(NINE, 1, solvable=False)
    return folder, NINE.format(easy[0]), NINE.format(answers[0]), NINE.format(hard[0])


def test_a_typed_puzzle_as_json(run, nine):
    model, puzzle, answer, _ = nine
    done = run("solve", puzzle, "--model", model, "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert list(document) == ["results"]
    (result,) = document["results"]
    assert set(result) == KEYS
    assert (result["source"], result["puzzle"], result["answer"]) == ("argument", puzzle, answer)
    assert (result["verified"], result["views"]) == (True, 1)
    assert result["steps"] == rounds_needed(NINE, NINE.parse(puzzle))
    assert result["latency_ms"] > 0


def test_a_typed_puzzle_for_people(run, nine):
    model, puzzle, answer, _ = nine
    done = run("solve", puzzle.replace("0", "."), "--model", model)
    assert done.code == 0
    assert NINE.pretty(NINE.parse(answer)) in done.out
    assert "solved, verified by the rules (" in done.out
    assert done.out.splitlines()[-1] == f"Next: hrm-edge eval {model} --data PUZZLES"


def test_views_at_the_same_time_are_counted_like_others(run, nine):
    model, _, _, hard = nine
    views = ("--views", 5, "--max-steps", 20, "--parallel-views", 4)
    done = run("solve", hard, "--model", model, *views)
    assert (done.code, "not solved (100 steps, 5 views" in done.out) == (1, True)


def test_a_puzzle_beyond_the_model_is_never_shown_as_solved(run, nine):
    model, _, _, hard = nine
    done = run("solve", hard, "--model", model, "--views", 3, "--max-steps", 20)
    assert done.code == 1
    assert "not solved (60 steps, 3 views" in done.out
    assert "no answer of the model obeyed the rules" in done.out
    assert "│" not in done.out
    assert "Next" not in done.out
    assert "Failed: 1 of 1 puzzles not solved (views tried: 3, steps of each: 20)\n" in done.err
    assert "  try more: --max-steps 81 --views 12, or a stronger model" in done.err
    done = run("solve", hard, "--model", model, "--views", 1, "--json")
    assert done.code == 1
    (result,) = json.loads(done.out)["results"]
    assert result["verified"] is False


def test_a_file_keeps_its_order(run, mini):
    done = run("solve", mini / "plain.txt", "--model", mini / "model", "--json")
    assert done.code == 0
    results = json.loads(done.out)["results"]
    lines = (mini / "plain.txt").read_text().split()
    assert [result["puzzle"] for result in results] == lines
    assert [result["source"] for result in results] == [f"plain.txt:{n}" for n in range(1, 13)]
    assert all(len(result["answer"]) == 16 for result in results)
    done = run("solve", mini / "plain.txt", "--model", mini / "model")
    assert done.out.count("solved, verified") == 12
    assert "plain.txt:12: solved" in done.out


def test_some_of_a_file_unsolved(run, mini):
    short = min(rounds_needed(MINI, MINI.parse(line)) for line in (mini / "plain.txt").read_text().split())
    done = run("solve", mini / "plain.txt", "--model", mini / "model", "--max-steps", short, "--views", 2)
    assert done.code == 1
    solved = done.out.count("solved, verified")
    assert 0 < solved < 12
    assert f"{12 - solved} of 12 puzzles not solved" in done.err
    assert done.out.count("┌") == solved


def test_a_checkpoint_that_has_learned_nothing_says_so(run, trained):
    done = run("solve", "0030400000020100", "--model", trained, "--views", 2)
    assert done.code == 1
    assert "not solved" in done.out


PEOPLES = Path(__file__).parent.parent / "data/puzzle_files"


@pytest.mark.parametrize("path", sorted(PEOPLES.iterdir()), ids=lambda path: path.name)
def test_files_that_people_have_are_solved(run, path):
    """By the shipped model, as a file and as the text itself; what the file was taken for is said."""
    done = run("solve", path, "--json")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)["results"]
    assert (result["puzzle"], result["answer"], result["verified"]) == (WIKIPEDIA, WIKIPEDIA_ANSWER, True)
    assert done.err == f"{path}: read as {result['read_as']}\n"
    typed = run("solve", path.read_bytes().decode("utf-16" if path.name == "utf16.txt" else "utf-8"), "--json")
    assert typed.code == 0, typed.err
    (again,) = json.loads(typed.out)["results"]
    assert again["answer"] == result["answer"]


def test_standard_input(run, monkeypatch):
    from hrm_edge.data import text

    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO((PEOPLES / "grid.txt").read_bytes())))
    text._stdin.cache_clear()
    done = run("solve", "-")
    text._stdin.cache_clear()
    assert done.code == 0, done.err
    assert "standard input: read as grids of 9 lines" in done.err
    assert "standard input:1: solved, verified" in done.out


REFUSALS = [
    ("003040000002010", "read 15 cells, a mini-sudoku puzzle has 16"),
    ("0" * 81, "read 81 cells, a mini-sudoku puzzle has 16"),
    ("00304000000201z0", "bad character 'z' in row 4, column 3"),
    ("1100000000000000", "contradictory givens: two 1s in row 1"),
    ("0000000000000000", "argument: the puzzle has several solutions: row "),
    ("1230000400000000", "argument: the puzzle has no solution"),
    ("puzzles/none.txt", "puzzles/none.txt: no such file"),
    ("none.csv", "none.csv: no such file"),
    ("none.ss", "none.ss: no such file"),
    ("1" * 5000, "read 5000 cells, a mini-sudoku puzzle has 16"),
]


@pytest.mark.parametrize(("puzzle", "words"), REFUSALS, ids=lambda value: value[:25])
def test_bad_puzzles(run, mini, inside, puzzle, words):
    done = run("solve", puzzle, "--model", mini / "model", "--json")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_wrong_size_names_the_model(run, mini):
    err = run("solve", "0" * 81, "--model", mini / "model").err
    assert f"({mini / 'model'} solves mini-sudoku)" in err


def test_a_bad_line_of_a_file_is_named(run, mini, tmp_path):
    (tmp_path / "p.txt").write_text((mini / "plain.txt").read_text() + "0000000000000000\n")
    done = run("solve", tmp_path / "p.txt", "--model", mini / "model")
    assert (done.code, done.out) == (2, "")
    assert "p.txt:13: the puzzle has several solutions" in done.err


def test_the_shipped_model_is_the_default(run):
    """The first of Norvig's easy puzzles: naked singles suffice."""
    givens = "003020600900305001001806400008102900700000008006708200002609500800203009005010300"
    done = run("solve", givens, "--json")
    assert done.code == 0
    (result,) = json.loads(done.out)["results"]
    assert result["verified"]
    assert all(g in ("0", a) for g, a in zip(givens, result["answer"], strict=True))
    assert "(sudoku-lattice solves sudoku)" in run("solve", "0030400000020100").err
    assert "no model 'x'" in run("solve", "0030400000020100", "--model", "x").err
