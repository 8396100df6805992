"""The cells of a grid as the digit network sees them: laid flat, the light taken out, small digits enlarged.

Axes: 81 cells, row by row.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.vision.images import Floats, Gray
from hrm_edge.vision.lattice import mesh_map

CELL = 32  # pixels of a cell as the network sees it
SIDE = 9
_PAPER = (CELL // 2 + 1, CELL // 2 + 1)  # pixels: wider than a stroke or a line
_MARK = 0.3  # of the ink's darkness: what counts as a digit's stroke when its size is taken
_MIDDLE = 0.32  # of a cell, from its middle: where the middle of a digit may lie
_FEWEST = 12  # digits that give the size; a puzzle has at least 17
_EVEN = 0.75  # lowest to highest of these
_OF_MARKS = 0.85  # of the ink in the cells' middles is marks, where they are the digits
_SMALL = 0.5  # of a cell: digits lower than that are enlarged
_COMMON = 0.56  # of a cell: the height that they are enlarged to
_MOST_ZOOM = 3.0
_LIGHTER = 1.0  # grey levels of the mean over the median of the cells where all digits are light
_CLEARLY_LIGHTER = 8.0  # the same for a single cell
_DARK_CELL = 0.6  # of the usual brightness: such a cell may have light digits among dark ones


def cut_cells(gray: Gray, mesh: Floats) -> Floats:
    """Cut cells [81, CELL, CELL] of the grid with crossings [10, 10, 2] from a grey picture: 0 paper, about 1 ink.

    Where the digits are small in their cells, every cell is a window around its middle or its digit, in which the
    digits have a common height: the network would see a few pixels of them otherwise.
    """
    raw = flatten(gray, mesh)
    light = _light_on_dark(raw)
    flat = _normalise(_inverted(raw, light))
    height, boxes = _digit_boxes(flat)
    if not 0 < height < _SMALL * CELL:
        return _cells_of(flat)
    zoom = min(_MOST_ZOOM, _COMMON * CELL / height)
    cell = round(zoom * CELL)
    large = _normalise(_inverted(flatten(gray, mesh, cell), light))
    return _windows(large, cell, boxes, 1.5 * height)


def _light_on_dark(flat: Gray) -> NDArray[np.bool_]:
    """Return cells [9, 9] of a flat grid whose digits are lighter than what they stand on.

    In most puzzles it is all or none. A single cell that is not like the others has to be much darker than they are (a
    highlighted one, white on blue): the edge of a shadow would do otherwise.
    """
    middles = flat.reshape(SIDE, CELL, SIDE, CELL)[:, 6:-6, :, 6:-6].swapaxes(1, 2).reshape(SIDE * SIDE, -1)
    paper = np.partition(middles, middles.shape[1] // 2, axis=1)[:, middles.shape[1] // 2].astype(np.float32)
    lighter = middles.mean(axis=1) - paper  # grey levels: ink is the smaller part of a cell
    if lighter.sum() > _LIGHTER * SIDE * SIDE and lighter[lighter > 0].sum() > -4 * lighter[lighter < 0].sum():
        return np.ones((SIDE, SIDE), np.bool_)
    single = (lighter > _CLEARLY_LIGHTER) & (paper < _DARK_CELL * np.median(paper))
    return (single & (single.sum() <= SIDE * SIDE // 3)).reshape(SIDE, SIDE)


def _inverted(flat: Gray, cells: NDArray[np.bool_]) -> Gray:
    """Return a flat grid with these cells [9, 9] in the negative."""
    if not cells.any():
        return flat
    side = flat.shape[0] // SIDE
    mask = cells.repeat(side, 0).repeat(side, 1)
    return np.asarray(np.where(mask, 255 - flat, flat), np.uint8)


def _digit_boxes(flat: Floats) -> tuple[float, dict[int, NDArray[np.int32]]]:
    """Return height of the digits of a flat grid in pixels, 0 where it is not certain, and the marks' bounds by cell.

    Bounds: left, top, right, bottom in the cell. What touches the lines of the grid is no mark of its own, and what
    has its middle near them is none of a cell. Noise has marks too, but not of one height, nor does it leave the rest
    of the cells' middles empty.
    """
    ink = np.asarray(flat > _MARK, np.uint8)
    _, places, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    left, top, width, height, _ = stats.T
    x, y = left + width / 2, top + height / 2
    off = np.maximum(np.abs(x % CELL - CELL / 2), np.abs(y % CELL - CELL / 2))
    is_mark = (off < _MIDDLE * CELL) & (np.maximum(width, height) < CELL) & (height >= 4)
    is_mark[0] = False  # the paper
    boxes: dict[int, NDArray[np.int32]] = {}
    tallest: dict[int, int] = {}
    for mark in np.flatnonzero(is_mark):
        row, column = int(y[mark] // CELL), int(x[mark] // CELL)
        x0, y0 = left[mark] - column * CELL, top[mark] - row * CELL
        box = np.array([x0, y0, x0 + width[mark], y0 + height[mark]], np.int32)
        cell = row * SIDE + column
        if cell in boxes:
            other = boxes[cell]
            box = np.concatenate([np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:])])
        boxes[cell], tallest[cell] = box, max(tallest.get(cell, 0), int(height[mark]))
    heights = sorted(tallest.values(), reverse=True)
    if len(heights) < _FEWEST or heights[_FEWEST - 1] < _EVEN * heights[2]:
        return 0.0, boxes
    middles = np.zeros_like(flat, np.bool_).reshape(SIDE, CELL, SIDE, CELL)
    middles[:, CELL // 4 : -CELL // 4, :, CELL // 4 : -CELL // 4] = True
    inked = places[middles.reshape(flat.shape)]
    certain = is_mark[inked].sum() >= _OF_MARKS * (inked > 0).sum()
    return float(heights[_FEWEST - 1]) if certain else 0.0, boxes


def _windows(large: Floats, cell: int, boxes: dict[int, NDArray[np.int32]], most: float) -> Floats:
    """Cut a window [CELL, CELL] from each cell (``cell`` pixels wide) of a flat grid: around its marks, or the middle.

    ``most``: pixels of ``CELL`` that marks may cover together and still be one digit, not several candidates.
    """
    middles = np.full((SIDE * SIDE, 2), cell / 2)
    for index, box in boxes.items():
        if (box[2:] - box[:2]).max() <= most:
            middles[index] = (box[:2] + box[2:]) / 2 * cell / CELL
    columns, rows = np.clip(np.rint(middles - CELL / 2), 0, cell - CELL).astype(np.int64).T
    rows, columns = rows.reshape(SIDE, SIDE), columns.reshape(SIDE, SIDE)
    rows += cell * np.arange(SIDE)[:, None]
    columns += cell * np.arange(SIDE)
    within = np.arange(CELL)
    windows = large[(rows[..., None] + within)[..., None], (columns[..., None] + within)[..., None, :]]
    return windows.reshape(SIDE * SIDE, CELL, CELL)


def flatten(picture: Gray, mesh: Floats, cell: int = CELL) -> Gray:
    """Lay the grid flat through the crossings [10, 10, 2]: [9 * cell, 9 * cell], ``cell`` pixels a cell.

    ``picture`` may have channels [h, w, C]; so has the result then.
    """
    size = SIDE * cell
    scale = float(np.linalg.norm(mesh[0, 0] - mesh[-1, -1])) / (2**0.5 * size)
    if scale > 1.5:  # a reduced picture keeps thin strokes that sampling would miss
        times = round(scale)  # a whole number is reduced four times as quickly
        picture, mesh = _around(picture, mesh, 2 * times)
        smaller = (picture.shape[1] // times, picture.shape[0] // times)
        picture = picture[: smaller[1] * times, : smaller[0] * times]
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        mesh = (mesh + np.float32(0.5)) / np.float32(times) - np.float32(0.5)
    at = mesh_map(mesh, np.arange(size, dtype=np.float32) + 0.5, cell)
    flat = cv2.remap(picture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(flat, np.uint8)


def _around(picture: Gray, mesh: Floats, margin: int) -> tuple[Gray, Floats]:
    """Return the part of a picture around crossings [10, 10, 2], and these in it; some of its edge if they are off."""
    size = np.array(picture.shape[1::-1])
    left, top = low = np.clip(np.floor(mesh.min(axis=(0, 1))).astype(int) - margin, 0, np.maximum(size - margin, 0))
    right, bottom = np.maximum(np.ceil(mesh.max(axis=(0, 1))).astype(int), low) + margin + 1
    return picture[top:bottom, left:right], mesh - low.astype(np.float32)


def _normalise(flat: Gray) -> Floats:
    """Return a flat grid with the light taken out: 0 is the paper, about 1 is the ink around there; same shape.

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


def _cells_of(flat: Floats) -> Floats:
    """Return a flat grid [9 * CELL, 9 * CELL] as cells [81, CELL, CELL], row by row."""
    cells = flat.reshape(SIDE, CELL, SIDE, CELL).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(SIDE * SIDE, CELL, CELL), np.float32)
