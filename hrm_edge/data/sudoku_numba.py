"""Search of ``hrm_edge.tasks.sudoku_search`` compiled by numba, with the loops around it.

Needs the extra ``data``: import this module inside functions only. Machine code is cached in the sources' folder, or in
the user's cache where that folder is read-only: only the first run waits for the compiler (about 20 s).

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit
from numba.extending import register_jitable

from hrm_edge.files import writable_cache
from hrm_edge.tasks import sudoku_search

# numba also reads .numba_config.yaml in the current folder, which could name a folder of machine code to load: only the
# user's own variable counts.
config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR", "")
# For a read-only installation numba must be given another folder.
if not os.access(Path(__file__).parent, os.W_OK):
    config.CACHE_DIR = str(writable_cache("numba"))

for _function in (
    sudoku_search.width,
    sudoku_search.prepare,
    sudoku_search.place,
    sudoku_search.hidden_singles,
    sudoku_search.propagate,
    sudoku_search.choose,
    sudoku_search.branch,
    sudoku_search.other_branch,
    sudoku_search.read_level,
):
    register_jitable(_function)

width, prepare, propagate = sudoku_search.width, sudoku_search.prepare, sudoku_search.propagate
branch, other_branch, read_level = sudoku_search.branch, sudoku_search.other_branch, sudoku_search.read_level
search = njit(cache=True)(sudoku_search.search)

NO_BUDGET = 1 << 62
_FILL_CHOICES = 20  # per row of the board, before a random grid is restarted
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64: Steele, Lea, Flood 2014
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@register_jitable
def draw(state: Any) -> Any:
    """Return the next 64 random bits of splitmix64; ``state`` is uint64 [1]."""
    state[0] += GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@register_jitable
def below(state: Any, bound: int) -> int:
    """Return a random integer in [0, bound); the bias of the remainder is below 2^-24 for our bounds."""
    return np.int64(draw(state) >> np.uint64(33)) % bound


@register_jitable
def _random_choice(board: Any, at: int, side: int, hint: Any, state: Any) -> None:
    """Set ``hint`` to a random candidate of a random cell among those with the fewest."""
    fewest, ties = side + 1, 0
    for cell in range(side * side):
        rest, size = board[at + cell], 0
        while rest:
            rest &= rest - 1
            size += 1
        if size == 0 or size > fewest:
            continue
        ties = ties + 1 if size == fewest else 1
        fewest = size
        if below(state, ties) == 0:
            hint[0] = cell
    rest = board[at + hint[0]]
    for _ in range(below(state, fewest)):
        rest &= rest - 1
    hint[1] = rest & -rest


@register_jitable
def _fill(
    state: Any, board: Any, pending: Any, peers: Any, cell_units: Any, units: Any, side: int, hint: Any, grid: Any
) -> None:
    """Fill ``grid`` [S] with the tokens of a random full grid, by random choices and backtracking."""
    cells, step = side * side, width(side)
    while True:
        for cell in range(cells):
            grid[cell] = 1
        count, level, choices = prepare(grid, board, pending, side), 0, 0
        # On large boards an unlucky start can be hopeless: it is given up after some choices.
        while choices < _FILL_CHOICES * side:
            at = level * step
            left = propagate(board, at, pending, count, peers, cell_units, units, side, hint)
            if left == 0:
                read_level(board, at, side, grid, 0)
                return
            if left > 0:
                choices += 1
                _random_choice(board, at, side, hint, state)
                branch(board, at, step, hint[0], hint[1], pending)
                level += 1
                count = 1
            else:
                level -= 1  # never below 0: an empty grid has solutions
                count = other_branch(board, level * step, step, pending)


@register_jitable
def _other_digit(
    puzzle: Any, cell: int, token: int, board: Any, pending: Any, peers: Any, cell_units: Any, units: Any, side: int,
    max_nodes: int, solutions: Any, hint: Any,
) -> bool:  # fmt: skip
    """Return whether ``puzzle`` [S] has a solution with another digit than ``token`` at the blank ``cell``.

    Returns True where ``max_nodes`` guesses do not decide it.
    """
    queued = prepare(puzzle, board, pending, side)
    board[cell] ^= 1 << (token - 2)
    if board[cell] & (board[cell] - 1) == 0:
        pending[queued] = cell
        queued += 1
    count, _, _, exhausted = search(
        board, pending, queued, peers, cell_units, units, side, 1, max_nodes, solutions, hint
    )
    return count > 0 or exhausted


def _solve(source: int) -> Any:
    """Compile ``solve``.

    ``source`` identifies the text of the search and so becomes part of the cache's key: numba itself checks only this
    file's date to see whether the machine code is stale.
    """

    @njit(cache=True)
    def solve(tokens, peers, cell_units, units, side, answers, counts, guesses):  # type: ignore[no-untyped-def]
        """Solve tokens [N, S], each until its second solution, into answers [N, S], counts [N] and guesses [N]."""
        _ = source
        cells = side * side
        board = np.zeros((cells + 1) * width(side), np.int64)
        pending, hint = np.zeros(2 * cells, np.int64), np.zeros(2, np.int64)
        solutions = np.zeros(2 * cells, np.int64)
        for row in range(len(tokens)):
            queued = prepare(tokens[row], board, pending, side)
            counts[row], guesses[row], _nodes, _exhausted = search(
                board, pending, queued, peers, cell_units, units, side, 2, NO_BUDGET, solutions, hint
            )
            if counts[row]:
                for cell in range(cells):
                    answers[row, cell] = solutions[cell]

    return solve


def _generate(source: int) -> Any:
    """Compile ``generate``; ``source`` as in ``_solve``."""

    @njit(cache=True)
    def generate(seed, first, fewest, most, max_nodes, peers, cell_units, units, side, puzzles, answers, guesses):  # type: ignore[no-untyped-def]
        """Fill puzzles [N, S] with the puzzles number ``first`` … of a seed, answers [N, S] and guesses [N].

        Each is a random full grid from which cells are removed in random order while its solution stays unique, down to
        a number of clues drawn from ``fewest`` … ``most``. A clue is kept where ``max_nodes`` guesses do not decide.
        Puzzle n depends only on (seed, n).
        """
        _ = source
        cells = side * side
        board = np.zeros((cells + 1) * width(side), np.int64)
        pending, hint = np.zeros(2 * cells, np.int64), np.zeros(2, np.int64)
        solution, order = np.zeros(2 * cells, np.int64), np.zeros(cells, np.int64)
        state = np.zeros(1, np.uint64)
        for row in range(len(puzzles)):
            state[0] = seed
            state[0] = draw(state) ^ np.uint64(first + row)
            state[0] = draw(state)
            _fill(state, board, pending, peers, cell_units, units, side, hint, solution)
            for cell in range(cells):
                answers[row, cell] = puzzles[row, cell] = solution[cell]
                order[cell] = cell
            left, wanted = cells, fewest + below(state, most - fewest + 1)
            for index in range(cells):
                if left <= wanted:
                    break
                other = index + below(state, cells - index)
                order[index], order[other] = order[other], order[index]
                cell = order[index]
                token = puzzles[row, cell]
                puzzles[row, cell] = 1
                if _other_digit(
                    puzzles[row], cell, token, board, pending, peers, cell_units, units, side, max_nodes, solution, hint
                ):
                    puzzles[row, cell] = token
                else:
                    left -= 1
            queued = prepare(puzzles[row], board, pending, side)
            _count, guesses[row], _nodes, _exhausted = search(
                board, pending, queued, peers, cell_units, units, side, 1, NO_BUDGET, solution, hint
            )

    return generate


_SOURCE = zlib.crc32(Path(sudoku_search.__file__).read_bytes())
solve, generate = _solve(_SOURCE), _generate(_SOURCE)
