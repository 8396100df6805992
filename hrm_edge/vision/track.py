"""One grid followed through a video: found again near where it was, carried along by optical flow where it was not."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np

from hrm_edge.vision.locate import Floats, Gray, Grid, Image, locate
from hrm_edge.vision.read import TURNS, turned

HOLD_S = 0.7  # a grid that is not found is carried along this long, then it is gone
FLOW_SIDE = 480  # pixels of the longer side that motion is estimated at
_SAME = 0.5  # a grid that overlaps the last one by this share of the smaller is the same one
_STILL = 0.004  # of the grid's side: less motion than that is noise of the corners, and is smoothed
_SMOOTHING = 0.7
_MIN_POINTS = 12  # that have to move together


class Tracker:
    """Feed it every frame; it chooses a grid and stays with it. Sides other than ``side`` are told, not followed."""

    def __init__(self, side: int = 9) -> None:
        self.side = side
        self.grid: Grid | None = None
        """The grid followed. Its first corner stays at the same corner of the paper, however that turns."""
        self.tracks = 0
        """Grids followed so far: grows whenever another one is chosen, so that nothing read before counts for it."""
        self.in_view = 0
        """Grids of ``side`` cells in the last frame."""
        self.other_side: int | None = None
        """Cells along a side of a grid of another size, where only such a one is in view."""
        self.seen = False
        """Whether the last frame itself shows the grid; where False it was carried along."""
        self._before: Gray | None = None
        self._seen_s = 0.0

    def update(self, image: Image, now_s: float | None = None) -> Grid | None:
        """The grid in BGR ``image`` uint8 [h, w, 3], or None. ``now_s``: seconds of any clock that goes on."""
        now_s = time.perf_counter() if now_s is None else now_s
        found = locate(image)
        grids = [grid for grid in found if grid.side == self.side]
        self.in_view = len(grids)
        self.other_side = found[0].side if found and not grids else None
        gray, scale = _reduced(image)
        last = self.grid
        if last is not None:
            near = max(grids, key=lambda grid: overlap(grid, last), default=None)
            if near is not None and overlap(near, last) > _SAME:
                self.grid, self._seen_s, self.seen = _smoothed(_aligned(near, last), last), now_s, True
                self._before = gray
                return self.grid
            self.seen = False
            if now_s - self._seen_s < HOLD_S and self._before is not None and self._before.shape == gray.shape:
                carried = _carried(self._before, gray, last, scale)
                if carried is not None:
                    self.grid, self._before = carried, gray
                    return carried
        self.grid, self.seen = (grids[0], True) if grids else (None, False)
        self.tracks += bool(grids)
        self._seen_s, self._before = now_s, gray
        return self.grid


def overlap(one: Grid, other: Grid) -> float:
    """Shared area as a share of the smaller one."""
    shared, _ = cv2.intersectConvexConvex(one.corners, other.corners)
    return float(shared) / max(1.0, min(one.area, other.area))


def _aligned(grid: Grid, last: Grid) -> Grid:
    """``grid`` with its corners in the order of ``last``."""
    return min(
        (turned(grid, degrees) for degrees in TURNS), key=lambda g: float(np.abs(g.corners - last.corners).sum())
    )


def _smoothed(grid: Grid, last: Grid) -> Grid:
    """``grid``, or where it hardly moved a mean with ``last``: corners of a grid at rest do not tremble."""
    moved = float(np.abs(grid.mesh - last.mesh).max())
    if moved > _STILL * float(np.sqrt(grid.area)):
        return grid
    mesh = (_SMOOTHING * last.mesh + (1 - _SMOOTHING) * grid.mesh).astype(np.float32)
    return replace(grid, mesh=mesh, corners=np.ascontiguousarray(mesh[[0, 0, -1, -1], [0, -1, -1, 0]]))


def _reduced(image: Image) -> tuple[Gray, float]:
    scale = min(1.0, FLOW_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), scale


def _carried(before: Gray, now: Gray, grid: Grid, scale: float) -> Grid | None:
    """``grid`` of the frame ``before`` where it is ``now``; None where its points do not move together."""
    inside = np.zeros_like(before)
    cv2.fillConvexPoly(inside, np.rint(grid.corners * scale).astype(np.int32), 255)
    points = cv2.goodFeaturesToTrack(before, 120, 0.01, 6, mask=inside)
    if points is None or len(points) < _MIN_POINTS:
        return None
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, points, None, winSize=(21, 21), maxLevel=3)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, winSize=(21, 21), maxLevel=3)
    good = (found & found_back).ravel().astype(bool) & (np.abs(back - points).reshape(-1, 2).max(axis=1) < 1)
    if good.sum() < _MIN_POINTS:
        return None
    motion, inliers = cv2.findHomography(points[good], there[good], cv2.RANSAC, 2.0)
    if motion is None or int(inliers.sum()) < max(_MIN_POINTS, 0.5 * good.sum()):
        return None
    mesh = cv2.perspectiveTransform((grid.mesh * scale).reshape(-1, 1, 2), motion).reshape(grid.mesh.shape) / scale
    mesh = mesh.astype(np.float32)
    corners = np.ascontiguousarray(mesh[[0, 0, -1, -1], [0, -1, -1, 0]])
    if not cv2.isContourConvex(np.rint(corners).astype(np.int32)):
        return None
    return replace(grid, mesh=mesh, corners=corners)
