"""Search for mazes with a long shortest path, compiled by numba (extra ``data``): import it inside functions only.

Axes: N mazes, R rows, C columns, S = R·C cells. Boards here have a border of walls, (R + 2)·(C + 2) cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hrm_edge.data.sudoku_numba import below, draw
from hrm_edge.tasks.maze import GOAL, OPEN, START, WALL


@njit(cache=True)
def search_mazes(  # type: ignore[no-untyped-def]
    seed, first, tries, rows, columns, fewest_walls, most_walls, min_length, mazes
) -> tuple[int, int]:
    """Fill mazes [N, S] with the first ones among candidates number ``first`` … ``first + tries - 1`` of a seed.

    A candidate has ``fewest_walls`` … ``most_walls`` walls and a start at random cells. It is kept if some cell is at
    least ``min_length`` moves from the start; the goal is a random one of these. Candidate n depends only on (seed, n).
    Returns (mazes kept, candidates tried); it ends early when ``mazes`` is full.
    """
    cells, line = rows * columns, columns + 2
    state, order = np.zeros(1, np.uint64), np.empty(cells, np.int64)
    place = np.empty(cells, np.int64)  # index of each cell on the board with a border
    for cell in range(cells):
        order[cell] = cell
        place[cell] = (cell // columns + 1) * line + cell % columns + 1
    # A cell holds the number + 1 of the candidate whose search has yet to visit it.
    free = np.zeros((rows + 2) * line, np.int64)
    queue = np.empty(cells, np.int64)
    kept = 0
    for number in range(tries):
        state[0] = seed
        state[0] = draw(state) ^ np.uint64(first + number)
        state[0] = draw(state)
        walls = fewest_walls + below(state, most_walls - fewest_walls + 1)
        for cell in range(cells):
            order[cell] = cell
        # The first cells of a random order are walls, the next one is the start.
        for index in range(walls + 1):
            other = index + below(state, cells - index)
            order[index], order[other] = order[other], order[index]
        for index in range(walls, cells):
            free[place[order[index]]] = number + 1
        far, end = _far_cells(free, number + 1, place[order[walls]], line, min_length, queue)
        if far == end:
            continue
        goal = queue[far + below(state, end - far)]
        mazes[kept, :] = OPEN
        for index in range(walls):
            mazes[kept, order[index]] = WALL
        mazes[kept, order[walls]] = START
        mazes[kept, (goal // line - 1) * columns + goal % line - 1] = GOAL
        kept += 1
        if kept == len(mazes):
            return kept, number + 1
    return kept, tries


@njit(cache=True)
def _far_cells(free: Any, stamp: int, start: int, line: int, min_length: int, queue: Any) -> tuple[int, int]:
    """Return (first, end) in ``queue`` of the cells at least ``min_length`` moves from ``start``, breadth first.

    The cells that hold ``stamp`` are free; each is cleared when it is visited.
    """
    queue[0] = start
    free[start] = 0
    begin, end, moves, far = 0, 1, 0, -1
    while begin < end:
        moves += 1
        layer = end  # from here on: cells that are ``moves`` away
        if moves == min_length:
            far = layer
        while begin < layer:
            cell = queue[begin]
            begin += 1
            for step in (line, -1, 1, -line):
                other = cell + step
                if free[other] == stamp:
                    free[other] = 0
                    queue[end] = other
                    end += 1
    return (far if far >= 0 else end), end
