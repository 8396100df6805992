"""Seeded generator of puzzles with one solution, for any box size.

A puzzle is a random full grid from which cells are removed in random order while its solution stays unique. Puzzle n of
a seed depends only on (seed, n) and candidates are taken in that order, so the number of processes does not matter.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.canonical import identities, keys
from hrm_edge.data.parallel import in_order, only_new
from hrm_edge.data.solver import flat_geometry
from hrm_edge.errors import UserError, nearest
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import BLANK, Sudoku

_CHUNK = 256  # candidates per call; their order, and so a seed's puzzles, do not depend on it
_GIVE_UP = 100_000  # candidates in a row without a wanted puzzle
_FEWEST_CLUES = {(2, 2): 4, (2, 3): 8, (3, 2): 8, (3, 3): 17}  # of a puzzle with one solution; 17: McGuire et al. 2012
_LARGE_BOARD_BUDGET = 1000  # guesses per removed clue beyond 9x9; a clue not decided within it is kept
DIFFICULTIES: dict[str, tuple[int, int | None]] = {
    "easy": (0, 0),
    "medium": (1, 3),
    "hard": (4, 15),
    "extreme": (16, None),
}
"""Guesses of our solver until the first solution; 49%, 37%, 13% and 0.7% of minimal 9x9 puzzles are in these ranges."""


@dataclass(frozen=True)
class Wanted:
    """Requirements on a generated puzzle."""

    clues: tuple[int, int] | None = None
    """Fewest and most clues; None: as few as possible."""
    minimal: bool = False
    """Whether every clue must be needed (implied by ``clues=None``; beyond 9x9, as far as the solver can decide)."""
    guesses: tuple[int, int | None] = (0, None)
    """Fewest and most guesses of the solver."""

    def check(self, task: Sudoku) -> None:
        """Raise ``UserError`` if no puzzle of ``task`` can meet the requirements."""
        low, high = self.clues or (task.seq_len, task.seq_len)
        if low > high or not 0 <= low <= task.seq_len:
            raise UserError(f"--clues {low}-{high} is no range of clues of {task.name}", "give it as N or LOW-HIGH")
        fewest = _FEWEST_CLUES.get((task.box_rows, task.box_cols), 0)
        if high < fewest:
            raise UserError(
                f"--clues {high}: no {task.name} puzzle with one solution has fewer than {fewest} clues",
                "ask for more clues",
            )
        if self.guesses[1] is not None and self.guesses[0] > self.guesses[1]:
            raise UserError(f"--min-guesses {self.guesses[0]} is above --max-guesses {self.guesses[1]}", "swap the two")

    def accepts(self, clues: NDArray[np.int64], guesses: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the mask [N] of the wanted puzzles by their numbers of clues [N] and guesses [N]."""
        low, high = self.clues or (0, np.iinfo(np.int64).max)
        least, most = self.guesses[0], np.iinfo(np.int64).max if self.guesses[1] is None else self.guesses[1]
        return np.asarray((clues >= low) & (clues <= high) & (guesses >= least) & (guesses <= most))


def default_wanted(task: Sudoku) -> Wanted:
    """Return the default requirements: minimal puzzles; for 4x4, 4 to 8 clues.

    All minimal 4x4 puzzles fall into only 36 symmetry classes; those with 4 to 8 clues fall into 2,234.
    """
    return Wanted(clues=(4, 8)) if task.side == 4 else Wanted()


def _guesses_of(name: str) -> tuple[int, int | None]:
    """Return the range of guesses of a named difficulty."""
    if name not in DIFFICULTIES:
        raise UserError(f"unknown difficulty '{name}'", nearest(name, DIFFICULTIES))
    return DIFFICULTIES[name]


