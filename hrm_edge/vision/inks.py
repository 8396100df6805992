"""Digits of another colour: what a player entered in an app, beside the puzzle's own digits."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.vision.cells import CELL, SIDE, flatten
from hrm_edge.vision.images import Image
from hrm_edge.vision.read import Reading

_APART = 22.0  # between two inks in CIELAB, where a just noticeable difference is about 2
_WITHIN = 0.45  # of that distance: how far the digits of one ink may be from their mean
_STROKE = 0.6  # of a cell's strongest contrast: what is ink for certain
_LIGHTNESS = 0.5  # weight of lightness beside colour: blur makes thin strokes paler
_FEWEST_GIVENS = 17
_GREY, _COLOURED = 12.0, 20.0  # distance from grey: of a grey ink at most, of a coloured one at least


def entries_by_colour(image: Image, reading: Reading) -> NDArray[np.bool_] | None:
    """Return cells [81] whose digits have another colour than the puzzle's own; None where there are not two inks.

    ``image``: the BGR picture uint8 [h, w, 3] of the reading. The puzzle's own digits are those with less colour, and
    of two greys those with more contrast: apps set what was entered in blue or red, or paler.
    """
    cells = np.flatnonzero(reading.digits)
    if len(cells) <= _FEWEST_GIVENS:
        return None
    lab, contrast = _inks(image, reading, cells)
    colour = np.linalg.norm(lab[:, 1:], axis=1)
    entered = colour > _COLOURED
    if not (
        entered.any() and (entered | (colour < _GREY)).all()
    ):  # else entries may have several colours: right, wrong
        two = _two_inks(lab, contrast)
        if two is None:
            return None
        entered = two
    if (~entered).sum() < _FEWEST_GIVENS:
        return None
    entries = np.zeros(SIDE * SIDE, np.bool_)
    entries[cells[entered]] = True
    return entries


def _two_inks(lab: NDArray[np.float32], contrast: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Return which of the digits' inks [n, 3] are not the puzzle's own; None where there are not two kinds."""
    seen = lab * np.array([_LIGHTNESS, 1, 1], np.float32)
    _, groups, centres = cv2.kmeans(seen, 2, None, (cv2.TERM_CRITERIA_COUNT, 20, 0), 4, cv2.KMEANS_PP_CENTERS)
    second = groups.ravel() == 1
    apart = float(np.linalg.norm(centres[0] - centres[1]))
    within = float(np.sqrt(((seen - centres[groups.ravel()]) ** 2).sum(axis=1).mean()))
    if apart < _APART or within > _WITHIN * apart:
        return None
    colour = np.linalg.norm(centres[:, 1:], axis=1)
    if abs(colour[0] - colour[1]) > _APART / 2:
        own_is_second = bool(colour[1] < colour[0])
    else:
        own_is_second = bool(contrast[second].mean() > contrast[~second].mean())
    return ~second if own_is_second else second


def _inks(image: Image, reading: Reading, cells: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return colour of the digits' ink (L, a, b) [n, 3], a and b against the cell's own paper, and its contrast [n]."""
    flat = cv2.cvtColor(flatten(image, reading.grid.mesh).astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    squares = flat.reshape(SIDE, CELL, SIDE, CELL, 3)[:, 5:-5, :, 5:-5].swapaxes(1, 2).reshape(SIDE * SIDE, -1, 3)
    colours, contrasts = [], []
    for square in squares[cells]:
        paper = np.median(square, axis=0)
        contrast = np.linalg.norm(square - paper, axis=1)
        ink = np.median(square[contrast >= _STROKE * contrast.max()], axis=0)
        colours.append([ink[0], *(ink[1:] - paper[1:])])
        contrasts.append(float(np.linalg.norm(ink - paper)))
    return np.array(colours, np.float32), np.array(contrasts, np.float32)
