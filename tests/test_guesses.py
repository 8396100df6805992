"""Guesses in further views: where a model is unsure some cells are filled in by what it believes, and checked."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_edge.session import FRESH
from hrm_edge.solve import GUESSES, SolveOptions, solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku import FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_board import geometry
from hrm_edge.tasks.sudoku_search import find_solutions
from tests.scripted import ScriptedSession, answer_of, puzzles, spec_of

MINI = Sudoku(2, 2)


class Undecided:
    """Sees the answer once ``enough`` cells are given; before, every blank is half one digit and half the next."""

    max_batch, backend = 64, "undecided"

    def __init__(self, enough: int) -> None:
        self.spec, self.enough, self.shown = spec_of(MINI), enough, []

    def initial_carry(self, batch):
        return np.zeros(batch)

    def gather(self, carry, rows):
        return np.where(rows == FRESH, 0, carry[rows])

    def step(self, tokens, puzzle_ids, carry):
        logits = np.full((len(tokens), MINI.seq_len, MINI.vocab), -9, np.float32)
        for row, puzzle in enumerate(tokens):
            self.shown.append(puzzle.copy())
            found = find_solutions(MINI, puzzle, 1).solutions
            certain = len(found) and (puzzle >= FIRST_DIGIT).sum() >= self.enough
            believed = found[0] if len(found) else np.full(MINI.seq_len, FIRST_DIGIT, np.uint8)
            other = (believed - FIRST_DIGIT + 1) % MINI.side + FIRST_DIGIT
            logits[row, np.arange(MINI.seq_len), believed] = 2
            logits[row, np.arange(MINI.seq_len), other] = -9 if certain else 2.1
        return carry, logits, np.zeros((len(tokens), 1), np.float32)


def test_guesses_solve_what_symmetries_alone_do_not() -> None:
    givens = puzzles(MINI, 20, blanks=8)
    assert not solve(Undecided(enough=10), MINI, givens, max_steps=1, views=24).verified.any()
    model = Undecided(enough=10)
    found = solve(model, MINI, givens, max_steps=1, views=24, guesses=2)
    assert found.verified.mean() > 0.9
    assert MINI.verify(givens, found.answers)[found.verified].all()
    assert (found.views[found.verified] > 1).all()  # the first view is the puzzle as it is
    clues = {int((shown >= FIRST_DIGIT).sum()) for shown in model.shown}
    assert clues == {8, 10}


@pytest.mark.parametrize("slots", [1, 3, 20])
def test_slots_do_not_change_guesses(slots: int) -> None:
    givens = puzzles(MINI, 12, blanks=8)
    alone = solve(Undecided(enough=10), MINI, givens, max_steps=2, views=6, guesses=2, slots=2, seed=4)
    found = solve(Undecided(enough=10), MINI, givens, max_steps=2, views=6, guesses=2, slots=slots, seed=4)
    assert (found.views == alone.views).all()
    assert (found.answers == alone.answers).all()


def test_a_guess_is_an_open_cell_with_a_digit_that_its_peers_allow() -> None:
    task = get_task("sudoku")
    assert isinstance(task, Sudoku)
    rng = np.random.default_rng(0)
    answer = puzzles(task, 1, blanks=0)[0]
    givens = np.where(rng.random(81) < 0.3, answer, 1).astype(np.uint8)
    peers = geometry(task).peers
    for _ in range(50):
        logits = rng.normal(size=(81, 11)).astype(np.float32)
        guessed = task.with_guesses(givens, logits, 5, rng)
        added = np.flatnonzero(guessed != givens)
        assert 1 <= len(added) <= 5
        assert (givens[added] < FIRST_DIGIT).all()
        for cell in added:
            assert guessed[cell] not in guessed[peers[cell]]


def test_a_model_that_is_sure_is_not_second_guessed() -> None:
    task = get_task("sudoku")
    answer = puzzles(task, 1, blanks=0)[0]
    logits = np.full((81, 11), -1e4, np.float32)
    logits[np.arange(81), answer] = 1e4
    givens = answer.copy()
    givens[:40] = 1
    assert (task.with_guesses(givens, logits, 3, np.random.default_rng(0)) == givens).all()


@pytest.mark.parametrize("name", ["maze-5x5", "arc"])
def test_tasks_that_do_not_fill_cells_return_the_puzzle(name: str) -> None:
    task = get_task(name)
    givens = np.zeros(task.seq_len, np.uint8)
    logits = np.zeros((task.seq_len, task.vocab), np.float32)
    assert task.with_guesses(givens, logits, 3, np.random.default_rng(0)) is givens


def test_only_a_model_whose_answer_moves_with_the_board_guesses_unasked() -> None:
    class Lattice(Undecided):
        def __init__(self) -> None:
            super().__init__(enough=0)
            self.spec = variant_spec("lattice", vocab=6, seq_len=16, grid=(4, 4, 2, 2))

    assert SolveOptions().guesses_of(Lattice()) == GUESSES
    assert SolveOptions().guesses_of(Undecided(enough=0)) == 0


def test_a_budget_ends_the_views_of_a_puzzle() -> None:
    givens = puzzles(MINI, 5, blanks=6)
    model = ScriptedSession(MINI, spec_of(MINI), hopeless=1.0)
    assert solve(model, MINI, givens, views=5, max_steps=2, budget_s=3600).views.tolist() == [5] * 5
    assert solve(model, MINI, givens, views=5, max_steps=2, budget_s=1e-9).views.tolist() == [1] * 5
    easy = ScriptedSession(MINI, spec_of(MINI), hopeless=0.0)
    assert solve(easy, MINI, givens, budget_s=1e-9).verified.all()  # the view that is running is ended by the answer
    assert (answer_of(MINI, givens[0]) == solve(easy, MINI, givens[:1]).answers[0]).all()
