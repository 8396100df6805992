"""The lines of a grid: how much of them is seen inside a quadrilateral, and where they cross.

The picture is rectified to ``CELL`` pixels a cell with one cell of margin around; there, lines are the dark ridges near
the expected places. Axes: n lines a direction (side + 1), segments of one cell between two crossings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.vision.images import Floats, Gray

_SPAN = 144  # pixels of the rectified grid: 16 a cell of a 9x9 grid
_MARGIN = 16  # pixels around it
_REACH = 5  # pixels that a line may be off its expected place
_LONG = 13  # pixels that a line must go on, longer than a digit is high
_THICK = 7  # pixels across a line at most
_FOLLOWED = 3  # times that the lines of bent paper are looked for along the last ones
_COARSE = 1.6  # pixels of the picture for one of the rectified grid, above which it is smoothed first
_FAINTEST = 0.004  # darkness of a line, as a share of the paper's brightness
_CLEARLY = 1.4  # times darker than what is beside it


def square(span: float, margin: float) -> Floats:
    """Return corners [4, 2] of the grid in a rectified picture, clockwise from the top left."""
    low, high = margin, margin + span
    return np.array([[low, low], [high, low], [high, high], [low, high]], np.float32)


def lattice_points(side: int, span: float, margin: float) -> Floats:
    """Return expected crossings [side + 1, side + 1, 2] in a rectified picture."""
    steps = margin + span / side * np.arange(side + 1, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps), axis=-1)


def outline(mesh: Floats) -> Floats:
    """Return corners [4, 2] of crossings [n, n, 2], clockwise from the first."""
    return np.ascontiguousarray(mesh[[0, 0, -1, -1], [0, -1, -1, 0]])


def project(points: Floats, homography: NDArray[np.float64]) -> Floats:
    """Map points [..., 2] through a homography [3, 3]."""
    flat = cv2.perspectiveTransform(points.reshape(-1, 1, 2).astype(np.float64), homography)
    return flat.reshape(points.shape).astype(np.float32)


def mesh_map(mesh: Floats, places: Floats, cell: float) -> Floats:
    """Return where in the picture [m, m, 2] points of a flat grid lie, by its crossings [n + 1, n + 1, 2].

    ``places`` [m]: along each direction, in pixels from the first line; ``cell``: pixels of the flat grid a cell.
    """
    cells = len(mesh) - 1
    homography = cv2.getPerspectiveTransform(square(cells * cell, 0), outline(mesh.astype(np.float32)))
    # how far the crossings lie off the homography, spread over the pixels between them
    bent = mesh.astype(np.float32) - project(lattice_points(cells, cells * cell, 0), homography)
    before = np.clip(places / cell, 0, cells - 1).astype(np.int64)
    share = np.clip(places / cell - before, 0, 1).astype(np.float32)[:, None]
    by_row = bent[before] + share[..., None] * (bent[before + 1] - bent[before])  # [m, n + 1, 2]
    points = by_row.take(before, axis=1)  # [m, m, 2]
    points += share * np.diff(by_row, axis=1).take(before, axis=1)
    # each of the projection's three sums has a part of x alone and one of y alone: no product of all points
    across = np.multiply.outer(homography[:, 0], places)[:, None, :].astype(np.float32)
    down = (np.multiply.outer(homography[:, 1], places) + homography[:, 2:])[:, :, None].astype(np.float32)
    away = across[2] + down[2]
    for axis in (0, 1):
        points[..., axis] += (across[axis] + down[axis]) / away
    return points


class Rectified:
    """A part of a grey picture laid flat, and the dark ridges in it: a quadrilateral [4, 2], or along a mesh."""

    def __init__(self, gray: Gray, quad: Floats, mesh: Floats | None = None) -> None:
        """Follow ``mesh``, crossings [n + 1, n + 1, 2], instead of straight lines; ``quad``: its outline."""
        self._homography = cv2.getPerspectiveTransform(square(_SPAN, _MARGIN), quad)
        size = _SPAN + 2 * _MARGIN + 1
        places = np.arange(size, dtype=np.float32) - _MARGIN
        self._map = None if mesh is None else mesh_map(mesh, places, _SPAN / (len(mesh) - 1))
        if cv2.contourArea(np.asarray(quad, np.float32)) > (_COARSE * _SPAN) ** 2:
            gray = np.asarray(cv2.blur(gray, (3, 3)), np.uint8)  # sampling alone would miss lines of a pixel
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE
        if self._map is None:
            flat = cv2.warpPerspective(gray, self._homography, (size, size), flags=flags, borderMode=border)
        else:
            flat = cv2.remap(gray, self._map, None, cv2.INTER_LINEAR, borderMode=border)
        self._flat = flat
        across, along = _ridges(flat.T), _ridges(flat)
        self.vertical = _lines(flat.T, across, along.T)
        """Darkness of vertical lines by (column, row): transposed, so that both directions are handled alike."""
        self.horizontal = _lines(flat, along, across.T)

    def to_picture(self, points: Floats) -> Floats:
        """Return points [..., 2] of the flat picture in pixels of the picture."""
        if self._map is None:
            return project(points, self._homography)
        flat = points.reshape(-1, 1, 2).astype(np.float32)
        in_picture = cv2.remap(self._map, flat, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(in_picture.reshape(points.shape), np.float32)

    def evidence(self, side: int, reach: int = _REACH, framed: bool = True) -> float:
        """Rate how surely this frames a grid of ``side`` cells, 0 to 1: the share of its lines that is seen; the three
        weakest of each direction counting as much as all. ``framed`` False: the outermost lines do not count."""
        seen = np.stack([_seen(ridge, side, reach).mean(axis=1) for ridge in (self.vertical, self.horizontal)])
        seen = seen if framed else seen[:, 1:-1]
        weakest = np.sort(seen, axis=1)[:, :3].mean()
        return float(0.5 * seen.mean() + 0.5 * weakest)

    def marks(self) -> tuple[int, int]:
        """Count separate dark marks: of the size of digits in a 9x9 grid, and of that in one of 3x3.

        The lines around the boxes do not count: they are often so much darker that no digit is a mark beside them.
        """
        smooth = cv2.GaussianBlur(self._flat, (5, 5), 0)
        dark = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, np.ones((17, 17), np.uint8))
        boxes = _MARGIN + _SPAN / 3 * np.arange(4)
        on_line = (np.abs(np.arange(len(dark))[:, None] - boxes) < _REACH).any(axis=1)
        dark[on_line] = dark[:, on_line] = 0
        _, ink = cv2.threshold(dark, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        _, _, stats, _ = cv2.connectedComponentsWithStats(ink)
        wide, high = stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT]
        tall = np.maximum(wide, high)
        return int(((tall >= 6) & (tall <= 16)).sum()), int(((tall >= 19) & (tall <= 42) & (wide <= 40)).sum())


def _places(side: int) -> NDArray[np.float64]:
    """Return positions along a line, as shares of its length: the middle of its cells, or of parts of them."""
    count = side * max(1, 9 // side)
    return (np.arange(count) + 0.5) / count


def _seen(ridge: Floats, side: int, reach: int) -> NDArray[np.bool_]:
    """Return segments [lines, places] that are darker than what is half a cell beside them, where no line should be."""
    cell = _SPAN / side
    halves = np.rint(_MARGIN + cell * np.arange(-0.5, side + 0.75, 0.5)).astype(np.int64)  # between, on, between ...
    along = np.rint(_MARGIN + _SPAN * _places(side)).astype(np.int64)
    near = np.clip(halves[:, None] + np.arange(-reach, reach + 1), 0, len(ridge) - 1)
    strength = ridge[near[:, None, :], along[None, :, None]].max(axis=2)  # [2 * side + 3, places]
    beside = np.minimum(strength[0:-2:2], strength[2::2])
    return strength[1::2] > _FAINTEST + _CLEARLY * beside


def _ridges(flat: Gray) -> Gray:
    """Return darkness of what is at most ``_THICK`` pixels high, uint8 as ``flat``."""
    smooth = cv2.blur(flat, (3, 1))
    return np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, np.ones((_THICK, 1), np.uint8)), np.uint8)


def _lines(flat: Gray, ridges: Gray, crossing: Gray) -> Floats:
    """Return darkness of the horizontal lines of a rectified picture, as a share of the paper's brightness around them.

    ``ridges``: of this direction, ``crossing``: of the other one, where a thick line that crosses hides this one. A
    place counts by the weakest of the ``_LONG`` pixels around it: a digit's strokes end before that, a line goes on.
    """
    paper = cv2.blur(cv2.dilate(flat, np.ones((9, 9), np.uint8)), (17, 17))
    tolerant = cv2.max(cv2.dilate(ridges, np.ones((3, 1), np.uint8)), crossing)
    weakest = cv2.erode(tolerant, np.ones((1, _LONG), np.uint8))
    return np.asarray(cv2.divide(weakest, cv2.max(paper, 16), dtype=cv2.CV_32F), np.float32)


def fit_mesh(gray: Gray, quad: Floats, side: int, cells: int | None = None) -> Floats:
    """Return crossings [cells + 1, cells + 1, 2] in pixels of ``gray``: a smooth surface through the lines seen.

    The lines looked for are those of ``side`` cells; ``cells`` (default: as many) is what the result is divided into.
    """
    cells = cells or side
    corners = quad
    for powers in (_BILINEAR, _CUBIC if side > 4 else _QUADRATIC):
        flat = Rectified(gray, corners)
        moved = lattice_points(cells, _SPAN, _MARGIN)
        moved[..., 0] += _offsets(flat.vertical, side, cells, powers).T
        moved[..., 1] += _offsets(flat.horizontal, side, cells, powers)
        mesh = flat.to_picture(moved)
        corners = outline(mesh)
    return mesh


def follow_mesh(gray: Gray, mesh: Floats) -> Floats:
    """Return crossings [n + 1, n + 1, 2] nearer to lines that are bent more than a fit of straight ones can follow."""
    side = len(mesh) - 1
    for _ in range(_FOLLOWED):
        flat = Rectified(gray, outline(mesh), mesh)
        moved = lattice_points(side, _SPAN, _MARGIN)
        moved[..., 0] += _offsets(flat.vertical, side, side, _CUBIC).T
        moved[..., 1] += _offsets(flat.horizontal, side, side, _CUBIC)
        mesh = flat.to_picture(moved)
    return mesh


_BILINEAR = ((0, 0), (1, 0), (0, 1), (1, 1))  # powers of the place along and across the lines
_QUADRATIC = tuple((i, j) for i in range(3) for j in range(3) if i + j <= 2)
_CUBIC = tuple((i, j) for i in range(4) for j in range(4) if i + j <= 3)


def _offsets(horizontal: Floats, side: int, cells: int, powers: tuple[tuple[int, int], ...]) -> Floats:
    """Return how far each crossing [line, place along it] lies below its expected place, in rectified pixels.

    A polynomial of the place, fitted to the strongest ridge near every segment; segments that disagree lose weight.
    """
    cell = _SPAN / side
    lines = np.rint(_MARGIN + cell * np.arange(side + 1)).astype(np.int64)
    places = _places(side)
    shifts = np.arange(-_REACH, _REACH + 1)
    along = np.rint(_MARGIN + _SPAN * places).astype(np.int64)
    near = horizontal[(lines[:, None] + shifts)[:, None, :], along[None, :, None]]  # [lines, places, shifts]
    near = near * (1 - 0.03 * np.abs(shifts))
    strength = near.max(axis=2).ravel()
    seen = _seen(horizontal, side, _REACH).ravel()
    best = shifts[near.argmax(axis=2)][..., None]
    weights = near**2 * (np.abs(shifts - best) <= 2)  # the middle of the ridge, finer than a pixel
    centre = (weights * shifts).sum(axis=2) / np.maximum(weights.sum(axis=2), 1e-9)
    offsets = np.where(seen, centre.ravel(), 0.0)
    base = np.where(seen, strength, 1e-3)  # the unseen hold the fit near the expected place
    x = np.tile(places * 2 - 1, side + 1)
    y = np.repeat(np.arange(side + 1) / side * 2 - 1, len(places))
    terms = np.stack([x**i * y**j for i, j in powers], axis=1)
    weight = base
    for _ in range(4):
        root = np.sqrt(weight)
        solved, *_ = np.linalg.lstsq(terms * root[:, None], offsets * root, rcond=None)
        weight = base / (1 + (terms @ solved - offsets) ** 2)
    place = np.arange(cells + 1) / cells * 2 - 1
    at = np.stack([place[None, :] ** i * place[:, None] ** j for i, j in powers], axis=-1)
    return np.clip(at @ solved, -_REACH, _REACH).astype(np.float32)
