"""Locating the grids of a picture: quadrilaterals first, then the evidence of their lines decides.

Pixel coordinates are (x, y), centres of pixels at whole numbers. "As seen" means in the picture, however the puzzle
itself is turned: which of the four directions is up is known after reading (``hrm_edge.vision.read``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.vision.images import Floats, Gray, Image
from hrm_edge.vision.lattice import Rectified, fit_mesh, follow_mesh, outline, project

WORK_SIDE = 640  # pixels of the longer side that grids are sought at: enough for a grid of a third of the picture


class _Kind(NamedTuple):
    """A pattern of lines that makes a grid."""

    lines: int
    """Cells along a side whose lines are looked for."""
    cells: int
    """Cells along a side of the grid: where the thin lines of a 9x9 grid are too faint, those of its boxes do."""
    least: float
    """Evidence that is needed; patterns of few lines need more, for many things have some lines."""
    weight: float
    """Weight of the evidence in the score."""
    framed: bool = True
    """Whether the outermost lines count: a picture may be cut along them, and some grids are printed without."""


# Only 9x9 is read; the other sizes are told apart from it.
_KINDS = (_Kind(9, 9, 0.6, 1.0), _Kind(3, 9, 0.85, 0.5), _Kind(6, 6, 0.85, 1.0), _Kind(4, 4, 0.85, 1.0))
_FRAMELESS = _Kind(9, 9, 0.85, 0.9, framed=False)
_SURE_SCORE = 0.8  # no need to look further
_UNSURE = 0.55
_WORTH_FITTING = 0.7  # share of the evidence needed that a rough quadrilateral must have before its lines are fitted
_LARGE = 0.1  # of the picture: no need to look for a larger one
_SAME = 4  # pixels between the corners of quadrilaterals that need no second look
_NEARLY_SAME = 1.5  # the same where everything is looked at
_WORTH_A_TRY = 0.3  # evidence of a rough quadrilateral whose lines are fitted then, or where it is large
_FITTED_CLOSELY = 12  # of the quadrilaterals then, those with the most evidence
_BEYOND = 0.02  # of a grid's side: as far as it may seem to reach beyond the picture
_WORTH_FOLLOWING = 0.3  # evidence along straight lines, from which on the paper may be bent
_WORTH_BENDING = 0.1  # more evidence along bent lines, from which on they are taken
_SQUARE = 1.55  # longest to shortest side of what is taken for a square on weak evidence
_EDGE = 0.005  # of the longer side of the picture: a grid's side this near to the edge is where the picture ends
_FEWEST_MARKS = 12  # of a digit's size in a grid that is known by its boxes alone
_STROKE = 15  # pixels: wider than a line
_FAINT = 8  # of 255: how much darker than the paper a line is at least
_MIN_AREA = 0.012  # of the picture
_OVERLAP = 0.3  # two grids whose intersection is more than this share of the smaller one are the same


@dataclass(frozen=True, eq=False)
class Grid:
    """One grid in a picture."""

    corners: Floats
    """Outer corners [4, 2] in pixels, clockwise from the top left as seen."""
    mesh: Floats
    """Crossings of the lines [side + 1, side + 1, 2] in pixels, by row and column as seen; follows curved paper."""
    score: float
    """Evidence of its lines, 0 to 1."""
    side: int = 9
    """Cells along a side."""
    lines: int = 9
    """Cells along a side of the lines it was found by: 3 where only the boxes of a 9x9 grid were seen."""
    framed: bool = True
    """Whether its outermost lines were seen."""
    negative: bool = False
    """Whether its lines are lighter than the paper: it was found in the negative."""

    @property
    def area(self) -> float:
        """Square pixels."""
        return float(cv2.contourArea(self.corners))

    def overlap(self, other: Grid) -> float:
        """Return the area that two grids share, as a share of the smaller one's."""
        shared, _ = cv2.intersectConvexConvex(self.corners, other.corners)
        return float(shared) / max(1.0, min(self.area, other.area))

    def cell_corners(self, cell: int) -> Floats:
        """Return the corners [4, 2] of a cell, clockwise from its top left; cells go row by row."""
        row, column = divmod(cell, self.side)
        return self.mesh[[row, row, row + 1, row + 1], [column, column + 1, column + 1, column]]


class Way(NamedTuple):
    """One way of looking for grids, for :func:`locate`."""

    negative: bool = False
    """For light lines on dark paper."""
    closely: bool = False
    """Also at the edges of the picture and without a frame: takes twice as long."""


