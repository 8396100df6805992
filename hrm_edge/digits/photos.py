"""Labelled photos as training cells: ``NAME.jpg``, ``NAME.txt`` (9 rows of digits) and ``metadata.csv`` with corners.

That is the layout of AlexKubiesa/sudoku-scanner (MIT). A label of 10 means pencilled candidates: a blank here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.digits.camera import expose, misplaced, rewritten
from hrm_edge.digits.hands import Rng
from hrm_edge.digits.labels import read_labels
from hrm_edge.errors import UserError
from hrm_edge.vision.cells import SIDE
from hrm_edge.vision.images import Floats, Gray, load_image
from hrm_edge.vision.lattice import fit_mesh

_CORNERS = ("topleft", "topright", "bottomright", "bottomleft")
_LARGEST_CELL = 48.0  # pixels that are kept of a cell


@dataclass(frozen=True, eq=False)
class LabelledPhoto:
    """A grey picture of one grid."""

    gray: Gray
    mesh: Floats
    """Crossings [10, 10, 2] in pixels, from the puzzle's own top left."""
    cell: float
    """Pixels a cell."""
    labels: NDArray[np.uint8]
    """[81], 0 for blanks and candidates."""


def load_photos(folder: Path | str) -> list[LabelledPhoto]:
    """Load every labelled photo of ``folder``; ``UserError`` where a file or a label is missing."""
    folder = Path(folder)
    table = folder / "metadata.csv"
    if not table.is_file():
        raise UserError(f"{folder} holds no metadata.csv", "give a folder of labelled photos, or leave 'photos' empty")
    with table.open(encoding="utf-8", newline="") as stream:
        return [_photo(folder, row) for row in csv.DictReader(stream)]


def _photo(folder: Path, row: dict[str, str]) -> LabelledPhoto:
    path = folder / row["Name"]
    # the corners are given as shares of the raw picture, before any turn by EXIF
    gray = cv2.cvtColor(load_image(path, upright=False), cv2.COLOR_BGR2GRAY)
    shares = np.array([[float(row[f"{axis}_{corner}"]) for axis in "xy"] for corner in _CORNERS])
    quad = shares * gray.shape[::-1]
    cell = float(np.sqrt(cv2.contourArea(quad.astype(np.float32)))) / SIDE
    scale = min(1.0, _LARGEST_CELL / cell)
    low = np.maximum(quad.min(axis=0) - cell, 0).astype(int)
    high = (quad.max(axis=0) + cell).astype(int)
    gray = cv2.resize(gray[low[1] : high[1], low[0] : high[0]], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mesh = fit_mesh(gray, ((quad - low) * scale).astype(np.float32), SIDE)
    return LabelledPhoto(np.asarray(gray, np.uint8), mesh, cell * scale, read_labels(path.with_suffix(".txt")))


def retake(rng: Rng, photo: LabelledPhoto) -> tuple[Gray, Floats]:
    """Degrade the photo as a worse camera would have taken it; move its crossings as a locator might."""
    cell = min(photo.cell, float(np.exp(rng.uniform(np.log(10), np.log(1.3 * _LARGEST_CELL)))))
    scale = cell / photo.cell
    gray = rewritten(rng, photo.gray, photo.cell) if rng.random() < 0.7 else photo.gray
    gray = np.asarray(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.8:
        gray = expose(rng, gray.astype(np.float32), cell)
    mesh = (photo.mesh + 0.5) * scale - 0.5
    return np.asarray(gray, np.uint8), misplaced(rng, mesh, cell)
