"""Seeded puzzles with one solution, for any box size.

A puzzle is a random full grid, emptied in random order as far as its solution stays the only one. Puzzle n of a seed
depends on (seed, n) alone and candidates are taken in that order, so the number of processes changes nothing.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.child import process_pool
from hrm_edge.data.canonical import classes, has_canonical, keys
from hrm_edge.data.solver import flat_geometry
from hrm_edge.errors import UserError, nearest
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import BLANK, Sudoku

CHUNK = 256  # candidates per call: part of the meaning of a seed only through their order, which it does not change
GIVE_UP = 100_000  # candidates in a row without a wanted one
FEWEST_CLUES = {(2, 2): 4, (2, 3): 8, (3, 2): 8, (3, 3): 17}  # of a puzzle with one solution; 17: McGuire et al. 2012
LARGE_BOARD_BUDGET = 1000  # guesses per removed clue on boards beyond 9x9; what it cannot settle stays a clue
NO_BUDGET = 1 << 62
DIFFICULTIES: dict[str, tuple[int, int | None]] = {
    "easy": (0, 0),
    "medium": (1, 3),
    "hard": (4, 15),
    "extreme": (16, None),
}
"""Guesses of our solver until the first solution; 9x9 minimal puzzles are 49%, 37%, 13% and 0.7% of these."""


@dataclass(frozen=True)
class Wanted:
    """What a generated puzzle must be."""

    clues: tuple[int, int] | None = None
    """Fewest and most clues; None: as few as they get."""
    minimal: bool = False
    """No clue can be left out (implied by ``clues=None``; on boards beyond 9x9 as far as the solver can tell)."""
    guesses: tuple[int, int | None] = (0, None)
    """Fewest and most guesses of the solver."""

    def check(self, task: Sudoku) -> None:
        """Raise ``UserError`` when no puzzle of ``task`` can be that."""
        low, high = self.clues or (task.seq_len, task.seq_len)
        if low > high or not 0 <= low <= task.seq_len:
            raise UserError(f"--clues {low}-{high} is no range of clues of {task.name}", "give it as N or LOW-HIGH")
        fewest = FEWEST_CLUES.get((task.box_rows, task.box_cols), 0)
        if high < fewest:
            raise UserError(
                f"--clues {high}: no {task.name} puzzle with one solution has fewer than {fewest} clues",
                "ask for more clues",
            )
        if self.guesses[1] is not None and self.guesses[0] > self.guesses[1]:
            raise UserError(f"--min-guesses {self.guesses[0]} is above --max-guesses {self.guesses[1]}", "swap the two")

    def accepts(self, clues: NDArray[np.int64], guesses: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which puzzles with these numbers of clues [N] and guesses [N] are wanted."""
        low, high = self.clues or (0, np.iinfo(np.int64).max)
        least, most = self.guesses[0], np.iinfo(np.int64).max if self.guesses[1] is None else self.guesses[1]
        return np.asarray((clues >= low) & (clues <= high) & (guesses >= least) & (guesses <= most))


def difficulty(name: str) -> tuple[int, int | None]:
    """Range of guesses of a named difficulty."""
    if name not in DIFFICULTIES:
        raise UserError(f"unknown difficulty '{name}'", nearest(name, DIFFICULTIES))
    return DIFFICULTIES[name]


class Generated(NamedTuple):
    """N puzzles with their only solutions."""

    inputs: Tokens  # [N, S]
    labels: Tokens  # [N, S]
    guesses: NDArray[np.int64]  # [N]
    classes: NDArray[np.void]
    """[N], symmetry class of each (of its own where the board is too large for canonical forms)."""

    def rows(self, kept: NDArray[np.bool_]) -> Generated:
        """The puzzles where the mask [N] is true."""
        return Generated(self.inputs[kept], self.labels[kept], self.guesses[kept], self.classes[kept])


def candidates(task: Sudoku, seed: int, first: int, count: int, wanted: Wanted) -> Generated:
    """The wanted ones among puzzles number ``first`` … ``first + count - 1`` of a seed."""
    from hrm_edge.data import sudoku_numba  # the compiler is an extra

    inputs, labels = np.zeros((2, count, task.seq_len), np.uint8)
    guesses = np.zeros(count, np.int64)
    low, high = (0, 0) if wanted.clues is None or wanted.minimal else wanted.clues
    budget = NO_BUDGET if task.side <= 9 else LARGE_BOARD_BUDGET
    sudoku_numba.generate(
        np.uint64(seed), first, low, high, budget, *flat_geometry(task), task.side, inputs, labels, guesses
    )
    kept = wanted.accepts((inputs > BLANK).sum(axis=1), guesses)
    inputs, labels, guesses = inputs[kept], labels[kept], guesses[kept]
    return Generated(inputs, labels, guesses, classes(task, inputs) if has_canonical(task) else keys(inputs))


def generate(
    task: Sudoku,
    count: int,
    seed: int,
    wanted: Wanted,
    *,
    processes: int = 1,
    accept: Callable[[Generated], NDArray[np.bool_]] | None = None,
    on_progress: Callable[[int], None] | None = None,
    give_up: int = GIVE_UP,
) -> Generated:
    """``count`` different wanted puzzles of a seed, the same whatever the number of processes.

    No two are equal; from 6x6 to 9x9 no two are equivalent either. ``accept`` gives a mask [n] of the candidates to
    keep; ``on_progress`` is called with the number found so far. Raises ``UserError`` when such puzzles run out, which
    ``give_up`` candidates in a row without a new one are taken for.
    """
    wanted.check(task)
    seen: set[bytes] = set()
    parts: list[Generated] = []
    found, last = 0, 0
    for number, chunk in enumerate(_chunks(task, seed, wanted, processes)):
        kept = np.ones(len(chunk.inputs), bool) if accept is None else accept(chunk)
        identity = keys(chunk.inputs) if task.side <= 4 else chunk.classes
        for row in np.nonzero(kept)[0]:
            name = identity[row].tobytes()
            kept[row] = name not in seen and found < count
            if kept[row]:
                seen.add(name)
                found, last = found + 1, number
        parts.append(chunk.rows(kept))
        if on_progress is not None:
            on_progress(found)
        if found == count:
            break
        if (number - last) * CHUNK > give_up:
            raise UserError(
                f"found only {found} of {count} such puzzles: {give_up} tries in a row brought no new one",
                "ask for fewer (--count, --test-count), or widen --clues, --difficulty or the guesses",
            )
    return Generated(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _chunks(task: Sudoku, seed: int, wanted: Wanted, processes: int) -> Iterator[Generated]:
    """The candidates of a seed in order, without end."""
    if processes == 1:
        number = 0
        while True:
            yield candidates(task, seed, number * CHUNK, CHUNK, wanted)
            number += 1
    with process_pool(processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        ahead: deque[Future[Generated]] = deque()
        number = 0
        try:
            while True:
                while len(ahead) < 2 * processes:
                    ahead.append(pool.submit(candidates, task, seed, number * CHUNK, CHUNK, wanted))
                    number += 1
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
