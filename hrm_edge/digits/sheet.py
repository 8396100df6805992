"""A printed puzzle as a flat picture: paper, lines, digits, handwriting, candidates. Nothing of the camera yet.

Darkness is 0 (paper) to 1 (black). Lengths are shares of a cell unless they say pixels. Axes: s pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.digits.fonts import HEIGHT, Font, Mask
from hrm_edge.digits.hands import Rng
from hrm_edge.vision.cells import SIDE
from hrm_edge.vision.images import Floats

CELL = 40  # pixels
MARGIN = 40  # pixels of paper around the grid
SIZE = SIDE * CELL + 2 * MARGIN
_SMALL_SHARE, _SMALL = 0.2, (0.2, 0.42)  # of the pages have digits as small as that
_CROSSED, _UPSTROKE = 0.35, 0.3  # of the hands cross their 7s, and begin a 1 far below its top


@dataclass(frozen=True, eq=False)
class Sheet:
    """A flat puzzle. The crossings of its lines are at ``MARGIN + CELL * (column, row)`` pixels."""

    darkness: Floats
    """[s, s], 0 to 1."""
    labels: NDArray[np.uint8]
    """[81], 0 for a blank or for pencilled candidates."""
    written: NDArray[np.bool_]
    """[81]: the digit was written by hand; False for printed digits and blanks."""


@dataclass(frozen=True, eq=False)
class Content:
    """Content of a page that is not random."""

    givens: NDArray[np.uint8]
    """Printed digits [81], 0 for none."""
    entries: NDArray[np.uint8] | None = None
    """Digits written by hand [81] where ``givens`` has none, 0 for none."""
    height: float | None = None
    """Size of the printed digits as a share of a cell; None: random."""


def draw_sheet(rng: Rng, printed: list[Font], hand: list[Font], content: Content | None = None) -> Sheet:
    """Draw a random puzzle page; with ``content`` these digits, and nothing pencilled."""
    ink = np.zeros((SIZE, SIZE), np.float32)
    _shade(ink, rng)
    _rule(ink, rng)
    font = printed[rng.integers(len(printed))]
    style = _Style(rng, spread=0.03)
    if content is not None:
        return _given_sheet(rng, ink, (style, font), hand, content)
    if rng.random() < _SMALL_SHARE:
        style.height = rng.uniform(*_SMALL)
    cells = rng.permutation(81)
    given, filled, pencilled = _shares(rng)
    labels = np.zeros(81, np.uint8)
    labels[cells[: given + filled]] = rng.integers(1, 10, given + filled)
    for cell in cells[:given]:
        style.draw(ink, font, int(cell), int(labels[cell]), rng)
    writing, writer = _Style(rng, spread=0.09, hand=True), hand[rng.integers(len(hand))]
    for cell in cells[given : given + filled]:
        writing.draw(ink, writer, int(cell), int(labels[cell]), rng)
    pencil = _Candidates(rng, writer if rng.random() < 0.7 else font)
    for cell in cells[given + filled : given + filled + pencilled]:
        pencil.draw(ink, int(cell), rng)
    _smudge(ink, rng, printed)
    written = np.zeros(81, np.bool_)
    written[cells[given : given + filled]] = True
    return Sheet(ink, labels, written)


def _given_sheet(rng: Rng, ink: Floats, print_: tuple[_Style, Font], hand: list[Font], content: Content) -> Sheet:
    style, font = print_
    style.height = content.height or style.height
    labels, written = content.givens.copy(), np.zeros(81, np.bool_)
    for cell in np.nonzero(content.givens)[0]:
        style.draw(ink, font, int(cell), int(content.givens[cell]), rng)
    if content.entries is not None:
        written = (content.givens == 0) & (content.entries > 0)
        labels[written] = content.entries[written]
        writing, writer = _Style(rng, spread=0.09, hand=True), hand[rng.integers(len(hand))]
        for cell in np.nonzero(written)[0]:
            writing.draw(ink, writer, int(cell), int(labels[cell]), rng)
    return Sheet(ink, labels, written)


def _shares(rng: Rng) -> tuple[int, int, int]:
    """Return cells that are printed, filled in by hand, and pencilled with candidates."""
    given = int(rng.integers(20, 42)) if rng.random() < 0.7 else int(rng.integers(42, 82))
    filled = int(rng.integers(0, 82 - given)) if rng.random() < 0.4 else 0
    left = 81 - given - filled
    pencilled = int(rng.integers(0, left + 1)) if rng.random() < 0.4 else 0
    return given, filled, pencilled


def _rule(ink: Floats, rng: Rng) -> None:
    """Draw the lines: thin ones, thick ones between boxes and around, often of another darkness."""
    thick = rng.uniform(0.03, 0.14) * CELL
    thin = min(thick, rng.uniform(0.012, 0.06) * CELL)
    dark = rng.uniform(0.35, 1.0)
    faint = dark * rng.uniform(0.25, 1.0)
    at = np.arange(SIZE, dtype=np.float32)
    for boxes in (False, True):  # thick ones on top
        profile = np.zeros(SIZE, np.float32)
        for line in range(SIDE + 1):
            if (line % 3 == 0) is boxes:
                near = np.abs(at - (MARGIN + CELL * line))
                profile = np.maximum(profile, np.clip((thick if boxes else thin) / 2 + 0.5 - near, 0, 1))
        profile *= dark if boxes else faint
        inside = (at >= MARGIN - thick / 2) & (at <= SIZE - MARGIN + thick / 2)
        np.maximum(ink, np.outer(inside, profile), out=ink)
        np.maximum(ink, np.outer(profile, inside), out=ink)


def _shade(ink: Floats, rng: Rng) -> None:
    """Tint boxes or single cells."""
    if rng.random() < 0.2:
        tint, phase = rng.uniform(0.03, 0.22), int(rng.integers(2))
        for box in range(9):
            if (box // 3 + box % 3) % 2 == phase:
                _fill(ink, box // 3 * 3, box % 3 * 3, 3, tint)
    if rng.random() < 0.15:
        tint = rng.uniform(0.05, 0.4)
        for cell in rng.choice(81, int(rng.integers(1, 6)), replace=False):
            _fill(ink, int(cell) // 9, int(cell) % 9, 1, tint)


def _fill(ink: Floats, row: int, column: int, cells: int, tint: float) -> None:
    top, left = MARGIN + row * CELL, MARGIN + column * CELL
    ink[top : top + cells * CELL, left : left + cells * CELL] += np.float32(tint)


class _Style:
    """Style in which one writer or printer sets digits."""

    def __init__(self, rng: Rng, spread: float, hand: bool = False) -> None:
        self.hand = hand
        self.height = rng.uniform(0.42, 0.86) if hand else rng.uniform(0.42, 0.8)
        self.stretch = rng.uniform(0.8, 1.25)
        self.dark = rng.uniform(0.3, 1.0)
        self.spread = spread
        self.shift = rng.normal(0, 0.035, 2)
        self.weight = int(rng.integers(-3, 6)) if rng.random() < 0.5 else 0  # pixels at HEIGHT
        self.slant = rng.normal(0, 0.12) if hand else 0.0
        self.crossed = hand and rng.random() < _CROSSED
        self.upstroke = hand and rng.random() < _UPSTROKE

    def draw(self, ink: Floats, font: Font, cell: int, digit: int, rng: Rng) -> None:
        mask = font.masks[digit - 1]
        if digit == 7 and self.crossed:
            mask = _crossed(mask, rng)
        if digit == 1 and self.upstroke:
            mask = _upstroke(mask, rng)
        if self.weight:
            mask = _weighted(mask, self.weight)
        height = self.height * CELL * mask.shape[0] / HEIGHT * rng.uniform(0.94, 1.06)
        width = height * mask.shape[1] / mask.shape[0] * self.stretch
        if self.hand:
            mask = _handmade(mask, self.slant + rng.normal(0, 0.06), rng)
        centre = np.array([cell % 9, cell // 9]) + 0.5 + self.shift + rng.normal(0, self.spread, 2)
        dark = self.dark * (rng.uniform(0.75, 1.0) if self.hand else 1.0)
        _paste(ink, mask, MARGIN + CELL * centre, height, min(width, 0.9 * CELL), dark)


def _weighted(mask: Mask, pixels: int) -> Mask:
    """Return a bolder (positive) or thinner mask; a stroke that would vanish stays."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(pixels) + 1, abs(pixels) + 1))
    if pixels > 0:
        return np.asarray(cv2.dilate(np.pad(mask, pixels), kernel), np.uint8)
    thin = np.asarray(cv2.erode(mask, kernel), np.uint8)
    return thin if int(thin.max()) > 128 and thin.sum() > 0.3 * mask.sum() else mask


