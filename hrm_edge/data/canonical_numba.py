"""Smallest equivalent of a Sudoku, compiled by numba (extra ``data``): import it inside functions only.

The canonical form is the lexicographically smallest, with blank = 0, of all grids that relabelling, transposing and
shuffling make from a puzzle, so any two equivalent puzzles share it. A row's key is its cells as hexadecimal digits
(side <= 9), so comparing keys compares rows.

The search fixes the top row and the order of the columns, then adds one row after another, keeping only rows equal to
the best grid so far or better. Digits are numbered in order of appearance, which is the smallest relabelling. The top
row's key depends only on its pattern of clues (its digits are numbered 1, 2, 3 ...), so only rows that can reach the
smallest pattern are tried, with the column orders that reach it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

import hrm_edge.data.sudoku_numba  # noqa: F401 - it says where numba keeps machine code

_WORST = np.int64(1) << 62


@register_jitable
def _row_key(grid: Any, row: int, order: Any, side: int, labels: int, used: int, bound: int) -> tuple[int, int, int]:
    """Return (key, labels, used) of a row under a column order; stop early with a key above ``bound``.

    ``labels`` packs the new number of each old digit in 4 bits; ``used`` counts the numbers in use.
    """
    key = np.int64(0)
    for place in range(side):
        digit = grid[row * side + order[place]]
        number = np.int64(0)
        if digit:
            number = (labels >> (4 * digit)) & 15
            if number == 0:
                used += 1
                number = used
                labels |= number << (4 * digit)
        key = key << 4 | number
        if key > bound >> (4 * (side - 1 - place)):
            return _WORST, labels, used
    return key, labels, used


@register_jitable
def _smallest_pattern(grid: Any, row: int, side: int, box_cols: int) -> int:
    """Return the smallest pattern of clues (bits, first cell highest) that any column order gives a row."""
    boxes = side // box_cols
    counts = np.zeros(boxes, np.int64)
    for place in range(side):
        if grid[row * side + place]:
            counts[place // box_cols] += 1
    counts.sort()
    pattern = 0
    for box in range(boxes):
        pattern = pattern << box_cols | ((1 << counts[box]) - 1)
    return pattern


@register_jitable
def _fits(grid: Any, row: int, order: Any, side: int, pattern: int) -> bool:
    """Return whether this column order gives the row's clues the pattern ``pattern``."""
    for place in range(side):  # noqa: SIM110 - numba compiles no generator expressions
        if (grid[row * side + order[place]] != 0) != (pattern >> (side - 1 - place) & 1):
            return False
    return True


@register_jitable
def _descend(grid: Any, top: int, order: Any, side: int, box_rows: int, best: Any, work: Any) -> None:
    """Lower ``best`` [side] to the smallest rows reachable with this top row and column order.

    ``work`` [4, side + 1] holds, per depth: the row to try next, the rows used, the labels, the digits used.
    """
    depth = 0
    work[0, 0], work[1, 0], work[2, 0], work[3, 0] = top, 0, 0, 0
    while depth >= 0:
        row, taken = work[0, depth], work[1, depth]
        if row >= side or (depth == 0 and row > top):
            depth -= 1
            continue
        work[0, depth] += 1
        band = row // box_rows
        # Finish a band before the next one begins.
        inside = taken >> (band * box_rows) & ((1 << box_rows) - 1)
        if taken >> row & 1 or (depth % box_rows != 0) != (inside != 0):
            continue
        key, labels, used = _row_key(grid, row, order, side, work[2, depth], work[3, depth], best[depth])
        if key > best[depth]:
            continue
        if key < best[depth]:
            best[depth] = key
            for deeper in range(depth + 1, side):
                best[deeper] = _WORST
        if depth + 1 < side:
            depth += 1
            work[0, depth], work[1, depth], work[2, depth], work[3, depth] = 0, taken | 1 << row, labels, used


@njit(cache=True)
def canonical(tokens, orders, transposed, side, box_rows, box_cols, out):  # type: ignore[no-untyped-def]
    """Write the canonical form of tokens [N, S] to out [N, S].

    ``orders`` [O, side] holds all column orders; ``transposed`` says whether grids may be transposed.
    """
    cells, sides = side * side, 2 if transposed else 1
    grids = np.zeros((2, cells), np.int64)
    best, work = np.zeros(side, np.int64), np.zeros((4, side + 1), np.int64)
    for index in range(len(tokens)):
        for cell in range(cells):
            digit = np.int64(tokens[index, cell]) - 1
            grids[0, cell] = max(digit, 0)
            grids[1, cell % side * side + cell // side] = max(digit, 0)
        pattern = 1 << side
        for flip in range(sides):
            for row in range(side):
                pattern = min(pattern, _smallest_pattern(grids[flip], row, side, box_cols))
        best[:] = _WORST
        for flip in range(sides):
            for top in range(side):
                if _smallest_pattern(grids[flip], top, side, box_cols) != pattern:
                    continue
                for order in range(len(orders)):
                    if _fits(grids[flip], top, orders[order], side, pattern):
                        _descend(grids[flip], top, orders[order], side, box_rows, best, work)
        for row in range(side):
            for place in range(side):
                out[index, row * side + place] = (best[row] >> (4 * (side - 1 - place)) & 15) + 1