_MOST_GRIDS = 4  # of a picture
WAYS = (Way(), Way(closely=True), Way(negative=True), Way(negative=True, closely=True))


def look_further(image: Image) -> list[Grid]:
    """Return 9x9 grids of a BGR picture uint8 [h, w, 3] where :func:`locate` finds none, by the other :data:`WAYS`."""
    for way in WAYS[1:]:
        grids = [grid for grid in locate(image, way=way) if grid.side == _KINDS[0].cells]
        if grids:
            return grids
    return []


def locate(image: Image, cut: bool = False, way: Way = WAYS[0]) -> list[Grid]:
    """Locate grids of a BGR picture uint8 [h, w, 3], the best first: large, with all their lines. Empty: none.

    ``cut``: instead, what looks like a grid that the edge of the picture cuts off.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, WORK_SIDE / max(gray.shape))
    small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray
    small = cv2.bitwise_not(small) if way.negative else small
    grids = _closely(small) if way.closely else _quickly(small, cut)
    return [replace(_rescaled(grid, scale), negative=way.negative) for grid in grids[:_MOST_GRIDS]]


def _quickly(small: Gray, cut: bool) -> list[Grid]:
    """Return grids by the likeliest ways of finding them first, until there is a sure one."""
    seen: list[Floats] = []
    grids: list[Grid] = []
    for quads in _proposals(small):
        quads = [quad for quad in quads if _is_cut(quad, small) is cut]
        new = [quad for quad in quads if not any(np.abs(quad - other).max() < _SAME for other in seen)]
        seen += new
        grids = _distinct(grids + _grids(small, new))
        best = grids[0] if grids else None
        # a part of a 9x9 grid can pass for a smaller one, so that does not end the search
        if best and best.side == _KINDS[0].cells and best.score >= _SURE_SCORE and best.area > _LARGE * small.size:
            break
    if not grids or grids[0].score < _UNSURE:  # the border runs into something else: perhaps boxes were framed
        grids = _distinct(grids + _grids(small, _around_boxes(small, seen)))
    return grids


def _closely(small: Gray) -> list[Grid]:
    """Return 9x9 grids by every proposal, in a picture that has paper added around it; best first."""
    padded, pad = _with_paper(small)
    height, width = small.shape
    whole = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32) + pad
    quads: list[Floats] = [whole]
    for proposed in _proposals(padded, boxes=True):
        quads += [quad for quad in proposed if not any(np.abs(quad - other).max() < _NEARLY_SAME for other in quads)]
    rough = []
    for index, quad in enumerate(quads):
        flat = Rectified(padded, quad)
        evidence = max(flat.evidence(9), flat.evidence(9, framed=False))
        rough.append((evidence, -index))
    grids = []
    for evidence, index in sorted(rough, reverse=True)[:_FITTED_CLOSELY]:
        if evidence < _WORTH_A_TRY:
            break
        for kind in (_KINDS[0], _FRAMELESS):
            quad = quads[-index]
            grid = _fitted(padded, quad, kind, follow=True)
            grid = grid or _fitted(padded, outline(fit_mesh(padded, quad, 9)), kind, follow=True)
            if grid is not None and not _leaves(grid.corners - pad, small):
                grids.append(_moved(grid, -pad))
                break
    return _distinct(grids)


def _with_paper(gray: Gray) -> tuple[Gray, int]:
    """Return the picture with paper around it, and how many pixels of it, so that a grid may touch its edge."""
    pad = max(8, max(gray.shape) // 24)
    paper = cv2.morphologyEx(gray, cv2.MORPH_CLOSE, np.ones((2 * _STROKE, 2 * _STROKE), np.uint8))
    padded = cv2.copyMakeBorder(paper, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    padded[pad:-pad, pad:-pad] = gray
    return np.asarray(padded, np.uint8), pad


def _moved(grid: Grid, by: int) -> Grid:
    return replace(grid, corners=grid.corners + np.float32(by), mesh=grid.mesh + np.float32(by))


def _leaves(corners: Floats, small: Gray) -> bool:
    """Return whether the grid goes on beyond the picture."""
    height, width = small.shape
    beyond = np.maximum(-corners, corners - np.array([width - 1, height - 1]))
    return float(beyond.max()) > _BEYOND * float(np.sqrt(cv2.contourArea(corners)))


def _is_cut(quad: Floats, small: Gray) -> bool:
    """Return whether a whole side of the quadrilateral [4, 2] lies along an edge of the picture."""
    height, width = small.shape
    margins = np.stack([quad[:, 0], quad[:, 1], width - 1 - quad[:, 0], height - 1 - quad[:, 1]], axis=1)
    at_edge = margins < _EDGE * max(height, width)  # [corners, edges]
    return bool((at_edge & np.roll(at_edge, 1, axis=0)).any())


def _grids(small: Gray, quads: list[Floats]) -> list[Grid]:
    return [grid for quad in quads if (grid := _grid(small, quad)) is not None]


def _grid(small: Gray, quad: Floats) -> Grid | None:
    """Return the grid that ``quad`` [4, 2] frames, its lines fitted; None where there are no such lines."""
    flat = Rectified(small, quad)
    large = cv2.contourArea(quad) > _LARGE * small.size
    for kind in _KINDS:
        needed = _WORTH_A_TRY if large and kind is _KINDS[0] else _WORTH_FITTING * kind.least
        if flat.evidence(kind.lines) >= needed:
            grid = _fitted(small, quad, kind)
            if grid is not None:
                return grid
    return None


def refit(gray: Gray, grid: Grid) -> Grid | None:
    """Return ``grid`` with its lines fitted anew near where it is expected, in pixels of ``gray``; None: no lines.

    ``gray`` is a picture of about ``WORK_SIDE`` pixels.
    """
    pattern = (grid.lines, grid.side, grid.framed)
    kind = next(kind for kind in (*_KINDS, _FRAMELESS) if (kind.lines, kind.cells, kind.framed) == pattern)
    gray = np.asarray(cv2.bitwise_not(gray), np.uint8) if grid.negative else gray
    height, width = gray.shape
    edge = _EDGE * max(gray.shape)
    if grid.corners.min() > edge and (grid.corners < np.array([width, height]) - 1 - edge).all():
        fitted = _fitted(gray, grid.corners, kind, follow=True)
    else:
        padded, pad = _with_paper(gray)
        fitted = _fitted(padded, grid.corners + np.float32(pad), kind, follow=True)
        fitted = None if fitted is None else _moved(fitted, -pad)
    return None if fitted is None else replace(fitted, negative=grid.negative)


def _fitted(gray: Gray, quad: Floats, kind: _Kind, follow: bool = False) -> Grid | None:
    """Return the grid near ``quad`` [4, 2]; ``follow``: also along lines that are bent far, which takes its time."""
    mesh = fit_mesh(gray, quad, kind.lines, kind.cells)
    corners = outline(mesh)
    flat = Rectified(gray, corners)
    evidence = flat.evidence(kind.lines, reach=3, framed=kind.framed)
    if follow and kind.lines == kind.cells == 9 and _WORTH_FOLLOWING <= evidence < _SURE_SCORE:
        bent = follow_mesh(gray, mesh)
        along = Rectified(gray, outline(bent), bent).evidence(kind.lines, reach=3, framed=kind.framed)
        if along > evidence + _WORTH_BENDING and cv2.isContourConvex(np.rint(outline(bent)).astype(np.int32)):
            mesh, corners, evidence = bent, outline(bent), along
    score = kind.weight * evidence
    if evidence < kind.least or (score < _SURE_SCORE and _slimness(corners) > _SQUARE):
        return None
    if kind.lines < kind.cells:
        small, large = flat.marks()
        if small < _FEWEST_MARKS or 4 * large > small:  # a single box has the same lines, but larger digits
            return None
    return Grid(corners, mesh, score, kind.cells, kind.lines, kind.framed)


def _slimness(quad: Floats) -> float:
    """Return longest to shortest side; a square seen from 45 degrees has about 1.5."""
    sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
    return float(sides.max() / max(1e-6, sides.min()))


def _around_boxes(small: Gray, quads: list[Floats]) -> list[Floats]:
    """Return quadrilaterals of grids of which one of ``quads`` might be a box, as far as they lie in the picture."""
    around = []
    height, width = small.shape
    box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    for quad in sorted(quads, key=cv2.contourArea, reverse=True)[:40]:
        if _slimness(quad) > _SQUARE or Rectified(small, quad).evidence(3) < _WORTH_FITTING:
            continue
        mesh = fit_mesh(small, quad, 3)  # the farther one goes from a box, the more its corners matter
        homography = cv2.getPerspectiveTransform(box, outline(mesh))
        for row in range(3):
            for column in range(3):
                grid = project(3 * box - np.array([column, row], np.float32), homography)
                inside = (grid > -0.02 * width) & (grid < np.array([1.02 * width, 1.02 * height]))
                if inside.all():
                    around.append(grid)
    return around


def _proposals(small: Gray, boxes: bool = False) -> Iterator[list[Floats]]:
    """Return lists of quadrilaterals, likelier ways of finding them first; ``boxes``: see :func:`_quads`."""
    smooth = cv2.GaussianBlur(small, (3, 3), 0)
    for block, offset in ((31, 8), (15, 4), (61, 6), (11, 2)):
        ink = cv2.adaptiveThreshold(smooth, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, block, offset)
        yield _quads(ink, boxes)
        yield _quads(cv2.dilate(ink, np.ones((3, 3), np.uint8)), boxes)
    # the edge of a shadow is ink to a threshold and may tie the grid to what is beside it; to a closing it is none
    closed = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((_STROKE, _STROKE), np.uint8))
    share = cv2.divide(cv2.subtract(closed, smooth), closed, scale=255)
    ink = cv2.adaptiveThreshold(share, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 31, -_FAINT)
    yield _quads(ink, boxes)
    yield _quads(cv2.dilate(ink, np.ones((3, 3), np.uint8)), boxes)


def _quads(ink: Gray, boxes: bool) -> list[Floats]:
    """Return quadrilaterals [4, 2] around the large connected parts of a picture of ink, largest first.

    ``boxes``: also the least rectangles around them: without its frame a grid has no corners.
    """
    contours, _ = cv2.findContours(ink, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    hulls = [cv2.convexHull(c) for c in contours if len(c) >= 4]
    smallest = _MIN_AREA * ink.size
    sized = sorted(((cv2.contourArea(h), i) for i, h in enumerate(hulls)), reverse=True)
    distinct: list[Floats] = []
    for area, index in sized[:12]:
        if area < smallest:
            break
        around = [_clockwise(cv2.boxPoints(cv2.minAreaRect(hulls[index])).astype(np.float32))] if boxes else []
        for quad in (_four_corners(hulls[index]), *around):
            if quad is not None and not any(np.abs(quad - other).max() < _SAME for other in distinct):
                distinct.append(quad)
    return distinct


def _four_corners(hull: NDArray[np.int32]) -> Floats | None:
    """Return the quadrilateral nearest to a hull, clockwise from the top left; None where its shape is another."""
    length, area = cv2.arcLength(hull, True), cv2.contourArea(hull)
    for share in (0.01, 0.02, 0.03, 0.05, 0.08, 0.12):
        polygon = cv2.approxPolyDP(hull, share * length, True)
        if len(polygon) <= 4:
            break
    if len(polygon) != 4 or cv2.contourArea(polygon) < 0.8 * area:
        return None
    return _clockwise(polygon.reshape(4, 2).astype(np.float32))


def _clockwise(corners: Floats) -> Floats:
    """Return corners [4, 2] of a convex quadrilateral clockwise, the first being the top left as seen."""
    centre = corners.mean(axis=0)
    angles = np.arctan2(corners[:, 1] - centre[1], corners[:, 0] - centre[0])  # y points down: rising is clockwise
    ordered = corners[np.argsort(angles)]
    return np.roll(ordered, -int(ordered.sum(axis=1).argmin()), axis=0).astype(np.float32)


def _distinct(grids: list[Grid]) -> list[Grid]:
    """Return the best of each set of overlapping grids, best first; of two good ones the larger is better."""
    kept: list[Grid] = []
    for grid in sorted(grids, key=_rank, reverse=True):
        if all(grid.overlap(other) < _OVERLAP for other in kept):
            kept.append(grid)
    return kept


def _rank(grid: Grid) -> float:
    """Rank by size too: a part of a grid, 6x6 cells say, looks like a grid."""
    return grid.score * grid.area**0.35


def _rescaled(grid: Grid, scale: float) -> Grid:
    """Return a grid of the reduced picture in pixels of the full one."""
    corners, mesh = ((points + 0.5) / scale - 0.5 for points in (grid.corners, grid.mesh))
    return replace(grid, corners=corners.astype(np.float32), mesh=mesh.astype(np.float32))