def _crossed(mask: Mask, rng: Rng) -> Mask:
    """Draw a bar through the stem of a 7."""
    height, width = mask.shape
    crossed = np.pad(mask, ((0, 0), (6, 6)))
    at = rng.uniform(0.4, 0.62) * height
    stem = np.nonzero(mask[round(at)] > 96)[0]
    middle = 6 + (float(stem.mean()) if len(stem) else width / 2)
    reach, tilt = rng.uniform(0.2, 0.4) * height, rng.normal(0, 0.08) * height
    return _line(crossed, (middle - reach, at + tilt), (middle + reach, at - tilt), rng)


def _upstroke(mask: Mask, rng: Rng) -> Mask:
    """Draw a 1 whose pen came from far below."""
    height = mask.shape[0]
    left = round(rng.uniform(0.25, 0.5) * height)
    top = np.nonzero(mask[round(0.06 * height)] > 96)[0]
    longer = np.pad(mask, ((0, 0), (left, 0)))
    peak = (left + float(top.mean()) if len(top) else left + mask.shape[1] / 2, 0.05 * height)
    return _line(longer, peak, (0.1 * left, rng.uniform(0.35, 0.8) * height), rng)


def _line(mask: Mask, start: tuple[float, float], end: tuple[float, float], rng: Rng) -> Mask:
    drawn = mask.copy()
    points = np.rint(np.array([start, end]) * 8).astype(np.int32)
    cv2.polylines(drawn, [points], False, 255, int(rng.integers(4, 9)), cv2.LINE_AA, shift=3)
    return drawn


