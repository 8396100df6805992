"""Eight symmetries of a grid, numbered as in the published data sets.

0 identity; 1, 2, 3 quarter turns counterclockwise; 4 mirrored left-right; 5 mirrored top-bottom; 6 transposed; 7
transposed along the other diagonal. Axes: R rows, C columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNT = 8
_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
SAME_SHAPE = (0, 2, 4, 5)
"""Symmetries that keep the shape of a grid with R ≠ C."""


def transform(grid: NDArray[Any], which: int) -> NDArray[Any]:
    """Return the grid [R, C] under the symmetry ``which`` (0 to 7), as a numpy view; [C, R] for 1, 3, 6 and 7."""
    return (
        grid,
        np.rot90(grid),
        np.rot90(grid, 2),
        np.rot90(grid, 3),
        np.fliplr(grid),
        np.flipud(grid),
        grid.T,
        np.rot90(grid.T, 2),
    )[which]


def invert(grid: NDArray[Any], which: int) -> NDArray[Any]:
    """Undo ``transform``: ``invert(transform(grid, w), w)`` equals ``grid``."""
    return transform(grid, _INVERSE[which])
