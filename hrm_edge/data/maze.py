"""``data build maze``: write generated mazes or a file's as a data folder; the same arguments give the same bytes.

Axes: N mazes, S cells, K symmetries.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnProgress, ignore
from hrm_edge.data.builder import GENERATE, Builder, SourceOptions, Summary, check_least
from hrm_edge.data.parallel import in_order, only_new
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens, Views
from hrm_edge.tasks.maze import WALL, Maze
from hrm_edge.tasks.puzzles import Puzzles

_LENGTH_30 = 112
"""Fewest moves of the shortest path in generated 30 x 30 mazes: above 110, counted in moves or in marked cells."""
_WALL_SHARE = (0.28, 0.45)
"""Lowest and highest share of walls, as in Maze-Hard; mazes with a long shortest path have 37 % on average."""
_TRIES = 1 << 14  # candidates per job; their order, and so a seed's mazes, do not depend on it
_GIVE_UP = 1 << 21  # candidates in a row without a new maze


@dataclass(frozen=True)
class Options(SourceOptions):
    """Settings of a build of mazes; a maze has 7 other symmetries at most."""

    min_length: int | None = None
    """Fewest moves of the shortest path of generated mazes."""


@dataclass(frozen=True)
class PartSummary:
    """Groups and examples of one built part, and moves and share of walls of its mazes before augmentation."""

    groups: int
    examples: int
    moves: tuple[int, float, int]  # fewest, mean, most
    walls: float


def _default_length(task: Maze) -> int:
    """Return the fewest moves of generated mazes: ``_LENGTH_30``, scaled down by area or up by side."""
    area = task.seq_len / 900
    return max(1, round(_LENGTH_30 * min(area, area**0.5)))


def classes(task: Maze, mazes: Tokens) -> list[bytes]:
    """Return a key for each maze of [N, S], which it shares with its symmetries and no other maze."""
    views = mazes[:, task.symmetries()]  # [N, K, S]
    return [min(view.tobytes() for view in views[row]) for row in range(len(mazes))]


def _candidates(task: Maze, seed: int, min_length: int, first: int) -> Tokens:
    """Return the mazes uint8 [n, S] among candidates number ``first`` … ``first + _TRIES - 1`` of a seed."""
    from hrm_edge.data.maze_numba import search_mazes  # the compiler is an optional dependency

    low, high = (min(round(share * task.seq_len), task.seq_len - 2) for share in _WALL_SHARE)
    mazes = np.zeros((_TRIES, task.seq_len), np.uint8)
    count, _ = search_mazes(np.uint64(seed), first, _TRIES, task.rows, task.columns, low, high, min_length, mazes)
    return mazes[:count].copy()


def generate(
    task: Maze,
    count: int,
    seed: int,
    *,
    min_length: int | None = None,
    processes: int = 1,
    avoid: set[bytes] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Tokens:
    """Return ``count`` mazes uint8 [count, S] of a seed whose shortest path has at least ``min_length`` moves.

    No two are symmetries of each other or of a class in ``avoid``. The result is the same for any number of processes.
    Raises ``UserError`` when such mazes run out.
    """
    length = _default_length(task) if min_length is None else min_length
    kept = only_new(
        in_order(partial(_candidates, task, seed, length), itertools.count(0, _TRIES), processes),
        partial(classes, task),
        count,
        seen=avoid or (),
        tries=_TRIES,
        give_up=_GIVE_UP,
        refusal=("mazes", "ask for fewer (--count, --test-count), or for shorter paths (--min-path)"),
        on_progress=on_progress,
    )
    return np.concatenate([mazes[rows] for mazes, rows in kept])


def build(task: Maze, out: Path | str, options: Options, on_progress: OnProgress = ignore) -> Summary[PartSummary]:
    """Build the data folder ``out``, whole or not at all; no training maze is a symmetry of a test maze.

    The hub's data set and a folder with train and test files keep their own parts. Raises ``UserError`` for bad options
    or sources.
    """
    return _MazeBuilder(task, options, on_progress).build(out)


class _MazeBuilder(Builder[Maze, Options, PartSummary]):
    things = "mazes"
    default_count = 1000  # as in Maze-Hard
    piece = 1 << 11

    def check(self) -> None:
        super().check()
        options, most = self.options, len(self.task.symmetries()) - 1
        check_least({"--min-path": (options.min_length, 1)})
        if options.augment > most:
            raise UserError(
                f"--augment {options.augment}: {self.task.name} has {most} other symmetries", f"give 0 to {most}"
            )
        if options.source != GENERATE and (options.count is not None or options.min_length is not None):
            raise UserError(
                "--count and --min-path belong to --source generate", "use --subsample to draw from the source"
            )

    def generated(self, split: str, count: int, tested: set[bytes]) -> Puzzles:
        mazes = generate(
            self.task,
            count,
            self.seed_of(split),
            min_length=self.options.min_length,
            processes=self.options.processes,
            avoid=tested,
            on_progress=lambda done: self.on_progress(f"generating {split} mazes", done, count),
        )
        return Puzzles.of(self.task, mazes, self.task.label(mazes), called="generated")

    def names(self, tokens: Tokens) -> list[bytes]:
        return classes(self.task, tokens)

    def solved(self, puzzles: Puzzles, missing: NDArray[np.int64]) -> Tokens:
        return self.task.label(puzzles.givens[missing])

    def symmetries(self, count: int, augment: int, rng: np.random.Generator) -> Views:
        others = self.task.symmetries()[1:]
        order = np.argsort(rng.random((count, len(others))), axis=1)[:, :augment]
        return self.task.views(others[order.ravel()])

    def rule(self, puzzles: Puzzles) -> Callable[[Tokens], Tokens] | None:
        """Where all labels are the first shortest path in our order, those of the symmetries are too."""
        return self.task.label if (self.task.label(puzzles.givens) == puzzles.labels).all() else None

    def describe(self, split: str, puzzles: Puzzles, examples: int) -> PartSummary:
        assert puzzles.labels is not None
        moves = self.task.length(puzzles.labels)
        span = int(moves.min()), float(moves.mean()), int(moves.max())
        return PartSummary(len(puzzles), examples, span, float((puzzles.givens == WALL).mean()))
