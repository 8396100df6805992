"""The lines of a grid: how much of them is seen inside a quadrilateral, and where they cross.

The picture is rectified to ``CELL`` pixels a cell with one cell of margin around; there, lines are the dark ridges near
the expected places. Axes: n lines a direction (side + 1), segments of one cell between two crossings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]

SPAN = 144  # pixels of the rectified grid: 16 a cell of a 9x9 grid
MARGIN = 16  # pixels around it
_REACH = 5  # pixels that a line may be off its expected place
_LONG = 13  # pixels that a line must go on, longer than a digit is high
_THICK = 7  # pixels across a line at most
_SEEN = 0.015  # darkness of a line that is there, as a share of the paper's brightness


def square(span: float, margin: float) -> Floats:
    """Corners [4, 2] of the grid in a rectified picture, clockwise from the top left."""
    low, high = margin, margin + span
    return np.array([[low, low], [high, low], [high, high], [low, high]], np.float32)


def lattice_points(side: int, span: float, margin: float) -> Floats:
    """Expected crossings [side + 1, side + 1, 2] in a rectified picture."""
    steps = margin + span / side * np.arange(side + 1, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps), axis=-1)


def outline(mesh: Floats) -> Floats:
    """Corners [4, 2] of crossings [n, n, 2], clockwise from the first."""
    return np.ascontiguousarray(mesh[[0, 0, -1, -1], [0, -1, -1, 0]])


def project(points: Floats, homography: NDArray[np.float64]) -> Floats:
    """Points [..., 2] through a homography [3, 3]."""
    flat = cv2.perspectiveTransform(points.reshape(-1, 1, 2).astype(np.float64), homography)
    return flat.reshape(points.shape).astype(np.float32)


class Rectified:
    """A quadrilateral [4, 2] of a grey picture laid flat, and the dark ridges in it."""

    def __init__(self, gray: Gray, quad: Floats) -> None:
        self.to_picture = cv2.getPerspectiveTransform(square(SPAN, MARGIN), quad)
        size = SPAN + 2 * MARGIN + 1
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        flat = cv2.warpPerspective(gray, self.to_picture, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        self.vertical = _lines(flat.T).T
        self.horizontal = _lines(flat)

    def evidence(self, side: int, reach: int = _REACH) -> float:
        """How surely this frames a grid of ``side`` cells, 0 to 1: the lines seen, the weakest counted twice, less
        what is seen half a cell off, where no line should be."""
        seen = self._seen(side, reach, 0.0)
        wrong = self._seen(side, reach, 0.5)
        weakest = np.sort(seen, axis=1)[:, :3].mean()
        return float(np.clip(0.5 * seen.mean() + 0.5 * weakest - 0.5 * wrong.mean(), 0, 1))

    def _seen(self, side: int, reach: int, offset: float) -> Floats:
        """Share [2, lines] of each line that is seen; lines ``offset`` cells beside the expected places."""
        cell = SPAN / side
        lines = np.rint(MARGIN + cell * (offset + np.arange(side + 1 - (offset > 0)))).astype(np.int64)
        along = np.rint(MARGIN + cell * (np.arange(side) + 0.5)).astype(np.int64)
        shifts = lines[:, None] + np.arange(-reach, reach + 1)
        strength = [ridge[shifts[:, None, :], along[None, :, None]] for ridge in (self.vertical.T, self.horizontal)]
        return (np.stack(strength).max(axis=3) > _SEEN).mean(axis=2)


def _lines(flat: Gray) -> Floats:
    """Darkness of the horizontal lines of a rectified picture, as a share of the paper's brightness around them.

    A place counts by the weakest of the ``_LONG`` pixels around it: a digit's strokes end before that, a line goes on.
    Dark areas thicker than ``_THICK`` are no lines.
    """
    smooth = cv2.blur(flat, (3, 1))
    dark = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, np.ones((_THICK, 1), np.uint8))
    paper = cv2.blur(cv2.dilate(flat, np.ones((9, 9), np.uint8)), (17, 17))
    tolerant = cv2.dilate(dark, np.ones((3, 1), np.uint8))
    weakest = cv2.erode(tolerant, np.ones((1, _LONG), np.uint8))
    return np.asarray(weakest / np.maximum(paper, 16.0), np.float32)


def fit_mesh(gray: Gray, quad: Floats, side: int) -> Floats:
    """Crossings [side + 1, side + 1, 2] in pixels of ``gray``: a smooth surface through the ridges that are seen."""
    corners = quad
    for powers in (_BILINEAR, _CUBIC):
        flat = Rectified(gray, corners)
        moved = lattice_points(side, SPAN, MARGIN)
        moved[..., 0] += _offsets(flat.vertical.T, side, powers).T
        moved[..., 1] += _offsets(flat.horizontal, side, powers)
        mesh = project(moved, flat.to_picture)
        corners = outline(mesh)
    return mesh


_BILINEAR = ((0, 0), (1, 0), (0, 1), (1, 1))  # powers of the place along and across the lines
_CUBIC = tuple((i, j) for i in range(4) for j in range(4) if i + j <= 3)


def _offsets(horizontal: Floats, side: int, powers: tuple[tuple[int, int], ...]) -> Floats:
    """How far each crossing [line, place along it] lies below its expected place, in rectified pixels.

    A polynomial of the place, fitted to the strongest ridge near every segment; segments that disagree lose weight.
    """
    cell = SPAN / side
    lines = np.rint(MARGIN + cell * np.arange(side + 1)).astype(np.int64)
    places = np.arange(side) + 0.5
    shifts = np.arange(-_REACH, _REACH + 1)
    along = np.rint(MARGIN + cell * places).astype(np.int64)
    near = horizontal[(lines[:, None] + shifts)[:, None, :], along[None, :, None]]  # [lines, places, shifts]
    near = near * (1 - 0.03 * np.abs(shifts))
    strength = near.max(axis=2).ravel()
    seen = strength > _SEEN
    found = np.where(seen, shifts[near.argmax(axis=2)].ravel(), 0.0)
    base = np.where(seen, strength, 1e-3)  # the unseen hold the fit near the expected place
    x = np.tile(places / side * 2 - 1, side + 1)
    y = np.repeat(np.arange(side + 1) / side * 2 - 1, len(places))
    terms = np.stack([x**i * y**j for i, j in powers], axis=1)
    weight = base
    for _ in range(4):
        root = np.sqrt(weight)
        solved, *_ = np.linalg.lstsq(terms * root[:, None], found * root, rcond=None)
        weight = base / (1 + (terms @ solved - found) ** 2)
    place = np.arange(side + 1) / side * 2 - 1
    at = np.stack([place[None, :] ** i * place[:, None] ** j for i, j in powers], axis=-1)
    return np.clip(at @ solved, -_REACH, _REACH).astype(np.float32)
