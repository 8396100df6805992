"""The search of ``hrm_edge.tasks.sudoku_search``, compiled by numba (extra ``train``), over many puzzles at a time.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks import sudoku_search
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import Sudoku, geometry

NO_BUDGET = 1 << 62


class Solved(NamedTuple):
    """What the search found for N puzzles."""

    answers: Tokens
    """First solution [N, S]; zeros where there is none."""
    counts: NDArray[np.int64]
    """Solutions [N], counted up to 2."""
    guesses: NDArray[np.int64]
    """Guesses until the first solution [N]: 0 for a puzzle of singles."""


def numba() -> Any:
    """The numba module; ``UserError`` when the extra is missing."""
    try:
        import numba
    except ImportError as error:
        raise UserError("numba is not installed", "pip install 'hrm-edge[train]'") from error
    return numba


@functools.cache
def compiled_search() -> Callable[..., Any]:
    """``search`` compiled; its machine code is cached beside the module, so only the first use ever waits."""
    compiler = numba()
    for function in ("width", "prepare", "place", "hidden_singles", "propagate", "choose"):
        compiler.extending.register_jitable(getattr(sudoku_search, function))
    return compiler.njit(cache=True)(sudoku_search.search)


@functools.cache
def _compiled_batch() -> Callable[..., Any]:
    search, compiler = compiled_search(), numba()
    prepare, width = sudoku_search.prepare, sudoku_search.width

    @compiler.njit
    def batch(tokens, peers, cell_units, units, side, max_nodes, answers, counts, guesses):  # type: ignore[no-untyped-def]
        cells = side * side
        board = np.zeros((cells + 1) * width(side), np.int64)
        pending, hint = np.zeros(2 * cells, np.int64), np.zeros(2, np.int64)
        found = np.zeros(2 * cells, np.int64)
        for row in range(len(tokens)):
            queued = prepare(tokens[row], board, pending, side)
            counts[row], guesses[row], _, _ = search(
                board, pending, queued, peers, cell_units, units, side, 2, max_nodes, found, hint
            )
            if counts[row]:
                answers[row] = found[:cells]

    return batch


def flat_geometry(task: Sudoku) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(peers, cell_units, units) of the board as the search takes them."""
    board = geometry(task)
    return board.peers.ravel(), board.cell_units.ravel(), board.units.ravel()


def solve_many(task: Sudoku, tokens: Tokens) -> Solved:
    """Solve puzzles uint8 [N, S], each until its second solution."""
    rows = len(tokens)
    answers = np.zeros((rows, task.seq_len), np.uint8)
    counts, guesses = np.zeros((2, rows), np.int64)
    _compiled_batch()(tokens, *flat_geometry(task), task.side, NO_BUDGET, answers, counts, guesses)
    return Solved(answers, counts, guesses)
