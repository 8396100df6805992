"""A picture to a puzzle: locate, read, judge; of several grids the one that makes a puzzle."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.board_size import other_size
from hrm_edge.vision.cells import SIDE
from hrm_edge.vision.images import Image
from hrm_edge.vision.inks import entries_by_colour
from hrm_edge.vision.judge import Verdict, judge
from hrm_edge.vision.locate import Grid, locate, look_further
from hrm_edge.vision.read import Reader, Reading

_MOST_GRIDS = 3  # read in one picture
_SHOW_WHOLE = "show the whole puzzle with all four corners, sharp and evenly lit"


@dataclass(frozen=True, eq=False)
class Recognised:
    """The grid that was taken, what it says and what the rules say about that."""

    reading: Reading
    verdict: Verdict
    grids: int
    """9x9 grids in the picture."""
    ms: dict[str, float]
    """Milliseconds of ``locate``, ``read`` and ``judge``."""


def recognise(image: Image, reader: Reader, task: Sudoku) -> Recognised:
    """Read the puzzle of a BGR picture uint8 [h, w, 3]: its best grid that the rules accept, else the first.

    Raises ``UserError`` where there is no whole 9x9 grid. A reading that is no puzzle raises nothing: see ``verdict``.
    """
    clock = _Clock()
    grids = _grids(image)
    clock.lap("locate")
    if not grids:
        part = "only a part of a grid is in the picture" if locate(image, cut=True) else "no Sudoku grid in the picture"
        raise UserError(part, _SHOW_WHOLE)
    first: tuple[Reading, Verdict] | None = None
    for grid in grids[:_MOST_GRIDS]:
        readings = reader.directions(image, grid)
        clock.lap("read")
        for reading in readings[:2]:  # in a blurred picture the wrong way up may look clearer
            verdict = judge(reading, task)
            clock.lap("judge")
            if verdict.puzzle is not None:
                return Recognised(reading, verdict, len(grids), clock.ms)
            first = first or (reading, verdict)
    assert first is not None
    entered = entries_by_colour(image, first[0])
    if entered is not None:  # what a player entered in an app may contradict the puzzle
        reading = replace(first[0], written=np.maximum(first[0].written, entered))
        verdict = judge(reading, task)
        first = first if verdict.puzzle is None else (reading, verdict)
    clock.lap("judge")
    return Recognised(*first, len(grids), clock.ms)


def _grids(image: Image) -> list[Grid]:
    """Return the 9x9 grids of a picture; ``UserError`` where it shows a board of another size."""
    located = locate(image)
    grids = [grid for grid in located if grid.side == SIDE]
    if any(grid.lines == SIDE for grid in grids):
        return grids
    side = other_size(image, located)  # a part of a larger board, or its boxes alone, may pass for one of 9x9
    if grids and side in (None, SIDE):
        return grids
    if side:
        raise UserError(
            f"the picture shows a {side}x{side} grid, only 9x9 Sudokus are read",
            "type the puzzle or give it as a file, with a model of its size: hrm-edge solve FILE --model MODEL",
        )
    return look_further(image)


class _Clock:
    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now
