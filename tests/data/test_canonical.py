"""Canonical forms: invariant, idempotent, the smallest there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hrm_edge.data.canonical import canonical, has_canonical, identities
from hrm_edge.data.generator import Wanted, _candidates, generate
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import Sudoku

TASKS = [Sudoku(2, 2), Sudoku(2, 3), Sudoku(3, 2), Sudoku(3, 3)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_invariant_under_every_symmetry(task: Sudoku) -> None:
    rng = np.random.default_rng(0)
    made = generate(task, 60, 5, Wanted()).puzzles
    assert made.labels is not None
    for tokens in (made.givens, made.labels[:10]):
        form = canonical(task, tokens)
        for _ in range(3):
            assert (canonical(task, task.random_views(len(tokens), rng).apply(tokens)) == form).all()
        assert (canonical(task, form) == form).all()
        assert ((form > 1).sum(axis=1) == (tokens > 1).sum(axis=1)).all()
        assert (canonical(task, tokens[0]) == form[0]).all()


def test_different_puzzles_stay_different() -> None:
    """One clue moved or relabelled makes another class, as other minimal puzzles do."""
    task = Sudoku(3, 3)
    made = _candidates(task, 6, Wanted(), 0)[0]
    assert len(np.unique(identities(task, made))) == len(made) == 256
    fewer = made.copy()
    for row in fewer:
        row[np.nonzero(row > 1)[0][0]] = 1
    assert not np.isin(identities(task, fewer), identities(task, made)).any()


def _smallest(task: Sudoku, tokens: Tokens) -> bytes:
    """The definition, for 4x4: every cell permutation, digits by first appearance."""
    orders = [a + b for x, y in (((0, 1), (2, 3)), ((2, 3), (0, 1)))
              for a in itertools.permutations(x) for b in itertools.permutations(y)]  # fmt: skip
    found = []
    for grid in (tokens.reshape(4, 4), tokens.reshape(4, 4).T):
        for rows, columns in itertools.product(orders, orders):
            names = {1: 1}
            found.append(
                bytes(names.setdefault(t, len(names) + 1) for t in grid[np.ix_(rows, columns)].ravel().tolist())
            )
    return min(found)


def test_is_the_smallest_of_all_equivalents() -> None:
    task = Sudoku(2, 2)
    made = generate(task, 60, 7, Wanted(clues=(4, 9))).puzzles.givens
    assert [form.tobytes() for form in canonical(task, made)] == [_smallest(task, puzzle) for puzzle in made]


def test_known_17_clue_puzzle_is_its_own_form() -> None:
    """The first of the published lists of 17-clue puzzles, which are in this very form."""
    task = Sudoku(3, 3)
    text = "000000000000000001000002030000003020001040000005000060030000004070080009620007000"
    puzzle = task.parse(text)
    view = task.random_views(1, np.random.default_rng(1)).apply(puzzle[None])[0]
    assert task.format(view) != text
    assert task.format(canonical(task, view)) == text


def test_all_minimal_4x4_puzzles_are_36_classes() -> None:
    task = Sudoku(2, 2)
    assert len(np.unique(generate(task, 3000, 0, Wanted()).classes)) == 36


def test_large_boards_have_none() -> None:
    assert not has_canonical(Sudoku(4, 4))
    with pytest.raises(UserError, match="no canonical form for sudoku-4x4"):
        canonical(Sudoku(4, 4), np.ones((1, 256), np.uint8))
