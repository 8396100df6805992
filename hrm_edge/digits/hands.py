"""Handwritten digits that no font has: drawn by a pen along control points, and images of digits that people wrote.

A hand is a :class:`Font`: nine masks, one a digit.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.digits.fonts import HEIGHT, Font, Mask
from hrm_edge.errors import UserError
from hrm_edge.files import check_input, os_error

Rng = np.random.Generator

_IMAGE_SIDE = 28  # pixels of an image in a file of written digits
_PAD = 20  # pixels around a drawn digit, so that a stroke may leave its box

# Strokes of a digit through control points (x, y), 0 to 1, y down. Several ways of writing where people differ.
_STROKES: dict[int, tuple[tuple[tuple[tuple[float, float], ...], ...], ...]] = {
    1: (
        (((0.5, 0.0), (0.5, 0.5), (0.48, 1.0)),),
        (((0.28, 0.2), (0.55, 0.0), (0.55, 0.0), (0.54, 0.5), (0.53, 1.0)),),
        (((0.0, 0.55), (0.3, 0.28), (0.55, 0.0), (0.55, 0.0), (0.54, 0.5), (0.53, 1.0)),),
        (((0.05, 0.4), (0.55, 0.0), (0.55, 0.0), (0.54, 0.5), (0.53, 1.0)), ((0.25, 1.0), (0.8, 1.0))),
    ),
    2: (
        (((0.1, 0.22), (0.4, 0.0), (0.75, 0.2), (0.55, 0.55), (0.08, 1.0), (0.08, 1.0), (0.85, 0.98)),),
        (((0.1, 0.2), (0.45, 0.0), (0.75, 0.25), (0.4, 0.75), (0.1, 0.95), (0.2, 0.8), (0.5, 0.95), (0.9, 0.92)),),
    ),
    3: (
        (((0.15, 0.1), (0.5, 0.0), (0.72, 0.22), (0.4, 0.45), (0.4, 0.45), (0.75, 0.7), (0.45, 1.0), (0.1, 0.9)),),
        (((0.1, 0.03), (0.7, 0.0), (0.7, 0.0), (0.38, 0.4), (0.38, 0.4), (0.75, 0.65), (0.5, 0.98), (0.1, 0.92)),),
    ),
    4: (
        (((0.3, 0.0), (0.08, 0.58), (0.08, 0.58), (0.85, 0.58)), ((0.65, 0.25), (0.62, 1.0))),
        (((0.2, 0.0), (0.15, 0.5), (0.15, 0.5), (0.8, 0.5)), ((0.72, 0.02), (0.68, 1.0))),
        (((0.65, 1.0), (0.65, 0.0), (0.65, 0.0), (0.05, 0.65), (0.05, 0.65), (0.9, 0.65)),),
    ),
    5: (
        (((0.8, 0.02), (0.25, 0.02), (0.25, 0.02), (0.18, 0.42), (0.55, 0.38), (0.8, 0.68), (0.5, 1.0), (0.1, 0.9)),),
        (((0.25, 0.05), (0.18, 0.45), (0.6, 0.42), (0.78, 0.7), (0.45, 1.0), (0.1, 0.9)), ((0.28, 0.05), (0.85, 0.0))),
    ),
    6: (
        (((0.65, 0.0), (0.3, 0.3), (0.12, 0.72), (0.42, 1.0), (0.75, 0.76), (0.45, 0.54), (0.16, 0.75)),),
        (((0.45, 0.0), (0.15, 0.5), (0.2, 0.95), (0.6, 0.98), (0.7, 0.68), (0.35, 0.6), (0.15, 0.8)),),
    ),
    7: (
        (((0.05, 0.03), (0.8, 0.0), (0.8, 0.0), (0.5, 0.5), (0.35, 1.0)),),
        (((0.08, 0.2), (0.1, 0.03), (0.1, 0.03), (0.8, 0.0), (0.8, 0.0), (0.45, 0.55), (0.4, 1.0)),),
        (((0.05, 0.03), (0.8, 0.0), (0.8, 0.0), (0.5, 0.5), (0.35, 1.0)), ((0.22, 0.52), (0.82, 0.46))),
    ),
    8: (
        (
            (
                (0.7, 0.15), (0.42, 0.0), (0.18, 0.2), (0.45, 0.45), (0.75, 0.75), (0.45, 1.0), (0.15, 0.78),
                (0.45, 0.47), (0.72, 0.2), (0.55, 0.03),
            ),
        ),
        (
            ((0.45, 0.0), (0.2, 0.22), (0.45, 0.45), (0.68, 0.22), (0.45, 0.0)),
            ((0.45, 0.45), (0.12, 0.74), (0.45, 1.0), (0.78, 0.74), (0.45, 0.45)),
        ),
    ),
    9: (
        (((0.72, 0.15), (0.4, 0.0), (0.15, 0.25), (0.4, 0.48), (0.72, 0.15), (0.72, 0.15), (0.65, 1.0)),),
        (((0.7, 0.2), (0.4, 0.0), (0.15, 0.25), (0.42, 0.47), (0.7, 0.2), (0.68, 0.7), (0.5, 0.98), (0.15, 0.92)),),
    ),
}  # fmt: skip


def drawn_hand(rng: Rng) -> Font:
    """Draw digits as one person might write them: a way of writing each, a pen, and no two strokes quite alike."""
    pen = int(rng.integers(3, 11))
    width = rng.uniform(0.55, 1.0)
    return Font("drawn hand", tuple(_drawn(rng, digit, pen, width) for digit in range(1, 10)))


def _drawn(rng: Rng, digit: int, pen: int, width: float) -> Mask:
    ways = _STROKES[digit]
    canvas = np.zeros((HEIGHT + 2 * _PAD, HEIGHT + 2 * _PAD), np.uint8)
    for stroke in ways[rng.integers(len(ways))]:
        points = np.array(stroke)
        _, copies = np.unique(points, axis=0, return_inverse=True)  # a point twice is a corner, and stays one
        points = points + rng.normal(0, 0.03, points.shape)[copies.ravel()]
        places = _smooth(points) * (HEIGHT * width, HEIGHT) + _PAD
        cv2.polylines(canvas, [np.rint(places * 8).astype(np.int32)], False, 255, pen, cv2.LINE_AA, shift=3)
    return _trimmed(canvas)


def _smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through points [n, 2]; a point that stands twice is a corner."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 9)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
    ]
    return np.concatenate(parts)


def _trimmed(canvas: Mask) -> Mask:
    rows, columns = np.nonzero(canvas > 32)
    return canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def load_hands(path: Path | str) -> list[Font]:
    """Load hands from a file of written digits: the n-th image of each digit belongs to the n-th hand.

    The file is a CSV (or .csv.gz): a row an image, 28x28 grey values (ink is light) and then the digit. Rows of 0 are
    skipped. ``UserError`` where it is anything else.
    """
    path = Path(path)
    check_input(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            rows = np.loadtxt(stream, delimiter=",", ndmin=2)
    except OSError as error:
        raise os_error(error, path) from error
    except ValueError as error:
        raise UserError(f"{path} is no CSV of numbers: {error}", "give rows of 784 grey values and a digit") from error
    if rows.shape[1] != _IMAGE_SIDE**2 + 1:
        raise UserError(f"{path} has rows of {rows.shape[1]} numbers", "give rows of 784 grey values and a digit")
    images = [rows[rows[:, -1] == digit, :-1].astype(np.uint8) for digit in range(1, 10)]
    count = min(len(image) for image in images)
    return [Font(f"{path.name}:{n}", tuple(_enlarged(digit[n]) for digit in images)) for n in range(count)]


def _enlarged(image: NDArray[np.uint8]) -> Mask:
    """Return a written digit [784] as a mask of about ``HEIGHT`` pixels with sharp strokes."""
    small = _trimmed(np.pad(image.reshape(_IMAGE_SIDE, _IMAGE_SIDE), 2))
    scale = HEIGHT / small.shape[0]
    large = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.asarray(np.clip((large - 128) * 2.5 + 128, 0, 255), np.uint8)
