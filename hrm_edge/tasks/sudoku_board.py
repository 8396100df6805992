"""Rows, columns and boxes of a Sudoku's board as arrays. Axes: S cells; ``side`` as in ``hrm_edge.tasks.sudoku``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hrm_edge.tasks.sudoku import Sudoku


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Units and peers of a board's cells. Units are numbered rows, then columns, then boxes."""

    units: NDArray[np.int64]
    """Cells of every unit, [3 * side, side]."""
    cell_units: NDArray[np.int64]
    """Row, column and box unit of every cell, [S, 3]."""
    peers: NDArray[np.int64]
    """Other cells in any unit of a cell, ascending, [S, P]; P = 20 at 9x9."""


@functools.cache
def geometry(task: Sudoku) -> _Geometry:
    """Return the units and peers of a task's board, computed once."""
    side, cells = task.side, np.arange(task.seq_len)
    row, column = cells // side, cells % side
    box = row // task.box_rows * (side // task.box_cols) + column // task.box_cols
    cell_units = np.stack([row, side + column, 2 * side + box], axis=1)
    units = np.concatenate([np.argsort(line, kind="stable").reshape(side, side) for line in (row, column, box)])
    sees = (cell_units[:, None] == cell_units[None]).any(axis=2) & ~np.eye(task.seq_len, dtype=bool)
    return _Geometry(units, cell_units, np.nonzero(sees)[1].reshape(task.seq_len, -1))
