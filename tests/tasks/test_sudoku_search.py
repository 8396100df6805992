"""The solver in plain Python: against brute force, and what it says about bad puzzles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import find_solutions, require_unique

PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."  # A. Inkala 2012


@pytest.fixture(scope="module")
def all_grids() -> np.ndarray:
    """All 4x4 grids by trying every combination of four rows: 288 of them."""
    task = Sudoku(2, 2)
    rows = list(itertools.permutations((2, 3, 4, 5)))
    grids = np.array([sum(four, ()) for four in itertools.product(rows, repeat=4)]).astype(np.uint8)
    return grids[task.verify(np.ones_like(grids), grids)]


def test_counts_match_brute_force(all_grids: np.ndarray) -> None:
    assert len(all_grids) == 288
    task, rng = Sudoku(2, 2), np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        puzzle = np.where(rng.random(16) < rng.uniform(0.4, 0.9), 1, all_grids[rng.integers(288)]).astype(np.uint8)
        fitting = all_grids[((puzzle == 1) | (puzzle == all_grids)).all(axis=1)]
        found, _, exhausted = find_solutions(task, puzzle, limit=300)
        assert (len(found), exhausted) == (len(fitting), False)
        assert (found[0] == fitting).all(axis=1).any()
        seen.add(min(len(found), 3))
    assert seen == {1, 2, 3}


def test_random_givens_without_a_solution_are_seen(all_grids: np.ndarray) -> None:
    task, rng = Sudoku(2, 2), np.random.default_rng(1)
    counts = []
    for _ in range(300):
        puzzle = np.where(rng.random(16) < 0.7, 1, rng.integers(2, 6, 16)).astype(np.uint8)
        counts.append(len(find_solutions(task, puzzle, limit=300).solutions))
        assert counts[-1] == ((puzzle == 1) | (puzzle == all_grids)).all(axis=1).sum()
    assert 0 in counts
    assert max(counts) > 0


@pytest.mark.parametrize(
    "text", [PUZZLE, HARD, "." * 17 + "1.....2.3......3.2...1.4......5....6..3......4.7..8...962...7..."]
)
def test_proper_puzzles(text: str) -> None:
    task = get_task("sudoku")
    puzzle = task.parse(text)
    answer = require_unique(task, puzzle)
    assert answer is not None
    assert task.verify(puzzle, answer)
    assert text != PUZZLE or task.format(answer) == ANSWER


def test_several_solutions_name_a_cell() -> None:
    task = get_task("sudoku")
    with pytest.raises(UserError, match=r"several solutions: row \d, column \d can be [1-9] or [1-9]\n"):
        require_unique(task, task.parse("." * 81))
    answers = np.array([[2, 3, 4, 5], [4, 5, 2, 3], [3, 2, 5, 4], [5, 4, 3, 2]], np.uint8).ravel()
    puzzle = answers.copy()
    puzzle[[0, 1, 8, 9]] = 1  # 1 2 / 2 1: the only two ways
    with pytest.raises(UserError, match="row 1, column 1 can be 1 or 2"):
        require_unique(Sudoku(2, 2), puzzle)


def test_no_solution() -> None:
    task = get_task("sudoku")
    with pytest.raises(UserError, match="no solution"):
        require_unique(task, task.parse("12345678." + "." * 8 + "9" + "." * 63))
    clash = np.ones(81, np.uint8)
    clash[:2] = 6
    assert not len(find_solutions(task, clash).solutions)
    with pytest.raises(UserError, match="two 5s in row 1"):
        require_unique(task, clash)


def test_budget() -> None:
    task = get_task("sudoku")
    searched = find_solutions(task, task.parse(HARD), max_nodes=3)
    assert (len(searched.solutions), searched.exhausted) == (0, True)
    assert require_unique(task, task.parse(HARD), max_nodes=3) is None


def test_larger_board() -> None:
    task = Sudoku(4, 4)
    row, column = np.divmod(np.arange(256), 16)
    answer = ((row % 4 * 4 + row // 4 + column) % 16 + 2).astype(np.uint8)
    puzzle = np.where(np.random.default_rng(0).random(256) < 0.4, 1, answer).astype(np.uint8)
    found, _, exhausted = find_solutions(task, puzzle)
    assert not exhausted
    assert task.verify(puzzle, found[0])
