"""Drawing on the picture: the answer's digits into the blanks, in perspective and along curved paper."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import FIRST_DIGIT
from hrm_edge.vision.images import Floats, Gray, Image
from hrm_edge.vision.judge import Verdict
from hrm_edge.vision.locate import Grid

Color = tuple[int, int, int]  # BGR
ANSWER: Color = (60, 170, 20)
SEEKING: Color = (235, 160, 40)
REFUSED: Color = (60, 60, 225)
_GLYPH = 96  # pixels of a digit's square before it is warped into its cell


def _draw_answer(image: Image, grid: Grid, givens: Tokens, answer: Tokens) -> None:
    """Write ``answer`` [S] into the cells that ``givens`` [S] leave blank, into BGR ``image`` uint8 [h, w, 3] itself.

    ``grid``: turned so that its first corner is the puzzle's top left. The caller has verified the answer.
    """
    for cell in np.flatnonzero(givens < FIRST_DIGIT):
        _stamp(image, _glyph(int(answer[cell]) - FIRST_DIGIT + 1), grid.cell_corners(int(cell)), ANSWER)


def draw_result(image: Image, grid: Grid, verdict: Verdict, answer: Tokens) -> None:
    """Draw the verified ``answer`` [81] into blank cells, and frames around what a person should look at.

    A digit that was left out stays as it is where it is right; a wrong one is framed, and the right one stands over it.
    """
    assert verdict.puzzle is not None
    right = set(verdict.ignored) - set(verdict.disagreeing)
    shown = verdict.puzzle.copy()
    shown[sorted(right)] = answer[sorted(right)]
    _draw_answer(image, grid, shown, answer)
    for cell in (*verdict.doubtful, *verdict.repaired):
        _frame(image, grid, cell, SEEKING)
    for cell in verdict.disagreeing:
        _frame(image, grid, cell, REFUSED)


def _frame(image: Image, grid: Grid, cell: int, color: Color) -> None:
    """Draw a frame just inside a cell."""
    corners = grid.cell_corners(cell)
    inner = corners + (corners.mean(axis=0) - corners) * 0.16
    width = max(1, round(float(np.sqrt(grid.area)) / 250))
    cv2.polylines(image, [np.rint(inner * 8).astype(np.int32)], True, color, width, cv2.LINE_AA, shift=3)


def draw_outline(image: Image, grid: Grid, color: Color) -> None:
    """Draw the border of a grid, along its paper, into ``image`` itself."""
    mesh = grid.mesh
    border = np.concatenate([mesh[0], mesh[1:, -1], mesh[-1, -2::-1], mesh[-2:0:-1, 0]])
    points = np.rint(border * 8).astype(np.int32)
    width = max(2, round(float(np.sqrt(grid.area)) / 160))
    cv2.polylines(image, [points], True, color, width, cv2.LINE_AA, shift=3)


@functools.cache
def _glyph(digit: int) -> Gray:
    """Return the coverage uint8 [96, 96] of a digit in the middle of its cell."""
    text, font, scale, width = str(digit), cv2.FONT_HERSHEY_SIMPLEX, 2.6, 9
    (wide, high), _ = cv2.getTextSize(text, font, scale, width)
    canvas = np.zeros((_GLYPH, _GLYPH), np.uint8)
    cv2.putText(canvas, text, ((_GLYPH - wide) // 2, (_GLYPH + high) // 2), font, scale, 255, width, cv2.LINE_AA)
    return canvas


def _stamp(image: Image, coverage: Gray, corners: Floats, color: Color) -> None:
    """Blend ``color`` into the quadrilateral [4, 2] where ``coverage`` is."""
    height, width = image.shape[:2]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    if (high <= low).any():
        return
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * _GLYPH - np.float32(0.5)
    into = cv2.getPerspectiveTransform(square, corners - low.astype(np.float32))
    smaller = float(np.sqrt(max(1.0, cv2.contourArea(corners)))) / _GLYPH
    if smaller < 0.5:  # warping alone would skip pixels of the strokes
        coverage = cv2.GaussianBlur(coverage, None, 0.35 / smaller)
    alpha = cv2.warpPerspective(coverage, into, tuple((high - low).tolist()), flags=cv2.INTER_LINEAR)
    part = image[low[1] : high[1], low[0] : high[0]]
    weight = alpha[..., None].astype(np.float32) / 255
    part[:] = (part + (np.array(color, np.float32) - part) * weight + 0.5).astype(np.uint8)


def draw_text(image: Image, text: str, color: Color) -> None:
    """Draw a line of text on a dark band at the bottom of ``image`` itself; what does not fit is made smaller."""
    height, width = image.shape[:2]
    scale = max(0.4, height / 800)
    font, margin = cv2.FONT_HERSHEY_SIMPLEX, round(14 * scale)
    weight = max(1, round(1.6 * scale))
    (wide, high), below = cv2.getTextSize(text, font, scale, weight)
    if wide > width - 2 * margin:
        scale *= (width - 2 * margin) / wide
        (wide, high), below = cv2.getTextSize(text, font, scale, weight)
    top = height - high - below - 2 * margin
    band = image[max(0, top) :]
    band[:] = band // 4
    at = (margin, height - margin - below)
    cv2.putText(image, text, at, font, scale, color, weight, cv2.LINE_AA)
