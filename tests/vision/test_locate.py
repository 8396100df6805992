"""Grids are found where they truly are, and only there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hrm_edge.vision.locate import _clockwise, locate
from tests.vision.rendered import PUZZLES, SEEDS, photo


@pytest.mark.parametrize("seed", SEEDS)
def test_every_crossing_lies_where_it_was_drawn(seed):
    taken = photo(seed)
    (grid, *_) = locate(taken.image)
    cell = float(np.linalg.norm(taken.mesh[0, 0] - taken.mesh[9, 9])) / 2**0.5 / 9
    off = np.linalg.norm(grid.mesh - taken.mesh, axis=-1) / cell
    assert off.max() < 0.25
    assert off.mean() < 0.08
    assert grid.side == 9
    np.testing.assert_allclose(grid.corners, grid.mesh[[0, 0, 9, 9], [0, 9, 9, 0]], atol=1e-3)


@pytest.mark.parametrize("turn", [17, 45, 90, 200, 315])
def test_a_turned_grid_is_found(turn):
    image = photo(SEEDS[3], cell=24).image
    height, width = image.shape[:2]
    side = int(np.hypot(height, width)) + 2
    spin = cv2.getRotationMatrix2D((width / 2, height / 2), -turn, 1.0)
    spin[:, 2] += (side - np.array([width, height])) / 2
    turned = cv2.warpAffine(image, spin, (side, side), borderValue=(70, 70, 70))
    truth = _clockwise(cv2.transform(photo(SEEDS[3], cell=24).mesh[[0, 0, 9, 9], [0, 9, 9, 0]][None], spin)[0])
    (grid, *_) = locate(turned)
    assert np.abs(grid.corners - truth).max() < 0.2 * 24


def test_a_part_of_a_grid_does_not_pass_for_a_smaller_one():
    taken = photo(39, cell=32)  # its first four rows look like a grid of 4x4
    (grid, *_) = locate(taken.image)
    assert grid.side == 9
    assert np.abs(grid.mesh - taken.mesh).max() < 0.25 * 32


def test_of_two_grids_both_are_found_and_the_larger_leads():
    large, small = photo(SEEDS[0], cell=34), photo(SEEDS[1], cell=15, puzzle=PUZZLES[1])
    height = max(large.image.shape[0], small.image.shape[0])
    parts = [
        cv2.copyMakeBorder(p.image, 0, height - p.image.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(70, 70, 70))
        for p in (small, large)
    ]
    grids = locate(np.hstack(parts))
    assert len(grids) == 2
    assert grids[0].area > 2 * grids[1].area
    assert grids[0].corners[:, 0].min() > parts[0].shape[1]


def test_a_grid_of_four_by_four_says_so():
    image = np.full((400, 400, 3), 240, np.uint8)
    for line in range(5):
        at, width = 60 + 70 * line, 5 if line % 2 == 0 else 2
        cv2.line(image, (60, at), (340, at), (20, 20, 20), width)
        cv2.line(image, (at, 60), (at, 340), (20, 20, 20), width)
    (grid, *_) = locate(image)
    assert grid.side == 4


def _text() -> np.ndarray:
    image = np.full((480, 640, 3), 235, np.uint8)
    for row in range(22):
        cv2.putText(image, "the quick brown fox 0123456789 jumps over", (8, 20 + 21 * row), 0, 0.85, (40, 40, 40), 2)
    return image


def _half() -> np.ndarray:
    image = photo(SEEDS[2], cell=34).image
    return image[:, : image.shape[1] // 2]


@pytest.mark.parametrize(
    "image",
    [
        np.full((480, 640, 3), 128, np.uint8),
        np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8),
        cv2.rectangle(np.full((480, 640, 3), 230, np.uint8), (100, 60), (500, 420), (0, 0, 0), 4),
        _text(),
        _half(),
        np.zeros((64, 2000, 3), np.uint8),
    ],
    ids=["blank", "noise", "frame", "text", "half a grid", "strip"],
)
def test_no_grid_is_made_up(image):
    assert [grid for grid in locate(image) if grid.side == 9] == []
