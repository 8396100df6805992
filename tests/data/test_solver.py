"""The compiled solver: the same answers as the Python one."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.data.solver import solve_many
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import find_solutions

pytest.importorskip("numba")

PUZZLES = [
    "530070000600195000098000060800060003400803001700020006060000280000419005000080079",
    "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    ".................1.....2.3......3.2...1.4......5....6..3......4.7..8...962...7...",
    "12345678.........9...............................................................",
    ".................................................................................",
]


def test_agrees_with_plain_python() -> None:
    task = get_task("sudoku")
    puzzles = np.stack([task.parse(text) for text in PUZZLES])
    solved = solve_many(task, puzzles)
    assert solved.counts.tolist() == [1, 1, 1, 0, 2]
    assert solved.guesses[0] == 0
    assert solved.guesses[1] > 3
    for row, puzzle in enumerate(puzzles):
        found = find_solutions(task, puzzle).solutions
        assert len(found) == solved.counts[row]
        assert (solved.answers[row] == (found[0] if len(found) else 0)).all()
    assert task.verify(puzzles, solved.answers).tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("task", [Sudoku(2, 2), Sudoku(2, 3)], ids=lambda task: task.name)
def test_other_sizes(task: Sudoku) -> None:
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(task.seq_len), task.side)
    answer = ((row % task.box_rows * task.box_cols + row // task.box_rows + column) % task.side + 2).astype(np.uint8)
    puzzles = np.where(rng.random((50, task.seq_len)) < 0.6, 1, answer).astype(np.uint8)
    solved = solve_many(task, puzzles)
    assert task.verify(puzzles, solved.answers).all()
    assert {1, 2} == set(solved.counts.tolist())
