"""``data build`` for Sudoku: write a source as a data folder; the same arguments and seed give the same bytes.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.builder import DEFAULT_TEST, GENERATE, PIECE, Builder, Collected, Progress, SourceOptions, Summary
from hrm_edge.data.canonical import identities
from hrm_edge.data.generator import Generated, Wanted, generate
from hrm_edge.data.layout import PartWriter
from hrm_edge.data.solver import solve_many
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import BLANK, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique

_DEFAULT_COUNT = 10_000
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


def default_wanted(task: Sudoku) -> Wanted:
    """Return the default requirements: minimal puzzles; for 4x4, 4 to 8 clues.

    All minimal 4x4 puzzles fall into only 36 symmetry classes; those with 4 to 8 clues fall into 2,234.
    """
    return Wanted(clues=(4, 8)) if task.side == 4 else Wanted()


def build(task: Sudoku, out: Path | str, options: Options, on_progress: Progress | None = None) -> Summary[PartSummary]:
    """Build the data folder ``out``, whole or not at all.

    Test puzzles are the hub's own, or ``test_count`` from the file or the generator. In the latter cases no training
    puzzle is equivalent to a test puzzle under any symmetry (on boards beyond 9x9: equal to one). At 4x4 a whole
    symmetry class is either for training or for testing, one in eight by its checksum. Raises ``UserError`` for bad
    options or sources.
    """
    return _SudokuBuilder(task, options, on_progress).build(out)


class _SudokuBuilder(Builder[Sudoku, Options, PartSummary]):
    things = "puzzles"

    def check(self) -> None:
        super().check()
        options = self.options
        if options.source != GENERATE and (options.count is not None or options.wanted is not None):
            raise UserError(
                "--count, --clues, --minimal, --difficulty and the guesses belong to --source generate",
                "leave them out, or use --subsample to draw from the source",
            )

    def generate_parts(self) -> Collected:
        task, options = self.task, self.options
        wanted = options.wanted or default_wanted(task)
        train_count = _DEFAULT_COUNT if options.count is None else options.count
        test_count = DEFAULT_TEST if options.test_count is None else options.test_count
        tested: set[bytes] = set()

        def for_test(classes: NDArray[np.void]) -> NDArray[np.bool_]:
            if task.side > 4:
                return np.ones(len(classes), bool)
            marks = [zlib.crc32(name.tobytes()) % _HELD_OUT for name in classes]
            return np.array([mark == _HELD_OUT_REMAINDER for mark in marks], bool)

        def for_train(classes: NDArray[np.void]) -> NDArray[np.bool_]:
            if task.side > 4:
                return np.array([name.tobytes() not in tested for name in classes], bool)
            return ~for_test(classes)

        def run(split: str, count: int, accept: Callable[[NDArray[np.void]], NDArray[np.bool_]]) -> Generated:
            return generate(
                task,
                count,
                self.seed_of(split),
                wanted,
                processes=options.processes,
                accept=accept,
                on_progress=lambda done: self.on_progress(f"generating {split} puzzles", done, count),
            )

        test = run("test", test_count, for_test)
        tested.update(name.tobytes() for name in test.classes)
        train = run("train", train_count, for_train)
        return Collected(
            train.puzzles,
            test.puzzles,
            guesses={"train": float(train.guesses.mean()), "test": float(test.guesses.mean()) if test_count else 0.0},
        )

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

    def write_part(self, folder: Path, split: str, collected: Collected, rng: np.random.Generator) -> PartSummary:
        puzzles, augment = (collected.train, self.options.augment) if split == "train" else (collected.test, 0)
        assert puzzles.labels is not None
        groups, size = len(puzzles), augment + 1
        # The step must depend on the arguments only, as the order of random draws does.
        step = max(1, PIECE // size)
        with PartWriter(folder, split, self.task) as writer:
            for start in range(0, groups, step):
                originals = puzzles.givens[start : start + step], puzzles.labels[start : start + step]
                rows = len(originals[0])
                pair = list(originals)
                if augment:
                    views = self.task.random_views(rows * augment, rng)
                    pair = [
                        np.concatenate(
                            [tokens[:, None], views.apply(tokens.repeat(augment, axis=0)).reshape(rows, augment, -1)],
                            axis=1,
                        ).reshape(rows * size, -1)
                        for tokens in originals
                    ]
                writer.add(pair[0], pair[1], groups=np.full(rows, size, np.int32))
                self.on_progress(f"writing {split}", start + rows, groups)
        clues = (puzzles.givens > BLANK).sum(axis=1)
        return PartSummary(
            groups,
            groups * size,
            (int(clues.min()), float(clues.mean()), int(clues.max())),
            collected.guesses.get(split),
        )
