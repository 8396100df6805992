"""Size of a board that is not a 9x9 Sudoku, for a correct error message."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.vision.images import Image
from hrm_edge.vision.lattice import project, square
from hrm_edge.vision.locate import Grid

_SIDES = (25, 16, 12, 9, 6, 4)  # largest first: every fourth line of 16 cells is a line of 4
_SPAN, _MARGIN = 600, 12  # pixels of the board laid flat
_WIDE = 9  # pixels: wider than a line laid flat
_REACH = 5  # pixels that a line may be off its place
_DARK = 10  # of 255: how much darker than the paper a line is at least
_MOST = 6  # outlines looked at
_SMALLEST = 0.05  # of the picture
_FEWEST = 0.9  # of the lines that must be seen, and of a line's length


def _count_cells(gray: NDArray[np.uint8], quad: NDArray[np.float32]) -> int | None:
    """Count cells along a side of the board with corners ``quad`` [4, 2] in a grey picture [h, w]; None: no board."""
    homography = cv2.getPerspectiveTransform(square(_SPAN, _MARGIN), quad.astype(np.float32))
    size = _SPAN + 2 * _MARGIN
    steps = np.arange(size, dtype=np.float32) + 0.5
    places = project(np.stack(np.meshgrid(steps, steps), axis=-1), homography)
    flat = cv2.remap(gray, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return next((side for side in _SIDES if all(_has_lines(board, side) for board in (flat, flat.T.copy()))), None)


def _has_lines(flat: NDArray[np.uint8], side: int) -> bool:
    """Return whether there are the vertical lines of ``side`` cells, darker or lighter than what is around them."""
    kernel = np.ones((1, _WIDE), np.uint8)
    lines = np.rint(_MARGIN + _SPAN / side * np.arange(side + 1)).astype(np.int64)
    along = np.rint(_MARGIN + _SPAN * (np.arange(4 * side) + 0.5) / (4 * side)).astype(np.int64)  # four a cell
    for operation in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT):
        ridges = cv2.dilate(cv2.morphologyEx(flat, operation, kernel), np.ones((1, 2 * _REACH + 1), np.uint8))
        dark = ridges[along][:, lines] >= _DARK  # [places, lines]
        if (dark.mean(axis=0) >= _FEWEST).mean() >= _FEWEST:
            return True
    return False


def other_size(image: Image, grids: list[Grid]) -> int | None:
    """Return cells along a side of the board in a BGR picture in which ``grids``, none of them 9x9, were located.

    None where there is no board, or where it may be a 9x9 one after all.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    # an outline has finer corners than lines of another size that were fitted to some of the board's
    counted = max((_count_cells(gray, grids[0].corners) if grids else None) or 0, _board_of(gray) or 0)
    located = grids[0].side if grids else None
    return located if counted in (0, 9) else counted


def _board_of(gray: NDArray[np.uint8]) -> int | None:
    """Count cells along a side of the largest board in a grey picture [h, w] without a grid; None: no board."""
    for picture in (gray, 255 - gray):  # light boards with dark lines, then the others
        ink = cv2.adaptiveThreshold(picture, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, 21, 8)
        contours, _ = cv2.findContours(ink, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:_MOST]:
            quad = cv2.approxPolyDP(contour, 0.02 * cv2.arcLength(contour, True), True).reshape(-1, 2)
            if len(quad) == 4 and cv2.contourArea(quad) > _SMALLEST * gray.size:
                side = _count_cells(gray, quad.astype(np.float32))
                if side:
                    return side
    return None
