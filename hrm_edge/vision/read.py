"""Reading of a grid: a digit or a blank for each cell, the network's certainty, and which way is up.

Axes: S = 81 cells, C = 10 classes (0 blank, 1 to 9).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.quiet import import_onnxruntime
from hrm_edge.vision.cells import CELL, SIDE, cut_cells
from hrm_edge.vision.images import Floats, Image
from hrm_edge.vision.locate import Grid

MODEL = Path(__file__).with_name("digits.onnx")
CLASSES = 10
TURNS = (0, 90, 180, 270)
_INK = 0.15  # darkest place of a cell's middle, below which nothing is written there
_SAMPLE = 16  # cells with ink: what is seen of the other directions first
_CLEARER = 2.2  # nats of the sample over another direction's: of 208 drawn pictures one was lost at 1.5, none at 2.2


@dataclass(frozen=True, eq=False)
class Reading:
    """One grid, read. Cells go row by row in the puzzle's own direction, however it lies in the picture."""

    grid: Grid
    """The grid in the picture, its corners and crossings starting at the puzzle's own top left."""
    probabilities: Floats
    """[81, 10]: blank, 1 to 9."""
    orientation: int
    """Clockwise rotation of the puzzle in the picture: 0, 90, 180 or 270 degrees."""
    written: Floats = field(default_factory=lambda: np.zeros(SIDE * SIDE, np.float32))
    """[81]: probability that the digit was written by hand, not printed; of a blank it says nothing."""

    @property
    def digits(self) -> NDArray[np.uint8]:
        """The likeliest class of each cell, uint8 [81], 0 blank."""
        return self.probabilities.argmax(axis=1).astype(np.uint8)

    @property
    def confidence(self) -> Floats:
        """Probability of the likeliest class of each cell [81]."""
        return self.probabilities.max(axis=1)


class Reader:
    """The digit network, on one thread: a cell is small, and the solver wants the other cores."""

    def __init__(self, path: Path | str = MODEL) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
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
        scores, written = self.classify(_upright(_cells(image, grid), orientation))
        return Reading(turned(grid, orientation), np.exp(scores), orientation, written)

    def directions(self, image: Image, grid: Grid) -> list[Reading]:
        """Do as :meth:`read` in the directions that may be right, the clearest first.

        Those are left out that are less clear in a sample of the cells.
        """
        cells = _cells(image, grid)
        seen = self.classify(cells)  # as seen; a cell without ink is a blank in every direction
        inked = np.nonzero(cells[:, 6:-6, 6:-6].max(axis=(1, 2)) > _INK)[0]
        sample = inked[np.arange(0, len(inked), max(1, len(inked) / _SAMPLE)).astype(int)]
        classified = {turn: self._turned(seen, cells, sample, turn) for turn in TURNS}
        clarity = {turn: float(scores[sample].max(axis=1).sum()) for turn, (scores, _) in classified.items()}
        likely = [turn for turn in TURNS if clarity[turn] >= max(clarity.values()) - _CLEARER]
        rest = np.setdiff1d(inked, sample)
        classified = {turn: self._turned(classified[turn], cells, rest, turn) for turn in likely}
        readings = []
        for turn in sorted(likely, key=lambda turn: -float(classified[turn][0][inked].max(axis=1).sum())):
            scores, by_hand = classified[turn]
            upright = np.rot90(scores.reshape(SIDE, SIDE, CLASSES), turn // 90).reshape(-1, CLASSES)
            written = np.rot90(by_hand.reshape(SIDE, SIDE), turn // 90).ravel()
            readings.append(Reading(turned(grid, turn), np.exp(upright), turn, written))
        return readings

    def _turned(
        self, classified: tuple[Floats, Floats], cells: Floats, some: NDArray[np.int64], turn: int
    ) -> tuple[Floats, Floats]:
        """Return ``classified``, in which ``some`` of the cells [81, 32, 32] are classified when turned."""
        if not turn or not len(some):
            return classified
        scores, by_hand = (part.copy() for part in classified)
        scores[some], by_hand[some] = self.classify(np.rot90(cells[some], turn // 90, (1, 2)).copy())
        return scores, by_hand

    def classify(self, cells: Floats) -> tuple[Floats, Floats]:
        """Return log-probabilities [N, 10] of cells [N, 32, 32], and the probability [N] of being written by hand."""
        logits, written = self._session.run(None, {"cells": cells[:, None]})
        top = logits.max(axis=1, keepdims=True)
        scores = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        by_hand = 1 / (1 + np.exp(-np.clip(written[:, 0], -30, 30)))
        return np.asarray(scores, np.float32), np.asarray(by_hand, np.float32)


def _cells(image: Image, grid: Grid) -> Floats:
    """Return cells [81, 32, 32] of a grid as seen; ``UserError`` where it is not 9x9."""
    if grid.side != SIDE:
        raise UserError(f"this is a {grid.side}x{grid.side} grid, only 9x9 grids are read", "show a 9x9 Sudoku")
    return cut_cells(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), grid.mesh)


def _upright(cells: Floats, degrees: int) -> Floats:
    """Return cells [81, 32, 32] of a puzzle that is turned clockwise, in its own order and upright."""
    steps = degrees // 90
    ordered = np.rot90(cells.reshape(SIDE, SIDE, CELL, CELL), steps, (0, 1))
    return np.ascontiguousarray(np.rot90(ordered, steps, (2, 3)).reshape(SIDE * SIDE, CELL, CELL))


def turned(grid: Grid, degrees: int) -> Grid:
    """Return the grid with corners and crossings starting at the top left of a puzzle that is turned clockwise."""
    steps = degrees // 90
    # a puzzle turned 90 degrees clockwise has its own top left at the top right as seen
    return replace(grid, corners=np.roll(grid.corners, -steps, axis=0), mesh=np.rot90(grid.mesh, steps).copy())
