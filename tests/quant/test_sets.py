"""Calibration and check sets: what ships is as listed, mixed and apart from what is measured; refusals."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data.canonical import identities
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.quant import sets
from hrm_edge.quant.sets import CALIBRATION, puzzle_sets, shipped_set
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from tests.artifacts import singles_puzzles

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)


def test_the_shipped_set_is_mixed_in_every_head_and_right():
    path = shipped_set("sudoku")
    assert path is not None
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert Counter(row["source"] for row in rows) == dict.fromkeys(("easy", "medium", "hard", "extreme"), 128)
    assert min(Counter(row["source"] for row in rows[:128]).values()) >= 20  # what an export calibrates on
    for row in rows[::64]:
        assert NINE.format(require_unique(NINE, NINE.parse(row["question"]))) == row["answer"]


def test_no_symmetry_links_it_to_what_is_measured():
    path, sample = shipped_set("sudoku"), sample_file("sudoku")
    assert path is not None
    assert sample is not None
    own, shipped = (identities(NINE, load_puzzles(file, NINE).givens) for file in (path, sample))
    assert not np.isin(shipped, own).any()
    assert len(np.unique(own)) == len(own)


def test_a_changed_set_is_not_trusted(tmp_path, monkeypatch):
    for file in CALIBRATION.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(sets, "CALIBRATION", tmp_path)
    assert shipped_set("sudoku") == tmp_path / "sudoku.csv"
    with (tmp_path / "sudoku.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(UserError, match=r"sudoku.csv: its sha256 is not the one in sets.json"):
        shipped_set("sudoku")


def test_by_default_sudoku_calibrates_on_what_ships():
    calibration, check = puzzle_sets(None, "sudoku", calibrate_on=24, check_on=16)
    assert calibration is not None
    assert (len(calibration), calibration.source.path) == (24, "calibration/sudoku.csv")
    assert (len(check), check.source.path) == (16, "the package's own puzzles")


def puzzle_file(path: Path, puzzles: np.ndarray, task: Sudoku) -> Path:
    path.write_text("".join(f"{task.format(row)}\n" for row in puzzles))
    return path


def turned(puzzles: np.ndarray) -> np.ndarray:
    """The same puzzles after a symmetry: transposed, with other digits."""
    side = NINE.side
    other = puzzles.reshape(-1, side, side).transpose(0, 2, 1).reshape(len(puzzles), -1)
    return np.where(other > 1, (other - 2 + 4) % side + 2, other).astype(np.uint8)


@pytest.fixture(scope="module")
def forty() -> np.ndarray:
    return singles_puzzles(NINE, 40)[0]


CASES = {
    "missing": (lambda p, q: p / "none", "--calibration .*none: there is no such file or folder"),
    "too small": (
        lambda p, q: puzzle_file(p / "a.txt", q[:10], NINE),
        "the calibration set has 5 puzzles, at least 16 are needed",
    ),
    "of another task": (
        lambda p, q: puzzle_file(p / "a.txt", singles_puzzles(MINI, 40)[0], MINI),
        "a.txt, line 1, column 10: read 16 cells, a sudoku puzzle has 81",
    ),
    "overlapping": (
        lambda p, q: puzzle_file(p / "a.txt", np.concatenate([q[:20], q[3:23]]), NINE),
        r"17 of 20 puzzles of a.txt, second half are in a.txt, first half too .*number 1\n",
    ),
    "overlapping by a symmetry": (
        lambda p, q: puzzle_file(p / "a.txt", np.concatenate([q[:20], q[20:39], turned(q[5:6])]), NINE),
        r"1 of 20 puzzles .* too \(the same or a symmetry of it\).*number 20\n",
    ),
    "empty": (lambda p, q: puzzle_file(p / "a.txt", q[:0], NINE), "a.txt"),
}


@pytest.mark.parametrize(("make", "words"), CASES.values(), ids=CASES.keys())
def test_refusals(tmp_path, forty, make, words):
    path = make(tmp_path, forty)
    with pytest.raises(UserError, match=words) as error:
        puzzle_sets(path, "sudoku", calibrate_on=128, check_on=64)
    assert error.value.hint


def test_a_task_without_a_set():
    with pytest.raises(UserError, match=r"no set for mini-sudoku\nname a data folder or file: --calibration PATH"):
        puzzle_sets(None, "mini-sudoku", calibrate_on=128, check_on=8)
    with pytest.raises(UserError, match=r"no puzzles of maze to check on\nname a set: --calibration PATH"):
        puzzle_sets(None, "maze", calibrate_on=0, check_on=8)
