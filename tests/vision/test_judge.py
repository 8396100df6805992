"""The rules accept, repair or refuse a reading, and say why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hrm_edge.tasks.sudoku import BLANK, FIRST_DIGIT
from hrm_edge.tasks.sudoku_search import find_solutions, require_unique
from hrm_edge.vision.judge import MAX_COST, MAX_DOUBT, MAX_WORK, judge
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


@pytest.mark.parametrize("bound", ["MAX_WORK", "MAX_TRIES"])
def test_a_repair_is_taken_only_where_all_its_rivals_were_looked_at(monkeypatch, bound):
    """The likeliest repair may be a wrong one; a search that ends early has not shown that no other is as likely."""
    doubts = {2: (int(PUZZLES[0][2]), 0.3), 40: (5, 0.2), 0: (4, 0.2), 8: (7, 0.2)}
    seen = reading(wrong({2: 8}), doubts)
    assert judge(seen, NINE).repaired == (2,)
    taken = []
    for most in range(1, 60):
        monkeypatch.setattr(f"hrm_edge.vision.judge.{bound}", most)
        taken.append(judge(seen, NINE).puzzle is not None)
    assert taken == sorted(taken), "never with fewer where not with more"
    assert taken.index(True) > 5


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


def test_a_rival_in_cells_read_as_blanks_alone_is_none():
    """A missed digit is put back by the rules; that another one there would leave several answers is no doubt."""
    puzzle, cell, other = "005004008000200300801300000000000004900100030040032060000916200100400800050000070", 2, 2
    seen = reading(puzzle[:cell] + "0" + puzzle[cell + 1 :])
    seen.probabilities[cell, [0, int(puzzle[cell]), other]] = 0.5, 0.35, 0.15
    for smudge in (0, 1, 3, 4, 6, 7):  # that would clash, so it is no repair: digits may have been missed here
        seen.probabilities[smudge, [0, 8]] = 0.7, 0.3
    verdict = judge(seen, NINE)
    assert verdict.puzzle is not None
    assert NINE.format(verdict.puzzle) == puzzle
    assert verdict.repaired == (cell,)


def test_a_digit_taken_for_another_twice_makes_no_answer():
    """In one print two 3s that look like 5s are one error: it is likelier than both by themselves."""
    tried = 0
    for text in PUZZLES:
        puzzle = NINE.parse(text)
        answer = require_unique(NINE, puzzle)
        for digit, other in itertools.permutations(range(1, 10), 2):
            for pair in itertools.combinations(np.flatnonzero(puzzle == digit + BLANK).tolist(), 2):
                changed = puzzle.copy()
                changed[list(pair)] = other + BLANK
                if len(find_solutions(NINE, changed, 2).solutions) != 1:
                    continue
                seen = NINE.format(changed)
                sure = dict.fromkeys(pair, (digit, 0.001))
                taken = judge(reading(seen, sure), NINE).puzzle
                assert taken is not None
                assert NINE.format(taken) == seen
                verdict = judge(reading(seen, dict.fromkeys(pair, (digit, 0.07))), NINE)  # 2.6 nats each
                assert verdict.puzzle is None or np.array_equal(require_unique(NINE, verdict.puzzle), answer)
                tried += 1
    assert tried > 2


def test_what_is_left_out_of_a_puzzle_gives_it_no_other_answer():
    """A reading that is a puzzle, one of whose digits may be written, is not repaired without that digit."""
    right = require_unique(NINE, NINE.parse(PUZZLES[0]))
    tried = 0
    clues = [at for at, digit in enumerate(PUZZLES[0]) if digit != "0"]
    for left_out, cell in itertools.islice(itertools.permutations(clues, 2), 200):
        for digit in range(1, 10):
            other = NINE.parse(PUZZLES[0]).copy()
            other[[left_out, cell]] = BLANK, digit + BLANK
            found = find_solutions(NINE, other, 2).solutions
            if len(found) != 1 or np.array_equal(found[0], right):
                continue
            written = np.full(81, 0.03, np.float32)
            written[left_out] = 0.3
            verdict = judge(replace(reading(PUZZLES[0], {cell: (digit, 0.16)}), written=written), NINE)
            tried += 1
            assert verdict.puzzle is None or np.array_equal(require_unique(NINE, verdict.puzzle), right)
    assert tried > 5


def test_a_written_digit_taken_for_print_makes_no_answer():
    """A printed digit taken for a written one is left out; a player's wrong entry, taken for print, then decides."""
    puzzle = NINE.parse(PUZZLES[1])
    answer = require_unique(NINE, puzzle)
    tried = 0
    for given, entered, other in wrong_entries(puzzle, answer):
        differing = np.flatnonzero((other != answer) & (puzzle == BLANK))
        played = [cell for cell in differing if cell != entered][:2]
        digits = puzzle.copy()
        digits[entered], digits[played] = other[entered], answer[played]
        written = np.full(81, 0.03, np.float32)
        written[[given, *played]] = 0.6
        text = NINE.format(digits)
        verdict = judge(replace(reading(text), written=written), NINE)
        assert verdict.puzzle is None or (require_unique(NINE, verdict.puzzle) == answer).all()
        tried += 1
    assert tried > 5


