"""Search for the solutions of a Sudoku: bitmask candidates, naked and hidden singles, then a guess.

The functions of the search take flat sequences of integers and use only indexing and integer arithmetic. Here they run
on Python lists, without a compiler on the edge; ``hrm_edge.data.sudoku_numba`` compiles the same functions with numba
for arrays.

A *level* of ``board`` is ``2 * S + 3 * side + 2`` integers: candidates of each open cell as bits (0 once placed), the
placed bit of each cell, the placed digits of each unit, the number of open cells, and the cell guessed from here. A
guess copies its level to the next one and keeps the other branch in its own, so the depth is at most S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku_board import geometry

if TYPE_CHECKING:
    from hrm_edge.tasks.sudoku import Sudoku

_Ints = Any  # list[int] here, int64 array under numba: same code, no common type

_EDGE_MAX_NODES = 50_000
"""Number of guesses that Python makes in some tens of seconds; ordinary puzzles need fewer than 100."""


def width(side: int) -> int:
    """Return the number of integers in a level."""
    return 2 * side * side + 3 * side + 2


def prepare(tokens: _Ints, board: _Ints, pending: _Ints, side: int) -> int:
    """Fill level 0 from tokens [S], queue the givens in ``pending`` and return their number."""
    cells, full, count = side * side, (1 << side) - 1, 0
    for cell in range(cells):
        board[cell] = full
        board[cells + cell] = 0
        if tokens[cell] > 1:
            board[cell] = 1 << (tokens[cell] - 2)
            pending[count] = cell
            count += 1
    for unit in range(3 * side):
        board[2 * cells + unit] = 0
    board[2 * cells + 3 * side] = cells
    return count


def place(board: _Ints, at: int, pending: _Ints, count: int, peers: _Ints, cell_units: _Ints, side: int) -> int:
    """Place the ``count`` queued cells and the naked singles that follow; return -1 for a contradiction, else 0."""
    cells = side * side
    seen_by = len(peers) // cells
    used, opened = at + 2 * cells, at + 2 * cells + 3 * side
    while count > 0:
        count -= 1
        cell = pending[count]
        bit = board[at + cell]
        # The cell was queued twice and is placed already.
        if bit == 0:
            continue
        board[at + cell] = 0
        board[at + cells + cell] = bit
        board[opened] -= 1
        for kind in range(3):
            board[used + cell_units[3 * cell + kind]] |= bit
        for index in range(seen_by * cell, seen_by * cell + seen_by):
            peer = peers[index]
            left = board[at + peer]
            if left & bit:
                left ^= bit
                if left == 0:
                    return -1
                board[at + peer] = left
                if left & (left - 1) == 0:
                    pending[count] = peer
                    count += 1
    return 0


def hidden_singles(board: _Ints, at: int, pending: _Ints, units: _Ints, side: int, hint: _Ints) -> int:
    """Queue the only cell for a digit of a unit, for all of them; return their number, or -1 for a contradiction.

    ``hint`` [2] becomes (cell, bit) of a digit with exactly two places in a unit, cell -1 if there is none.
    """
    cells, full, count = side * side, (1 << side) - 1, 0
    hint[0] = -1
    for unit in range(3 * side):
        once, twice, more = 0, 0, 0
        for index in range(side * unit, side * unit + side):
            left = board[at + units[index]]
            more |= twice & left
            twice |= once & left
            once |= left
        if once | board[at + 2 * cells + unit] != full:
            return -1
        single = once & ~twice
        pair = twice & ~more
        if single == 0 and (pair == 0 or hint[0] >= 0):
            continue
        for index in range(side * unit, side * unit + side):
            cell = units[index]
            left = board[at + cell]
            alone = left & single
            if alone:
                if alone & (alone - 1):
                    return -1
                if left & (left - 1):  # not queued yet
                    board[at + cell] = alone
                    pending[count] = cell
                    count += 1
            elif hint[0] < 0 and left & pair:
                hint[0] = cell
                hint[1] = (left & pair) & -(left & pair)
    return count


def propagate(
    board: _Ints,
    at: int,
    pending: _Ints,
    count: int,
    peers: _Ints,
    cell_units: _Ints,
    units: _Ints,
    side: int,
    hint: _Ints,
) -> int:
    """Place all queued cells and every single that follows; return the number of open cells, -1 if contradictory."""
    opened = at + 2 * side * side + 3 * side
    while True:
        if place(board, at, pending, count, peers, cell_units, side) < 0:
            return -1
        if board[opened] == 0:
            return 0
        count = hidden_singles(board, at, pending, units, side, hint)
        if count < 0:
            return -1
        if count == 0:
            return int(board[opened])


def choose(board: _Ints, at: int, side: int, hint: _Ints) -> None:
    """Set ``hint`` [2] to the next guess (cell, bit).

    It is a cell with two candidates, else the digit with two places that ``hint`` holds, else the cell with the fewest
    candidates.
    """
    fewest, at_cell = side + 1, 0
    for cell in range(side * side):
        left = board[at + cell]
        if left == 0:
            continue
        size = 0
        rest = left
        while rest and size < fewest:
            rest &= rest - 1
            size += 1
        if size < fewest:
            fewest, at_cell = size, cell
            if size == 2:
                break
    if fewest > 2 and hint[0] >= 0:
        return
    hint[0] = at_cell
    hint[1] = board[at + at_cell] & -board[at + at_cell]


def branch(board: _Ints, at: int, step: int, cell: int, bit: int, pending: _Ints) -> None:
    """Copy the level at ``at`` to the next one and queue ``bit`` for ``cell``; this one keeps the other branch."""
    for index in range(step):
        board[at + step + index] = board[at + index]
    board[at + step - 1] = cell
    board[at + cell] ^= bit
    board[at + step + cell] = bit
    pending[0] = cell


def other_branch(board: _Ints, at: int, step: int, pending: _Ints) -> int:
    """Queue the cells that the other branch at ``at`` forces and return their number."""
    cell = board[at + step - 1]
    left = board[at + cell]
    if left & (left - 1):
        return 0
    pending[0] = cell
    return 1


def read_level(board: _Ints, at: int, side: int, grids: _Ints, start: int) -> None:
    """Write the placed digits of a solved level as tokens to ``grids[start : start + S]``."""
    cells = side * side
    for cell in range(cells):
        token, rest = 1, board[at + cells + cell]
        while rest:
            rest >>= 1
            token += 1
        grids[start + cell] = token


def search(
    board: _Ints, pending: _Ints, count: int, peers: _Ints, cell_units: _Ints, units: _Ints, side: int,
    limit: int, max_nodes: int, grids: _Ints, hint: _Ints,
) -> tuple[int, int, int, bool]:  # fmt: skip
    """Search from the prepared level 0 until ``limit`` solutions or ``max_nodes`` guesses.

    Writes the solutions as tokens into ``grids`` [limit * S]. Returns their number, the guesses made until the first
    of them, the guesses made in all, and whether the budget ran out before the search ended.
    """
    cells, step = side * side, width(side)
    solutions, guesses, nodes, level = 0, 0, 0, 0
    while True:
        at = level * step
        left = propagate(board, at, pending, count, peers, cell_units, units, side, hint)
        if left > 0:
            if nodes >= max_nodes:
                return solutions, guesses, nodes, True
            nodes += 1
            choose(board, at, side, hint)
            branch(board, at, step, hint[0], hint[1], pending)
            level += 1
            count = 1
            continue
        if left == 0:
            if solutions == 0:
                guesses = nodes
            read_level(board, at, side, grids, solutions * cells)
            solutions += 1
            if solutions == limit:
                return solutions, guesses, nodes, False
        if level == 0:
            return solutions, (guesses if solutions else nodes), nodes, False
        level -= 1
        count = other_branch(board, level * step, step, pending)


class _Searched(NamedTuple):
    """Result of a search."""

    solutions: Tokens
    """Solutions [n, S], at most as many as were asked for."""
    guesses: int
    exhausted: bool
    """Whether the guesses allowed were spent before the search ended, so that there may be more."""


def find_solutions(task: Sudoku, tokens: Tokens, limit: int = 2, max_nodes: int = _EDGE_MAX_NODES) -> _Searched:
    """Find up to ``limit`` solutions of tokens [S] in plain Python, with at most ``max_nodes`` guesses."""
    board_geometry, side, cells = geometry(task), task.side, task.seq_len
    peers, cell_units, units = (
        array.ravel().tolist() for array in (board_geometry.peers, board_geometry.cell_units, board_geometry.units)
    )
    board, pending, solutions = [0] * ((cells + 1) * width(side)), [0] * (2 * cells), [0] * (limit * cells)
    count = prepare(tokens.tolist(), board, pending, side)
    number, _, nodes, exhausted = search(
        board, pending, count, peers, cell_units, units, side, limit, max_nodes, solutions, [-1, 0]
    )
    return _Searched(np.array(solutions).astype(np.uint8).reshape(limit, cells)[:number], nodes, exhausted)


def require_unique(task: Sudoku, tokens: Tokens, max_nodes: int = _EDGE_MAX_NODES) -> Tokens | None:
    """Return the only solution [S] of tokens [S]. Raises ``UserError`` if there is none or another one.

    Returns None if ``max_nodes`` guesses did not decide it (boards beyond 9x9): the puzzle may be a proper one.
    """
    task.check_givens(tokens)
    searched = find_solutions(task, tokens, 2, max_nodes)
    return None if searched.exhausted and len(searched.solutions) < 2 else only_solution(task, searched.solutions)


def only_solution(task: Sudoku, solutions: Tokens) -> Tokens:
    """Return the one solution [S] of ``solutions`` [n, S]; ``UserError`` where there is none or another one."""
    if len(solutions) > 1:
        raise _several_solutions(task, solutions[0], solutions[1])
    if not len(solutions):
        raise _no_solution()
    return solutions[0]


def _no_solution() -> UserError:
    """Return the error for a puzzle whose givens leave no solution."""
    return UserError("the puzzle has no solution", "one of its givens is wrong: check them against the original")


class SeveralSolutions(UserError):
    """Error of a puzzle with more than one solution: a given is missing, or the puzzle has more rules than Sudoku's."""


def _several_solutions(task: Sudoku, first: Tokens, second: Tokens) -> SeveralSolutions:
    """Return the error for a puzzle with two solutions [S]; it names a cell where they differ."""
    cell = int(np.nonzero(first != second)[0][0])
    one, other = sorted(task.format(solution)[cell] for solution in (first, second))
    return SeveralSolutions(
        f"the puzzle has several solutions: row {cell // task.side + 1}, column {cell % task.side + 1} "
        f"can be {one} or {other}",
        "a given is missing: check it against the original. Puzzles with more rules than Sudoku's, such as diagonals "
        "(Sudoku-X) or extra boxes (Hyper-Sudoku), are not supported",
    )
