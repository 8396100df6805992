"""The rules accept, repair or refuse a reading, and say why."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.tasks.sudoku_search import require_unique
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
    assert verdict.why.problem == "contradictory givens: two 2s in row 1"
    assert judge(reading(wrong(cells), {2: (3, 0.2)}), NINE).puzzle is not None
    assert judge(reading(wrong(cells), {2: (3, 0.2)}), NINE, repair=False).puzzle is None


def test_a_doubt_between_a_digit_and_a_blank_goes_by_how_full_the_grid_is():
    def read(puzzle: str, cell: int) -> str:
        """What comes of ``puzzle`` when the digit of ``cell`` is a little less likely than a blank."""
        verdict = judge(reading(puzzle, {cell: (0, 0.55)}), NINE)
        assert verdict.puzzle is not None
        assert verdict.repaired == ()
        return NINE.format(verdict.puzzle)

    answer = NINE.format(require_unique(NINE, NINE.parse(PUZZLES[0])))
    assert read(answer, 40) == answer
    spare = next(  # a given that the puzzle does not need
        cell
        for cell in np.flatnonzero([c != "0" for c in PUZZLES[0]])
        if judge(reading(wrong({cell: 0})), NINE).puzzle is not None
    )
    assert read(PUZZLES[0], spare) == wrong({spare: 0})


def test_a_small_repair_of_a_full_grid_is_found_among_many_doubts():
    """Two digits that clash, one of them read with much confidence, beside 28 doubts that are none."""
    answer = NINE.format(require_unique(NINE, NINE.parse(PUZZLES[0])))
    cells = (4, 41)
    full = list(answer)
    for cell in cells:
        full[cell] = str(int(answer[cell]) % 9 + 1)
    doubts = {cell: (int(answer[cell]) % 9 + 1, 0.18) for cell in range(50, 78)}
    doubts[4], doubts[41] = (int(answer[4]), 0.3), (int(answer[41]), 0.01)
    verdict = judge(reading("".join(full), doubts), NINE)
    assert verdict.puzzle is not None
    assert NINE.format(verdict.puzzle) == answer
    assert set(verdict.repaired) == set(cells)
    assert verdict.ignored == ()


def test_repairs_must_agree_on_the_solution():
    blank = PUZZLES[0].index("0")  # read as a digit that clashes: a blank and the right digit do as well
    probabilities = reading(wrong({blank: 3}), {blank: (0, 0.2)}).probabilities
    probabilities[blank, 4] = 0.19
    assert judge(Reading(GRID, probabilities, 0), NINE).repaired == (blank,)
    # a given that would make another proper puzzle too, read as a digit that clashes
    cell, other = next(
        (cell, digit)
        for cell in np.flatnonzero([c != "0" for c in PUZZLES[1]])
        for digit in range(1, 10)
        if str(digit) != PUZZLES[1][cell]
        and judge(reading(swapped(cell, digit)), NINE, repair=False).puzzle is not None
    )
    clash = next(d for d in range(1, 10) if "two" in str(judge(reading(swapped(cell, d)), NINE, repair=False).why))
    doubtful = reading(swapped(cell, clash), {cell: (int(PUZZLES[1][cell]), 0.2)})
    assert judge(doubtful, NINE).repaired == (cell,)
    doubtful.probabilities[cell, other] = 0.19
    assert judge(doubtful, NINE).puzzle is None


def swapped(cell: int, digit: int) -> str:
    return PUZZLES[1][:cell] + str(digit) + PUZZLES[1][cell + 1 :]


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
    assert verdict.why.problem.startswith(what)


def test_digits_are_not_changed_where_some_are_missing():
    """Several solutions say that a digit was missed, not that one of those read is wrong."""
    cell, other = next(  # another digit there, in a given that the rest does not settle, makes a puzzle too
        (cell, digit)
        for cell in np.flatnonzero([c != "0" for c in PUZZLES[1]])
        for digit in range(1, 10)
        if str(digit) != PUZZLES[1][cell]
        and judge(reading(swapped(cell, digit)), NINE, repair=False).puzzle is not None
    )
    lacking = [given for given in np.flatnonzero([c != "0" for c in PUZZLES[1]]) if given != cell]
    for given in lacking:
        left = PUZZLES[1][:given] + "0" + PUZZLES[1][given + 1 :]
        plain = judge(reading(left), NINE, repair=False)
        changed = judge(reading(left[:cell] + str(other) + left[cell + 1 :]), NINE, repair=False)
        if plain.puzzle is None and changed.puzzle is not None:
            assert judge(reading(left, {cell: (other, 0.3)}), NINE).puzzle is None
            return
    pytest.skip("no given of this puzzle is such a one")


def test_a_reading_with_a_rival_is_refused():
    cell, other = next(
        (cell, digit)
        for cell in np.flatnonzero([c != "0" for c in PUZZLES[1]])
        for digit in range(1, 10)
        if str(digit) != PUZZLES[1][cell]
        and judge(reading(swapped(cell, digit)), NINE, repair=False).puzzle is not None
    )
    assert judge(reading(PUZZLES[1], {cell: (other, 0.001)}), NINE).puzzle is not None
    verdict = judge(reading(PUZZLES[1], {cell: (other, 0.2)}), NINE)
    assert verdict.puzzle is None
    read = f"row {cell // 9 + 1} column {cell % 9 + 1} read as {PUZZLES[1][cell]} (80%)"
    assert f"too much of it is uncertain: {read}" in verdict.why.problem
