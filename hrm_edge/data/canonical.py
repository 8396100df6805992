"""Equivalence of puzzles under symmetries: canonical forms, and keys to compare two sets by.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import functools
import itertools
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.sudoku import Sudoku

_MAX_SIDE = 9
"""Largest side of a canonical form: a 16x16 board has 8 million column orders."""


def has_canonical(task: Task) -> TypeGuard[Sudoku]:
    """Return whether this task's puzzles have a canonical form."""
    return task.family == "sudoku" and task.seq_len <= _MAX_SIDE**2


def canonical(task: Sudoku, tokens: Tokens) -> Tokens:
    """Return the canonical form of tokens uint8 [N, S] or [S], which two puzzles share exactly if they are equivalent.

    It is the lexicographically smallest of all relabelled, transposed and shuffled grids; 3,359,232 x 9! at 9x9. Raises
    ``UserError`` for a task that has none.
    """
    if not has_canonical(task):
        raise UserError(f"no canonical form for {task.name}", f"boards up to {_MAX_SIDE}x{_MAX_SIDE} have one")
    from hrm_edge.data.canonical_numba import canonical as compiled  # the compiler is an optional dependency

    rows = np.array(np.atleast_2d(tokens), dtype=np.uint8, order="C")
    out = np.empty_like(rows)
    square = task.box_rows == task.box_cols
    compiled(rows, _column_orders(task), square, task.side, task.box_rows, task.box_cols, out)
    return out.reshape(np.shape(tokens))


def identities(task: Task, tokens: Tokens) -> NDArray[np.void]:
    """Return one comparable key per puzzle of [N, S] (for ``np.isin``, ``np.unique``).

    It is the puzzle's symmetry class or, where it has none, the puzzle itself.
    """
    return keys(canonical(task, tokens) if has_canonical(task) else tokens)


def keys(tokens: Tokens) -> NDArray[np.void]:
    """Return one comparable key per row of [N, S]."""
    rows = np.ascontiguousarray(tokens, dtype=np.uint8)
    return rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]


@functools.cache
def _column_orders(task: Sudoku) -> NDArray[np.int64]:
    """Return all orders of the columns that keep stacks together, int64 [O, side]; O = 1296 at 9x9."""
    stacks = [range(start, start + task.box_cols) for start in range(0, task.side, task.box_cols)]
    orders = [
        sum(inner, ())
        for outer in itertools.permutations(stacks)
        for inner in itertools.product(*(itertools.permutations(stack) for stack in outer))
    ]
    return np.array(orders)
