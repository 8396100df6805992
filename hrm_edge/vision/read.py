"""What a grid says: every cell to a digit or a blank, with how sure the network is, and which way is up.

Axes: S = 81 cells, C = 10 classes (0 blank, 1 to 9).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.quiet import import_onnxruntime
from hrm_edge.vision.lattice import outline, project, square
from hrm_edge.vision.locate import Floats, Grid, Image

MODEL = Path(__file__).with_name("digits.onnx")
CELL = 32  # pixels of a cell as the network sees it
CLASSES = 10
SIDE = 9
TURNS = (0, 90, 180, 270)
_PAPER = (CELL // 2 + 1, CELL // 2 + 1)  # pixels: wider than a stroke or a line
_INK = 0.15  # darkest place of a cell's middle, below which nothing is written there


@dataclass(frozen=True, eq=False)
class Reading:
    """One grid, read. Cells go row by row in the puzzle's own direction, however it lies in the picture."""

    grid: Grid
    """The grid in the picture, its corners and crossings starting at the puzzle's own top left."""
    probabilities: Floats
    """[81, 10]: blank, 1 to 9."""
    orientation: int
    """How far the puzzle is turned clockwise in the picture: 0, 90, 180 or 270 degrees."""

    @property
    def digits(self) -> NDArray[np.uint8]:
        """The likeliest class of each cell, uint8 [81], 0 blank."""
        return self.probabilities.argmax(axis=1).astype(np.uint8)

    @property
    def confidence(self) -> Floats:
        """Probability of the likeliest class of each cell [81]."""
        return self.probabilities.max(axis=1)


class Reader:
    """The digit network. One thread by default: a cell is small, and the solver wants the other cores."""

    def __init__(self, path: Path | str = MODEL, threads: int = 1) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UserError(
                f"{path}: the digit network cannot be loaded ({error})", "install hrm-edge again"
            ) from error

    def read(self, image: Image, grid: Grid, orientation: int | None = None) -> Reading:
        """Read a 9x9 ``grid`` of a BGR picture uint8 [h, w, 3]; ``UserError`` for a grid of another side.

        The direction in which the digits are clearest is taken, unless ``orientation`` says which (as in
        :class:`Reading`).
        """
        if orientation is None:
            return self.directions(image, grid)[0]
        scores = self.classify(cells_of(np.rot90(_flat(image, grid), orientation // 90)))
        return Reading(turned(grid, orientation), np.exp(scores), orientation)

    def directions(self, image: Image, grid: Grid) -> list[Reading]:
        """:meth:`read` in all four directions, the clearest first."""
        cells = cells_of(_flat(image, grid))
        scores = self.classify(cells)  # as seen; a cell without ink is a blank in every direction
        written = np.nonzero(cells[:, 6:-6, 6:-6].max(axis=(1, 2)) > _INK)[0]
        found: list[tuple[float, Reading]] = []
        for turn in TURNS:
            if turn:
                scores = scores.copy()
                scores[written] = self.classify(np.rot90(cells[written], turn // 90, (1, 2)).copy())
            upright = np.rot90(scores.reshape(SIDE, SIDE, CLASSES), turn // 90).reshape(-1, CLASSES)
            clarity = float(scores[written].max(axis=1).sum())
            found.append((clarity, Reading(turned(grid, turn), np.exp(upright), turn)))
        return [reading for _, reading in sorted(found, key=lambda pair: -pair[0])]

    def classify(self, cells: Floats) -> Floats:
        """Log-probabilities [N, 10] of cells [N, 32, 32]."""
        (logits,) = self._session.run(None, {"cells": cells[:, None]})
        top = logits.max(axis=1, keepdims=True)
        return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)), np.float32)


def _flat(image: Image, grid: Grid) -> Floats:
    """The grid flat and without the light; ``UserError`` where it is not 9x9."""
    if grid.side != SIDE:
        raise UserError(f"this is a {grid.side}x{grid.side} grid, only 9x9 grids are read", "show a 9x9 Sudoku")
    return normalise(flatten(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), grid.mesh))


def turned(grid: Grid, degrees: int) -> Grid:
    """The same grid with its corners and crossings starting at the top left of a puzzle that is turned clockwise."""
    steps = degrees // 90
    # a puzzle turned 90 degrees clockwise has its own top left at the top right as seen
    return replace(grid, corners=np.roll(grid.corners, -steps, axis=0), mesh=np.rot90(grid.mesh, steps).copy())


def flatten(gray: NDArray[np.uint8], mesh: Floats) -> NDArray[np.uint8]:
    """The grid laid flat, ``CELL`` pixels a cell, [9 * CELL, 9 * CELL]: through the crossings [10, 10, 2]."""
    size = SIDE * CELL
    scale = float(np.linalg.norm(mesh[0, 0] - mesh[-1, -1])) / (2**0.5 * size)
    if scale > 1.5:  # a reduced picture keeps thin strokes that sampling would miss
        factor = 1 / scale
        gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        mesh = (mesh + 0.5) * factor - 0.5
    homography = cv2.getPerspectiveTransform(square(size, 0), outline(mesh.astype(np.float32)))
    steps = np.arange(size, dtype=np.float32) + 0.5
    places = project(np.stack(np.meshgrid(steps, steps), axis=-1), homography)
    # how far the crossings lie off the homography, spread over the pixels between them
    exact = np.linspace(0, size, SIDE + 1, dtype=np.float32)
    bent = mesh - project(np.stack(np.meshgrid(exact, exact), axis=-1), homography)
    index = ((steps / CELL)[None, :].repeat(size, 0), (steps / CELL)[:, None].repeat(size, 1))
    bend = cv2.remap(bent, index[0], index[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    at = places + bend
    return cv2.remap(gray, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def normalise(flat: NDArray[np.uint8]) -> Floats:
    """A flat grid with the light taken out: 0 is the paper, about 1 is the ink around there; same shape.

    The paper is what stays when everything narrower than half a cell is closed: strokes and lines go, the edge of a
    shadow stays where it is. The lines of the grid are near every cell, so an empty cell is not stretched until its
    noise looks like ink.
    """
    smooth = cv2.GaussianBlur(flat, (5, 5), 0)
    closed = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones(_PAPER, np.uint8), borderType=cv2.BORDER_REPLICATE)
    paper = cv2.blur(closed, (9, 9)).astype(np.float32)
    ink = 1 - flat / np.maximum(paper, 8)
    window = (3 * CELL + 1, 3 * CELL + 1)
    strength = np.sqrt(cv2.boxFilter(ink * ink, -1, window))
    return np.clip(ink / (3 * np.maximum(strength, 0.02)), -0.5, 1.5).astype(np.float32)


def cells_of(flat: Floats) -> Floats:
    """A flat grid [9 * CELL, 9 * CELL] as cells [81, CELL, CELL], row by row."""
    cells = flat.reshape(SIDE, CELL, SIDE, CELL).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(SIDE * SIDE, CELL, CELL), np.float32)
