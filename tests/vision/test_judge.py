"""The rules accept, repair or refuse a reading, and say why."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.vision.judge import MAX_COST, judge
from hrm_edge.vision.locate import Grid
from hrm_edge.vision.read import Reading
from tests.vision.rendered import NINE, PUZZLES

GRID = Grid(np.zeros((4, 2), np.float32), np.zeros((10, 10, 2), np.float32), 1.0)


def reading(digits: str, doubts: dict[int, tuple[int, float]] | None = None) -> Reading:
    """A sure reading of ``digits``; ``doubts``: cell → (the other digit, how likely that is)."""
    probabilities = np.full((81, 10), 1e-7, np.float32)
    probabilities[np.arange(81), [int(c) for c in digits]] = 1.0
    for cell, (digit, share) in (doubts or {}).items():
        probabilities[cell, int(digits[cell])], probabilities[cell, digit] = 1 - share, share
    return Reading(GRID, probabilities, 0)


def wrong(cells: dict[int, int]) -> str:
    return "".join(str(cells.get(cell, int(c))) for cell, c in enumerate(PUZZLES[0]))


def test_a_puzzle_is_taken_as_read():
    verdict = judge(reading(PUZZLES[0]), NINE)
    assert verdict.puzzle is not None
    assert NINE.format(verdict.puzzle) == PUZZLES[0]
    assert (verdict.why, verdict.repaired) == (None, ())


@pytest.mark.parametrize("cells", [{2: 8}, {2: 8, 9: 4}, {9: 4, 17: 7, 30: 7}])
def test_doubtful_cells_are_repaired_by_the_rules(cells):
    doubts = {cell: (int(PUZZLES[0][cell]), 0.2) for cell in cells}
    doubts[40] = (5, 0.02)  # a blank in doubt that is right
    verdict = judge(reading(wrong(cells), doubts), NINE)
    assert verdict.puzzle is not None
    assert NINE.format(verdict.puzzle) == PUZZLES[0]
    assert set(verdict.repaired) == set(cells)


def test_what_the_network_is_sure_of_is_not_overruled():
    cells = {2: 2}  # a second 2 in row 1
    verdict = judge(reading(wrong(cells), {2: (3, float(np.exp(-MAX_COST - 1)))}), NINE)
    assert verdict.puzzle is None
    assert verdict.why is not None
    assert verdict.why.what == "contradictory givens: two 2s in row 1"
    assert judge(reading(wrong(cells), {2: (3, 0.2)}), NINE).puzzle is not None
    assert judge(reading(wrong(cells), {2: (3, 0.2)}), NINE, repair=False).puzzle is None


def test_of_two_repairs_that_are_as_likely_none_is_taken():
    cell = PUZZLES[0].index("0")  # a blank read as a digit that clashes
    probabilities = reading(wrong({cell: 3}), {cell: (0, 0.2)}).probabilities
    assert judge(Reading(GRID, probabilities, 0), NINE).repaired == (cell,)
    probabilities[cell, 4] = 0.19  # the right digit there would make a puzzle too
    assert judge(Reading(GRID, probabilities, 0), NINE).puzzle is None


@pytest.mark.parametrize(
    ("digits", "what"),
    [
        ("0" * 81, "only 0 digits were read, a puzzle has at least 17"),
        (wrong({2: 2}), "contradictory givens: two 2s in row 1"),
        (wrong({2: 9}), "contradictory givens: two 9s in box 1"),
        ("0" * 27 + PUZZLES[0][27:], "the puzzle has several solutions: row "),
        (wrong({0: 5}), "the puzzle has no solution"),
    ],
)
def test_what_is_no_puzzle_says_why(digits, what):
    verdict = judge(reading(digits), NINE)
    assert verdict.puzzle is None
    assert verdict.why is not None
    assert verdict.why.what.startswith(what)
