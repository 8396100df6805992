"""``data build`` for Sudoku: write a source as a data folder; the same arguments and seed give the same bytes.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnProgress, ignore
from hrm_edge.data.builder import GENERATE, Builder, SourceOptions, Summary
from hrm_edge.data.canonical import identities
from hrm_edge.data.generator import Wanted, default_wanted, generate
from hrm_edge.data.solver import solve_many
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens, Views
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import BLANK, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique

_HELD_OUT, _HELD_OUT_REMAINDER = 8, 2  # one 4x4 class in 8 is for testing; remainder 2 includes every number of clues


@dataclass(frozen=True)
class Options(SourceOptions):
    """Settings of a build of Sudokus; their symmetries are random ones."""

    wanted: Wanted | None = None
    """Requirements on generated puzzles."""


@dataclass(frozen=True)
class PartSummary:
    """Groups and examples of one built part, and clues and solver's guesses per puzzle before augmentation."""

    groups: int
    examples: int
    clues: tuple[int, float, int]  # fewest, mean, most
    guesses: float | None  # mean; None for files, whose puzzles are not rated


def build(task: Sudoku, out: Path | str, options: Options, on_progress: OnProgress = ignore) -> Summary[PartSummary]:
    """Build the data folder ``out``, whole or not at all.

    Test puzzles are the hub's own, or ``test_count`` from the file or the generator. In the latter cases no training
    puzzle is equivalent to a test puzzle under any symmetry (on boards beyond 9x9: equal to one). At 4x4 a whole
    symmetry class is either for training or for testing, one in eight by its checksum. Raises ``UserError`` for bad
    options or sources.
    """
    return _SudokuBuilder(task, options, on_progress).build(out)


class _SudokuBuilder(Builder[Sudoku, Options, PartSummary]):
    things = "puzzles"
    default_count = 10_000

    def __init__(self, task: Sudoku, options: Options, on_progress: OnProgress) -> None:
        super().__init__(task, options, on_progress)
        self.guesses: dict[str, float] = {}  # of our solver, the mean over each generated part

    def check(self) -> None:
        super().check()
        options = self.options
        if options.source != GENERATE and (options.count is not None or options.wanted is not None):
            raise UserError(
                "--count, --clues, --minimal, --difficulty and the guesses belong to --source generate",
                "leave them out, or use --subsample to draw from the source",
            )

    def generated(self, split: str, count: int, tested: set[bytes]) -> Puzzles:
        def accept(classes: NDArray[np.void]) -> NDArray[np.bool_]:
            names = [name.tobytes() for name in classes]
            if self.task.side > 4:
                return np.array([name not in tested for name in names], bool)
            return np.array([_is_held_out(name) == (split == "test") for name in names], bool)

        made = generate(
            self.task,
            count,
            self.seed_of(split),
            self.options.wanted or default_wanted(self.task),
            processes=self.options.processes,
            accept=accept,
            on_progress=lambda done: self.on_progress(f"generating {split} puzzles", done, count),
        )
        if count:
            self.guesses[split] = float(made.guesses.mean())
        return made.puzzles

    def names(self, tokens: Tokens) -> list[bytes]:
        return [name.tobytes() for name in identities(self.task, tokens)]

    def solved(self, puzzles: Puzzles, missing: NDArray[np.int64]) -> Tokens:
        solved = solve_many(self.task, puzzles.givens[missing])
        for bad in missing[solved.counts != 1][:1]:
            try:
                require_unique(self.task, puzzles.givens[bad], max_nodes=1 << 62)  # its error names the ambiguous cell
            except UserError as error:
                raise UserError(f"{puzzles.source.where(int(bad))}: {error.problem}", error.hint) from error
        return solved.answers

    def symmetries(self, count: int, augment: int, rng: np.random.Generator) -> Views:
        return self.task.random_views(count * augment, rng)

    def describe(self, split: str, puzzles: Puzzles, examples: int) -> PartSummary:
        clues = (puzzles.givens > BLANK).sum(axis=1)
        span = int(clues.min()), float(clues.mean()), int(clues.max())
        return PartSummary(len(puzzles), examples, span, self.guesses.get(split))


def _is_held_out(name: bytes) -> bool:
    """Return whether a symmetry class of 4x4 puzzles is for testing."""
    return zlib.crc32(name) % _HELD_OUT == _HELD_OUT_REMAINDER