def _handmade(mask: Mask, slant: float, rng: Rng) -> Mask:
    """Turn, slant and bend a digit, as no two written ones are alike."""
    pad = 14
    mask = np.pad(mask, pad)
    height, width = mask.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y, x = (rows - height / 2) / HEIGHT, (columns - width / 2) / HEIGHT
    angle = rng.normal(0, 0.1)
    bend = rng.normal(0, 0.05, 4)
    turned_x = x + slant * y + angle * y + bend[0] * np.sin(4 * y + bend[1] * 60) + bend[2] * x * y
    turned_y = y - angle * x + bend[3] * np.sin(4 * x + bend[1] * 60)
    return np.asarray(
        cv2.remap(
            mask,
            (turned_x * HEIGHT + width / 2).astype(np.float32),
            (turned_y * HEIGHT + height / 2).astype(np.float32),
            cv2.INTER_LINEAR,
        ),
        np.uint8,
    )


class _Candidates:
    """Small pencilled digits: in their places of 3x3, or a few in a corner or along the top."""

    def __init__(self, rng: Rng, font: Font) -> None:
        self.font = font
        self.in_places = rng.random() < 0.4
        self.height = rng.uniform(0.13, 0.26) if self.in_places else rng.uniform(0.16, 0.4)
        self.dark = rng.uniform(0.25, 0.9)

    def draw(self, ink: Floats, cell: int, rng: Rng) -> None:
        origin = np.array([cell % 9, cell // 9], np.float64)
        if self.in_places:
            digits = rng.choice(9, int(rng.integers(1, 7)), replace=False) + 1
            places = [((d - 1) % 3 / 3 + 1 / 6, (d - 1) // 3 / 3 + 1 / 6) for d in digits]
        else:
            count = int(rng.integers(2, 5)) if self.height < 0.28 else int(rng.integers(2, 4))
            digits = rng.choice(9, count, replace=False) + 1
            step, left = self.height * rng.uniform(0.6, 0.85), rng.uniform(0.08, 0.25)
            top = self.height / 2 + (rng.uniform(0.04, 0.12) if rng.random() < 0.8 else rng.uniform(0.1, 0.6))
            places = [(left + step * (i + 0.3), min(top, 0.95 - self.height / 2)) for i in range(count)]
        for digit, place in zip(digits, places, strict=True):
            mask = self.font.masks[int(digit) - 1]
            height = self.height * CELL * rng.uniform(0.85, 1.1)
            centre = MARGIN + CELL * (origin + place + rng.normal(0, 0.02, 2))
            _paste(ink, mask, centre, height, height * mask.shape[1] / mask.shape[0], self.dark)


def _paste(ink: Floats, mask: Mask, centre: NDArray[np.float64], height: float, width: float, dark: float) -> None:
    """Put a mask of a size in pixels around ``centre`` (x, y); what leaves the page is cut."""
    size = (max(2, round(width)), max(2, round(height)))
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) * (dark / 255)
    left, top = (int(v) for v in np.rint(centre - np.array(size) / 2))
    if left < 0 or top < 0 or left + size[0] > SIZE or top + size[1] > SIZE:
        return
    place = ink[top : top + size[1], left : left + size[0]]
    np.maximum(place, small, out=place)


def _smudge(ink: Floats, rng: Rng, fonts: list[Font]) -> None:
    """Add the other side's print shining through, folds across the paper, stray strokes."""
    if rng.random() < 0.2:
        other = np.zeros_like(ink)
        font, tint = fonts[rng.integers(len(fonts))], rng.uniform(0.02, 0.1)
        for _ in range(60):
            size = rng.uniform(0.2, 0.8) * CELL
            mask = font.masks[rng.integers(9)][:, ::-1]
            _paste(other, mask, rng.uniform(0, SIZE, 2), size, 0.7 * size, tint)
        np.add(ink, cv2.GaussianBlur(other, (0, 0), 1.5), out=ink)
    for _ in range(int(rng.poisson(1.0))):
        ends = (
            rng.uniform(0, SIZE, (2, 2)) if rng.random() < 0.5 else rng.uniform(0, SIZE, 2) + rng.normal(0, 12, (2, 2))
        )
        stroke = np.zeros_like(ink)
        start, end = np.rint(ends).astype(int).tolist()
        cv2.line(stroke, start, end, float(rng.uniform(0.05, 0.6)), int(rng.integers(1, 4)), cv2.LINE_AA)
        np.maximum(ink, stroke, out=ink)
    np.clip(ink, 0, 1, out=ink)
