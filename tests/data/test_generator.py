"""Generated puzzles: one solution, what was asked for, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.data.generator import DIFFICULTIES, Generated, Wanted, _guesses_of, generate
from hrm_edge.data.solver import solve_many
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import find_solutions

TASKS = [Sudoku(2, 2), Sudoku(2, 3), Sudoku(3, 3), Sudoku(3, 4)]
NINE = Sudoku(3, 3)


def clues(made: Generated) -> np.ndarray:
    return np.asarray((made.puzzles.givens > 1).sum(axis=1))


def same(one: Generated, two: Generated) -> bool:
    pairs = [
        (one.puzzles.givens, two.puzzles.givens),
        (one.puzzles.labels, two.puzzles.labels),
        *zip(one[1:], two[1:], strict=True),
    ]
    return all((a == b).all() for a, b in pairs)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_unique_and_minimal(task: Sudoku) -> None:
    made = generate(task, 20, 3, Wanted())
    solved = solve_many(task, made.puzzles.givens)
    assert (solved.counts == 1).all()
    assert (solved.answers == made.puzzles.labels).all()
    assert task.verify(made.puzzles.givens, made.puzzles.labels).all()
    assert (solved.guesses == made.guesses).all()
    assert len(find_solutions(task, made.puzzles.givens[0]).solutions) == 1  # and by the solver that is not compiled
    if task.side <= 9:
        for puzzle in made.puzzles.givens[:5]:
            given = np.nonzero(puzzle > 1)[0]
            without = np.tile(puzzle, (len(given), 1))
            without[np.arange(len(given)), given] = 1
            assert (solve_many(task, without).counts == 2).all()


def test_same_seed_same_puzzles_other_seed_others() -> None:
    first, again, other = (generate(NINE, 30, seed, Wanted()) for seed in (1, 1, 2))
    assert same(first, again)
    assert not np.isin(first.classes, other.classes).any()
    longer = generate(NINE, 60, 1, Wanted())
    assert (longer.puzzles.givens[:30] == first.puzzles.givens).all()


def test_clue_targets() -> None:
    made = generate(NINE, 60, 4, Wanted(clues=(30, 34)))
    assert set(clues(made)) == set(range(30, 35))
    minimal = generate(NINE, 20, 4, Wanted(clues=(25, 25), minimal=True))
    assert (clues(minimal) == 25).all()
    given = minimal.puzzles.givens[0] > 1
    without = np.tile(minimal.puzzles.givens[0], (25, 1))
    without[np.arange(25), np.nonzero(given)[0]] = 1
    assert (solve_many(NINE, without).counts == 2).all()


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_difficulties(name: str) -> None:
    low, high = DIFFICULTIES[name]
    made = generate(NINE, 5, 5, Wanted(guesses=_guesses_of(name)))
    assert made.guesses.min() >= low
    assert high is None or made.guesses.max() <= high


def test_no_puzzle_twice() -> None:
    small = generate(Sudoku(2, 2), 3000, 0, Wanted(clues=(4, 5)))
    assert len(np.unique(small.puzzles.givens, axis=0)) == 3000
    six = generate(Sudoku(2, 3), 1000, 0, Wanted())
    assert len(np.unique(six.classes)) == 1000


def test_what_cannot_be_is_said_at_once() -> None:
    for wanted, message in (
        (Wanted(clues=(10, 16)), "fewer than 17 clues"),
        (Wanted(clues=(30, 20)), "30-20 is no range"),
        (Wanted(clues=(90, 95)), "90-95 is no range"),
        (Wanted(guesses=(5, 3)), "--min-guesses 5 is above --max-guesses 3"),
    ):
        with pytest.raises(UserError, match=message):
            generate(NINE, 1, 0, wanted)
    with pytest.raises(UserError, match="unknown difficulty 'hrad'\ndid you mean 'hard'"):
        _guesses_of("hrad")


def test_running_out_of_puzzles_is_said() -> None:
    """There are 1,536 minimal 4x4 puzzles of 6 clues."""
    with pytest.raises(UserError, match=r"found only \d+ of 2000 such puzzles: 300 tries in a row"):
        generate(Sudoku(2, 2), 2000, 0, Wanted(clues=(6, 6), minimal=True), give_up=300)