def test_a_printed_digit_misread_and_taken_for_written_makes_no_answer():
    """The misread digit is left out for it fits nothing; a player's wrong entry, taken for print, then decides."""
    puzzle = NINE.parse(PUZZLES[1])
    answer = require_unique(NINE, puzzle)
    tried = 0
    for given, entered, other in wrong_entries(puzzle, answer):
        for digit in range(FIRST_DIGIT, FIRST_DIGIT + 9):
            seen = puzzle.copy()
            seen[entered], seen[given] = other[entered], digit
            if digit == puzzle[given] or len(find_solutions(NINE, seen).solutions):
                continue
            written = np.full(81, 0.03, np.float32)
            written[entered], written[given] = 0.057, 0.56
            doubts = {given: (int(puzzle[given] - BLANK), 0.2)}
            verdict = judge(replace(reading(NINE.format(seen), doubts), written=written), NINE)
            assert verdict.puzzle is None or (require_unique(NINE, verdict.puzzle) == answer).all()
            tried += 1
    assert tried > 5


def wrong_entries(puzzle: np.ndarray, answer: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (given, blank, other answer): in place of the given, that answer's digit in the blank leaves it alone."""
    for given in np.flatnonzero(puzzle > BLANK).tolist():
        without = puzzle.copy()
        without[given] = BLANK
        for other in find_solutions(NINE, without, 5).solutions:
            differing = np.flatnonzero((other != answer) & (puzzle == BLANK)).tolist()
            entered = next((cell for cell in differing if only(without, cell, other)), None)
            if entered is not None:
                yield given, entered, other


def only(without: np.ndarray, cell: int, other: np.ndarray) -> bool:
    """Whether ``without`` with the digit that ``other`` has in ``cell`` has one solution."""
    more = without.copy()
    more[cell] = other[cell]
    return len(find_solutions(NINE, more).solutions) == 1


def test_a_wrong_entry_among_right_ones_is_left_out():
    """Where nothing printed was missed, what people wrote wrongly takes nothing from a puzzle."""
    puzzle = NINE.parse(PUZZLES[1])
    answer = require_unique(NINE, puzzle)
    blanks = np.flatnonzero(puzzle == BLANK)
    digits = puzzle.copy()
    digits[blanks[:20]] = answer[blanks[:20]]
    wrong_cells = blanks[:6:2]
    digits[wrong_cells] = (answer[wrong_cells] - FIRST_DIGIT + 1) % 9 + FIRST_DIGIT
    written = np.where(puzzle == BLANK, 0.95, 0.02).astype(np.float32)
    verdict = judge(replace(reading(NINE.format(digits)), written=written), NINE)
    assert verdict.puzzle is not None
    assert (require_unique(NINE, verdict.puzzle) == answer).all()
    assert verdict.disagreeing == tuple(wrong_cells)


def test_digits_that_are_needed_and_hardly_likely_are_no_answer():
    needed = [cell for cell in np.flatnonzero([c != "0" for c in PUZZLES[1]]) if not unique_without(cell)][:2]
    for share, taken in ((0.4, True), (0.2, False)):  # of two digits: 1.8 and 3.2 nats
        doubtful = reading(PUZZLES[1])
        for cell in needed:  # the rest is spread over digits that clash
            clashing = [d for d in range(1, 10) if "two" in str(judge(reading(swapped(cell, d)), NINE, False).why)]
            doubtful.probabilities[cell, int(PUZZLES[1][cell])] = share
            doubtful.probabilities[cell, clashing] = (1 - share) / len(clashing)
        verdict = judge(doubtful, NINE)
        assert (verdict.puzzle is not None) is taken, verdict.why
        assert taken or verdict.doubt > MAX_DOUBT


def unique_without(cell: int) -> bool:
    without = NINE.parse(PUZZLES[1])
    without[cell] = BLANK
    return len(find_solutions(NINE, without).solutions) == 1


def test_the_search_has_a_budget(monkeypatch):
    """Few digits, half of them in doubt, allow more readings than anybody wants to wait for."""
    rng = np.random.default_rng(3)
    answer = [int(c) for c in NINE.format(require_unique(NINE, NINE.parse(PUZZLES[1])))]
    probabilities = np.full((81, 10), 1e-6, np.float32)
    probabilities[:, 0] = 1
    for number, cell in enumerate(rng.permutation(81)[:22]):
        digit, others = answer[cell], rng.permutation([d for d in range(1, 10) if d != answer[cell]])[:2]
        probabilities[cell] = 1e-6
        probabilities[cell, [digit, *others]] = (0.3, 0.5, 0.2) if number < 12 else (1, 1e-6, 1e-6)
    spent = []

    def counted(*arguments):
        searched = find_solutions(*arguments)
        spent.append(1 + searched.guesses)
        return searched

    monkeypatch.setattr("hrm_edge.vision.judge.find_solutions", counted)
    verdict = judge(Reading(GRID, probabilities, 0), NINE)
    assert sum(spent) <= MAX_WORK + 1
    assert verdict.puzzle is None
    assert verdict.why is not None
    assert verdict.why.problem == f"what it says was not settled by {MAX_WORK} checks with the rules"
    spent.clear()
    monkeypatch.setattr("hrm_edge.vision.judge.MAX_WORK", 100 * MAX_WORK)
    judge(Reading(GRID, probabilities, 0), NINE)
    assert sum(spent) > MAX_WORK + 1
