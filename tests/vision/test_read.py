"""The shipped network reads rendered photos, whichever way up they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.vision.cells import CELL, _cells_of, _normalise, flatten
from hrm_edge.vision.fuse import Fusion
from hrm_edge.vision.lattice import lattice_points, mesh_map
from hrm_edge.vision.locate import locate
from hrm_edge.vision.read import MODEL, Reader, Reading
from hrm_edge.vision.recognise import recognise
from tests.vision.rendered import NINE, PUZZLES, SEEDS, photo


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_photo_is_read_whichever_way_up_it_is(reader, seed, turn):
    taken = photo(seed, cell=32, puzzle=PUZZLES[seed % 2], turn=turn)
    found = recognise(taken.image, reader, NINE)
    assert found.verdict.puzzle is not None
    assert NINE.format(found.verdict.puzzle) == PUZZLES[seed % 2]
    assert found.reading.orientation == turn
    cell = float(np.linalg.norm(taken.mesh[0, 0] - taken.mesh[0, 9])) / 9
    assert np.abs(found.reading.grid.mesh - taken.mesh).max() < 0.4 * cell  # from the puzzle's own top left
    assert set(found.ms) == {"locate", "read", "judge"}


def test_directions_that_a_sample_of_the_cells_shows_less_clearly_are_left_out(reader, monkeypatch):
    taken = photo(SEEDS[4], cell=30, turn=90)
    (grid, *_) = locate(taken.image)
    monkeypatch.setattr("hrm_edge.vision.read._CLEARER", 0.0)
    (sampled,) = reader.directions(taken.image, grid)
    monkeypatch.setattr("hrm_edge.vision.read._CLEARER", float("inf"))
    compared = reader.directions(taken.image, grid)
    assert sorted(reading.orientation for reading in compared) == [0, 90, 180, 270]
    assert sampled.orientation == compared[0].orientation == 90
    np.testing.assert_allclose(sampled.probabilities, compared[0].probabilities, atol=1e-4)


def test_a_known_direction_gives_the_same_reading(reader):
    taken = photo(SEEDS[4], cell=30, turn=90)
    (grid, *_) = locate(taken.image)
    free, told = reader.read(taken.image, grid), reader.read(taken.image, grid, orientation=90)
    np.testing.assert_allclose(free.probabilities, told.probabilities, atol=0.05)
    np.testing.assert_array_equal(free.digits, told.digits)
    assert free.probabilities.sum(axis=1) == pytest.approx(np.ones(81), abs=1e-4)


def test_a_grid_of_a_large_picture_is_laid_flat_from_its_own_part_alone():
    page = np.random.default_rng(0).integers(0, 255, (1200, 1500), np.uint8)
    page = cv2.GaussianBlur(page, (0, 0), 4)
    mesh = lattice_points(9, 900, 0) + np.array([300, 200], np.float32)
    there = flatten(page, mesh).astype(int)
    alone = flatten(page[180:1120, 280:1220], mesh - np.array([280, 180], np.float32)).astype(int)
    assert np.abs(there - alone).max() <= 2  # what lies farther off has no part in it
    beyond = flatten(page, mesh + np.float32(5000))  # a grid that has left the picture
    assert beyond.shape == there.shape


def test_the_map_of_a_mesh_goes_through_its_crossings():
    mesh = lattice_points(9, 360, 20)
    mesh[..., 0] += 0.1 * mesh[..., 1] + 6 * np.sin(mesh[..., 0] / 60)
    mesh[..., 1] *= 1 + mesh[..., 0] / 4000
    at = mesh_map(mesh, np.arange(0, 9 * 20 + 1, 20, dtype=np.float32), 20)
    np.testing.assert_allclose(at, mesh, atol=1e-2)


def test_the_edge_of_a_shadow_is_no_ink():
    page = np.full((9 * CELL, 9 * CELL), 200, np.uint8)
    page[::CELL] = page[:, ::CELL] = 60
    page[10:22, 14:18] = 60  # a one in the first cell
    shade = 1 - 0.5 / (1 + np.exp(-(np.arange(9 * CELL) - 140) / 4))  # through the middle of a column
    cells = _cells_of(_normalise(cv2.GaussianBlur((page * shade).astype(np.uint8), (5, 5), 0)))
    middle = cells[:, 8:-8, 8:-8].max(axis=(1, 2))
    assert middle[0] > 0.5
    assert middle[1:].max() < 0.3 * middle[0]


def test_the_network_is_small():
    assert MODEL.stat().st_size < 1_000_000


def test_a_network_that_is_no_network_is_told(tmp_path):
    (tmp_path / "digits.onnx").write_bytes(b"not ONNX")
    with pytest.raises(UserError, match="the digit network cannot be loaded"):
        Reader(tmp_path / "digits.onnx")


def _reading(like: Reading, digits: str, sure: float) -> Reading:
    probabilities = np.full((81, 10), (1 - sure) / 9, np.float32)
    probabilities[np.arange(81), [int(c) for c in digits]] = sure
    return Reading(like.grid, probabilities, 0)


def test_frames_outvote_a_blurred_one_and_another_puzzle_starts_anew(reader):
    taken = photo(SEEDS[0], cell=30)
    (grid, *_) = locate(taken.image)
    like = reader.read(taken.image, grid)
    fusion = Fusion()
    blurred = PUZZLES[0].replace("8", "3")
    fusion.add(_reading(like, blurred, 0.5))
    assert not fusion.stable
    for _ in range(4):
        fused = fusion.add(_reading(like, PUZZLES[0], 0.9))
    assert "".join(map(str, fused.digits)) == PUZZLES[0]
    assert fusion.stable
    assert fusion.frames == 5
    fused = fusion.add(_reading(like, PUZZLES[1], 0.99))
    assert "".join(map(str, fused.digits)) == PUZZLES[1]
    assert fusion.frames == 1