def wanted_of(
    task: Sudoku,
    *,
    clues: str | None,
    minimal: bool | None,
    difficulty: str | None,
    min_guesses: int | None,
    max_guesses: int | None,
) -> Wanted | None:
    """Return what the options of 'data build' ask of generated puzzles; None where they ask nothing.

    ``clues``: ``N`` or ``LOW-HIGH``. Raises ``UserError`` for options that exclude each other.
    """
    if clues is None and not minimal and difficulty is None and min_guesses is None and max_guesses is None:
        return None
    if difficulty is not None and (min_guesses is not None or max_guesses is not None):
        raise UserError("--difficulty is a range of guesses itself", "leave out --min-guesses and --max-guesses")
    if task.side == 4 and (difficulty is not None or min_guesses):
        raise UserError(f"{task.name} puzzles never need a guess", "leave out --difficulty and --min-guesses")
    guesses = _guesses_of(difficulty) if difficulty is not None else (min_guesses or 0, max_guesses)
    return Wanted(clues=_clue_range(clues), minimal=bool(minimal), guesses=guesses)


def _clue_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise UserError(f"--clues {text} is no number of clues", "give it as N or LOW-HIGH, e.g. --clues 28-34")
    return int(low), int(high or low)


class Generated(NamedTuple):
    """N puzzles with their unique solutions, and what the generator knows of them."""

    puzzles: Puzzles
    guesses: NDArray[np.int64]
    """Guesses of our solver until the first solution [N]."""
    classes: NDArray[np.void]
    """Symmetry class of each [N]; where the board is too large for canonical forms, the puzzle itself."""


_Chunk = tuple[Tokens, Tokens, NDArray[np.int64], NDArray[np.void]]  # puzzles and solutions [n, S], guesses, classes


def _candidates(task: Sudoku, seed: int, wanted: Wanted, first: int) -> _Chunk:
    """Return the wanted puzzles among number ``first`` … ``first + _CHUNK - 1`` of a seed."""
    from hrm_edge.data import sudoku_numba  # the compiler is an optional dependency

    inputs, labels = np.zeros((2, _CHUNK, task.seq_len), np.uint8)
    guesses = np.zeros(_CHUNK, np.int64)
    low, high = (0, 0) if wanted.clues is None or wanted.minimal else wanted.clues
    budget = sudoku_numba.NO_BUDGET if task.side <= 9 else _LARGE_BOARD_BUDGET
    sudoku_numba.generate(
        np.uint64(seed), first, low, high, budget, *flat_geometry(task), task.side, inputs, labels, guesses
    )
    kept = wanted.accepts((inputs > BLANK).sum(axis=1), guesses)
    inputs, labels, guesses = inputs[kept], labels[kept], guesses[kept]
    return inputs, labels, guesses, identities(task, inputs)


def generate(
    task: Sudoku,
    count: int,
    seed: int,
    wanted: Wanted,
    *,
    processes: int = 1,
    accept: Callable[[NDArray[np.void]], NDArray[np.bool_]] | None = None,
    on_progress: Callable[[int], None] | None = None,
    give_up: int = _GIVE_UP,
) -> Generated:
    """Return ``count`` different wanted puzzles of a seed, the same for any number of processes.

    No two are equal; from 6x6 to 9x9 no two are equivalent either. ``accept`` returns by their classes [n] a mask [n]
    of the candidates to keep; ``on_progress`` gets the number of puzzles so far. Raises ``UserError`` after ``give_up``
    candidates in a row without a new puzzle: such puzzles have then run out.
    """
    wanted.check(task)

    def names(chunk: _Chunk) -> list[bytes | None]:
        inputs, _, _, classes = chunk
        kept = np.ones(len(inputs), bool) if accept is None else accept(classes)
        different = keys(inputs) if task.side <= 4 else classes
        return [name.tobytes() if keep else None for name, keep in zip(different, kept, strict=True)]

    kept = only_new(
        in_order(partial(_candidates, task, seed, wanted), itertools.count(0, _CHUNK), processes),
        names,
        count,
        tries=_CHUNK,
        give_up=give_up,
        refusal=("puzzles", "ask for fewer (--count, --test-count), or widen --clues, --difficulty or the guesses"),
        on_progress=on_progress,
    )
    parts = [[array[rows] for array in chunk] for chunk, rows in kept]
    inputs, labels, guesses, classes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Generated(Puzzles.of(task, inputs, labels, called="generated"), guesses, classes)
