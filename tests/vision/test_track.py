"""One grid followed through a video, and what is drawn on it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[vision]'")
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision import overlay
from hrm_edge.vision.judge import Verdict
from hrm_edge.vision.locate import Grid
from hrm_edge.vision.read import turned
from hrm_edge.vision.track import HOLD_S, Tracker
from tests.vision.scenes import CELL, EASY, OTHER, paper, scene

NINE = Sudoku(3, 3)
MINI = "0030400000020100"


def follow(tracker: Tracker, frames, fps: float = 30.0) -> list[Grid | None]:
    return [tracker.update(frame, now_s=n / fps) for n, frame in enumerate(frames)]


def test_a_grid_is_followed_with_its_corners_in_order_while_the_paper_turns_all_the_way_round():
    sheet, tracker = paper(EASY), Tracker()
    turns = np.linspace(0, 360, 41)
    grids = follow(tracker, (scene(sheet, turn=turn) for turn in turns))
    assert all(grid is not None for grid in grids)
    assert tracker.tracks == 1
    for before, after in itertools.pairwise(grids):
        assert np.abs(before.corners - after.corners).max() < 90  # a jump to the next corner would be 250
    assert np.abs(grids[0].corners - grids[-1].corners).max() < 9
    halfway = grids[20].corners  # turned by 180 degrees: the first corner is at the bottom right
    assert (halfway[0] > halfway[2]).all()


def test_corners_of_a_grid_at_rest_do_not_tremble():
    sheet, tracker, rng = paper(EASY), Tracker(), np.random.default_rng(0)
    still = scene(sheet, at=0.2).astype(np.float64)
    grids = follow(
        tracker, [np.clip(still + rng.normal(0, 6, still.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    )
    places = np.stack([grid.corners for grid in grids[5:]])
    assert places.std(axis=0).max() < 0.3


def covered(image):
    """An arm over a good part of the grid."""
    image = image.copy()
    cv2.circle(image, (225, 180), 130, (120, 150, 200), -1)
    return image


def test_a_grid_half_hidden_is_carried_along_and_then_given_up():
    sheet, tracker = paper(EASY), Tracker()
    at = [n / 90 for n in range(36)]
    frames = [scene(sheet, at=where) for where in at]
    free = follow(Tracker(), frames)
    hidden = follow(tracker, [frame if n < 10 else covered(frame) for n, frame in enumerate(frames)])
    assert hidden[10] is not None
    assert not tracker.seen
    held = [n for n in range(10, 36) if hidden[n] is not None]
    assert held == list(range(10, 10 + len(held)))
    assert len(held) / 30 == pytest.approx(HOLD_S, abs=0.05)  # then it is gone
    error = np.abs(hidden[25].corners - free[25].corners).max()
    assert error < 5
    assert np.abs(free[25].corners - free[9].corners).max() > 15  # it did move meanwhile
    again = tracker.update(frames[-1], now_s=10)
    assert again is not None
    assert tracker.tracks == 2


def test_a_cut_to_another_scene_is_another_track():
    tracker = Tracker()
    assert tracker.update(scene(paper(EASY), at=0.1), 0.0) is not None
    assert tracker.update(np.full((480, 640, 3), 90, np.uint8), 0.03) is None
    small = cv2.resize(paper(OTHER), (300, 300))
    canvas = np.full((480, 640, 3), 90, np.uint8)
    canvas[170:470, 320:620] = small
    assert tracker.update(canvas, 0.06) is not None
    assert tracker.tracks == 2


def test_several_grids_in_view_are_counted_and_the_one_followed_is_kept():
    def both(left: float) -> np.ndarray:
        canvas = np.full((480, 900, 3), 110, np.uint8)
        for x, scale in ((10, left), (460, 1.0 if left < 1 else 0.7)):
            sheet = cv2.resize(paper(EASY), None, fx=0.68 * scale, fy=0.68 * scale, interpolation=cv2.INTER_AREA)
            canvas[20 : 20 + len(sheet), x : x + len(sheet)] = sheet
        return canvas

    tracker = Tracker()
    first = tracker.update(both(1.0), 0.0)
    assert tracker.in_view == 2
    assert first.corners[:, 0].max() < 450  # the larger one is on the left
    second = tracker.update(both(0.95), 0.1)
    assert second.corners[:, 0].max() < 450  # and stays the one, though the other is larger now


def test_a_grid_of_another_size_is_told_and_not_followed():
    tracker = Tracker()
    assert tracker.update(scene(paper(MINI, 4)), 0.0) is None
    assert (tracker.other_side, tracker.in_view) == (4, 0)
    assert tracker.update(scene(paper(EASY)), 0.1) is not None
    assert tracker.other_side is None


# ---- overlay ----


def exact(sheet: np.ndarray) -> Grid:
    """The grid of a sheet that lies flat."""
    steps = (2 * CELL + CELL * np.arange(10)).astype(np.float32)
    mesh = np.stack(np.meshgrid(steps, steps), axis=-1)
    return Grid(np.ascontiguousarray(mesh[[0, 0, -1, -1], [0, -1, -1, 0]]), mesh, 1.0)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Cells [81] of a flat sheet in which anything was drawn."""
    inside = np.abs(before.astype(int) - after).max(axis=2)[2 * CELL : 11 * CELL, 2 * CELL : 11 * CELL]
    return inside.reshape(9, CELL, 9, CELL).max(axis=(1, 3)).ravel() > 40


