"""One grid followed through a video: carried along by optical flow, its lines fitted again in every frame."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np

from hrm_edge.vision.images import Floats, Gray, Image
from hrm_edge.vision.lattice import outline
from hrm_edge.vision.locate import WAYS, WORK_SIDE, Grid, Way, locate, refit
from hrm_edge.vision.read import TURNS, turned

HOLD_S = 0.7  # a grid whose lines are not found is carried along this long, then it is gone
_KEPT = 0.8  # of the score that a grid was found with: below, its lines are lost
_SAME = 0.5  # a grid that overlaps the last one by this share of the smaller is the same one
_STILL = 0.004  # of the grid's side: less motion than that is noise of the corners, and is smoothed
_SMOOTHING = 0.7
_OTHER_WAY_EVERY = 4  # frames in which nothing is found: one of them is looked at in another way (light on dark, say)
_MIN_POINTS = 12  # that have to move together


class Tracker:
    """Feed it every frame; it chooses a grid and stays with it. Grids of another ``side`` are reported, not followed.

    Looking for a grid anywhere costs ten times as much as following one, so it is done only while none is followed.
    """

    def __init__(self, side: int = 9) -> None:
        self.side = side
        self.tracks = 0
        """Grids followed so far: grows whenever another one is chosen, so that nothing read before counts for it."""
        self.in_view = 0
        """Grids of ``side`` cells that were in view when this one was chosen."""
        self.other_side: int | None = None
        """Cells along a side of a grid of another size, where only such a one is in view."""
        self.seen = False
        """Whether the last frame itself shows the grid's lines; where False it was carried along."""
        self._grid: Grid | None = None  # in pixels of the reduced picture
        self._before: Gray | None = None
        self._score = 0.0
        self._seen_s = 0.0
        self._way = WAYS[0]
        """Way to look for the next grid first: light on dark where the last one was."""
        self._misses = 0

    def update(self, image: Image, now_s: float | None = None) -> Grid | None:
        """Return the grid in BGR ``image`` uint8 [h, w, 3], or None. ``now_s``: seconds of any clock that goes on.

        Its first corner stays at the same corner of the paper, however that turns.
        """
        now_s = time.perf_counter() if now_s is None else now_s
        gray, scale = _reduced(image)
        carried = self._carried(gray)
        fitted = None if carried is None else refit(gray, carried)
        self.seen = fitted is not None and fitted.score >= _KEPT * self._score
        if self.seen and fitted is not None and self._grid is not None:
            self._grid = _smoothed(fitted, self._grid)
        elif not self._search(image, scale) and (carried is None or now_s - self._seen_s >= HOLD_S):
            self._grid = None
        elif not self.seen:
            self._grid = carried
        if self.seen:
            self._seen_s = now_s
        self._before = gray
        return None if self._grid is None else _scaled(self._grid, 1 / scale)

    def _search(self, image: Image, scale: float) -> bool:
        """Look for the grid anywhere: the last one if it is there, else the best; whether there is one."""
        way = self._next_way()
        located = locate(image, way=way)
        grids = [_scaled(grid, scale) for grid in located if grid.side == self.side]
        self.other_side = located[0].side if located and not grids else None
        last = self._grid
        near = None if last is None else max(grids, key=last.overlap, default=None)
        if last is not None and near is not None and near.overlap(last) > _SAME:
            self._grid = _aligned(near, last)
        elif grids:
            self._grid = grids[0]
            self.tracks += 1
        else:
            return False
        self.in_view, self._score, self.seen = len(grids), self._grid.score, True
        self._way, self._misses = Way(negative=way.negative), 0
        return True

    def _next_way(self) -> Way:
        """Return the way that worked last; now and then, where nothing is found, another one in its turn."""
        turn, rest = divmod(self._misses, _OTHER_WAY_EVERY)
        self._misses += 1
        others = [way for way in WAYS if way != self._way]
        return self._way if not turn or rest or self.other_side is not None else others[(turn - 1) % len(others)]

    def _carried(self, gray: Gray) -> Grid | None:
        """Return the last grid where its points have gone; None where they do not move together."""
        if self._grid is None or self._before is None or self._before.shape != gray.shape:
            return None
        inside = np.zeros_like(gray)
        cv2.fillConvexPoly(inside, np.rint(self._grid.corners).astype(np.int32), 255)
        points = cv2.goodFeaturesToTrack(self._before, 100, 0.02, 8, mask=inside)
        if points is None or len(points) < _MIN_POINTS:
            return None
        there, is_there, _ = cv2.calcOpticalFlowPyrLK(self._before, gray, points, None)  # 21x21 pixels, 4 levels
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray, self._before, there, None)
        good = (is_there & found_back).ravel().astype(bool) & (np.abs(back - points).reshape(-1, 2).max(axis=1) < 1)
        if good.sum() < _MIN_POINTS:
            return None
        motion, inliers = cv2.findHomography(points[good], there[good], cv2.RANSAC, 2.0)
        if motion is None or int(inliers.sum()) < max(_MIN_POINTS, 0.5 * good.sum()):
            return None
        mesh = cv2.perspectiveTransform(self._grid.mesh.reshape(-1, 1, 2), motion).reshape(self._grid.mesh.shape)
        moved = _with_mesh(self._grid, mesh.astype(np.float32))
        return moved if cv2.isContourConvex(np.rint(moved.corners).astype(np.int32)) else None


def _with_mesh(grid: Grid, mesh: Floats) -> Grid:
    return replace(grid, mesh=mesh, corners=outline(mesh))


def _aligned(grid: Grid, last: Grid) -> Grid:
    """Return ``grid`` with its corners in the order of ``last``."""
    return min(
        (turned(grid, degrees) for degrees in TURNS), key=lambda g: float(np.abs(g.corners - last.corners).sum())
    )


def _smoothed(grid: Grid, last: Grid) -> Grid:
    """Return ``grid``, or where it hardly moved a mean with ``last``: corners of a grid at rest do not tremble."""
    if float(np.abs(grid.mesh - last.mesh).max()) > _STILL * float(np.sqrt(grid.area)):
        return grid
    return _with_mesh(grid, (_SMOOTHING * last.mesh + (1 - _SMOOTHING) * grid.mesh).astype(np.float32))


def _reduced(image: Image) -> tuple[Gray, float]:
    """Return the picture in gray, at most ``WORK_SIDE`` pixels long, and by how much it was reduced."""
    scale = min(1.0, WORK_SIDE / max(image.shape[:2]))
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return (cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray), scale


def _scaled(grid: Grid, factor: float) -> Grid:
    """Scale coordinates: pixel centres are at whole numbers, so it is the edges that scale."""
    return grid if factor == 1 else _with_mesh(grid, ((grid.mesh + 0.5) * factor - 0.5).astype(np.float32))
