"""Label files of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import read_bytes
from hrm_edge.vision.cells import SIDE

_CANDIDATES = 10  # label of a cell with pencilled candidates


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read digits uint8 [81] of a label file: its rows of nine numbers, candidates as 0; other lines are skipped."""
    rows = [line.split() for line in read_bytes(path, 1 << 20).decode("utf-8", "replace").splitlines()]
    digits = [int(word) for row in rows if len(row) == SIDE and all(word.isdigit() for word in row) for word in row]
    if len(digits) != SIDE * SIDE:
        raise UserError(f"{path} is no label: it has {len(digits)} digits in rows of nine, not 81", "correct the file")
    return np.array([0 if digit == _CANDIDATES else digit for digit in digits], np.uint8)