def test_the_answer_goes_into_the_blanks_and_nowhere_else():
    givens = NINE.parse(EASY)
    answer = require_unique(NINE, givens)
    sheet = paper(EASY)
    image = sheet.copy()
    overlay._draw_answer(image, exact(sheet), givens, answer)
    assert (changed(sheet, image) == (givens == 1)).all()
    assert (image[: 2 * CELL] == sheet[: 2 * CELL]).all()


def test_what_a_person_should_look_at_is_framed():
    puzzle = NINE.parse(EASY)
    answer = require_unique(NINE, puzzle)
    blanks = np.flatnonzero(puzzle == 1).tolist()
    right, wrong, doubtful, repaired = *blanks[:2], *np.flatnonzero(puzzle > 1)[:2].tolist()
    verdict = Verdict(puzzle, None, (repaired,), (doubtful,), ignored=(right, wrong), disagreeing=(wrong,))
    sheet = paper(EASY)
    image = sheet.copy()
    overlay.draw_result(image, exact(sheet), verdict, answer)
    assert np.flatnonzero(changed(sheet, image)).tolist() == sorted({*blanks, doubtful, repaired} - {right})

    def has(cell: int, color: overlay.Color) -> bool:
        top, left = 2 * CELL + CELL * (cell // 9), 2 * CELL + CELL * (cell % 9)
        return bool((np.abs(image[top : top + CELL, left : left + CELL].astype(int) - color).max(axis=2) < 40).any())

    assert [cell for cell in range(81) if has(cell, overlay.SEEKING)] == sorted([doubtful, repaired])
    assert [cell for cell in range(81) if has(cell, overlay.REFUSED)] == [wrong]
    assert has(wrong, overlay.ANSWER)


def test_each_digit_is_the_right_one_in_every_direction():
    """Turned back, what was drawn into one cell of an empty grid looks like that digit and no other."""
    sheet = paper("0" * 81)
    grid = exact(sheet)
    givens = np.full(81, 2, np.uint8)
    givens[10] = 1  # the blank is in row 2, column 2
    answer = np.full(81, 2, np.uint8)
    answer[10] = 8  # digit 7
    for quarters in range(4):
        image = sheet.copy()
        overlay._draw_answer(image, turned(grid, 90 * quarters), givens, answer)
        upright = np.abs(np.rot90(image.astype(int), quarters) - np.rot90(sheet, quarters)).max(axis=2)
        drawn = upright[3 * CELL : 4 * CELL, 3 * CELL : 4 * CELL].ravel()
        glyphs = [cv2.resize(overlay._glyph(n), (CELL, CELL), interpolation=cv2.INTER_AREA) for n in range(1, 10)]
        alike = [[np.corrcoef(drawn, np.rot90(one, turn).ravel())[0, 1] for turn in range(4)] for one in glyphs]
        assert np.unravel_index(np.argmax(alike), (9, 4)) == (6, 0)
        assert np.max(alike) > 0.9
        assert changed(sheet, image).sum() == 1


def test_drawing_beyond_the_edge_of_the_picture_is_clipped():
    sheet = paper(EASY)
    givens = NINE.parse(EASY)
    answer = require_unique(NINE, givens)
    grid = exact(sheet)
    for shift in ((-300, -300), (400, 200), (5000, 0), (-9000, -9000)):
        moved = replace(grid, mesh=grid.mesh + np.float32(shift), corners=grid.corners + np.float32(shift))
        image = sheet.copy()
        overlay._draw_answer(image, moved, givens, answer)
        overlay.draw_outline(image, moved, overlay.ANSWER)
        assert (image != sheet).any() == (max(np.abs(shift)) < 1000)


@pytest.mark.parametrize("width", [64, 320, 1920])
def test_text_fits_any_picture(width):
    image = np.full((width * 3 // 4, width, 3), 200, np.uint8)
    overlay.draw_text(image, "cannot be solved: contradictory givens: two 5s in row 3", (255, 255, 255))
    assert (image[0] == 200).all()
    bright = np.flatnonzero((image > 120).all(axis=2)[-max(8, width // 40) :].any(axis=0))
    assert bright.max(initial=0) < width - 1
