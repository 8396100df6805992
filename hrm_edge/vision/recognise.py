"""A picture to a puzzle: locate, read, judge; of several grids the one that makes a puzzle."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.board_size import other_size
from hrm_edge.vision.judge import Verdict, judge
from hrm_edge.vision.locate import Image, locate
from hrm_edge.vision.read import SIDE, Reader, Reading

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
    """The puzzle of a BGR picture uint8 [h, w, 3]: the first grid, best first, that the rules accept, else the first.

    Raises ``UserError`` where there is no whole 9x9 grid. A reading that is no puzzle raises nothing: see ``verdict``.
    """
    clock = _Clock()
    found = locate(image)
    clock.lap("locate")
    grids = [grid for grid in found if grid.side == SIDE]
    if not grids:
        side = other_size(image, found)
        if side:
            raise UserError(
                f"the picture shows a {side}x{side} grid, only 9x9 Sudokus are read",
                "type the puzzle or give it as a file, with a model of its size: hrm-edge solve FILE --model MODEL",
            )
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
    return Recognised(*first, len(grids), clock.ms)


class _Clock:
    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now
