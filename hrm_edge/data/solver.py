"""Solver of many puzzles at a time by the compiled search (extra ``data``).

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_board import geometry


class Solved(NamedTuple):
    """Results of the search for N puzzles."""

    answers: Tokens
    """First solution uint8 [N, S]; zeros where there is none."""
    counts: NDArray[np.int64]
    """Number of solutions [N], counted up to 2."""
    guesses: NDArray[np.int64]
    """Number of guesses until the first solution [N]; 0 for a puzzle that singles alone solve."""


def flat_geometry(task: Sudoku) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (peers, cell_units, units) of the board as the flat arrays that the search takes."""
    board = geometry(task)
    return board.peers.ravel(), board.cell_units.ravel(), board.units.ravel()


def solve_many(task: Sudoku, tokens: Tokens) -> Solved:
    """Solve puzzles uint8 [N, S], each until its second solution."""
    from hrm_edge.data import sudoku_numba  # an optional dependency, and slow to import

    rows = len(tokens)
    answers = np.zeros((rows, task.seq_len), np.uint8)
    counts, guesses = np.zeros((2, rows), np.int64)
    # One type for the compiler: no read-only or strided arrays.
    tokens = np.array(tokens, dtype=np.uint8, order="C")
    sudoku_numba.solve(tokens, *flat_geometry(task), task.side, answers, counts, guesses)
    return Solved(answers, counts, guesses)
