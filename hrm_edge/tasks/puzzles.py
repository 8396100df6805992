"""Puzzles of one task with their answers and origin, from the readers to the solver and the benchmarks.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrm_edge.tasks.base import PAD_TOKEN, Bools, Task, Tokens

TYPED = "argument"
"""Name, in messages and results, of a puzzle that was typed instead of read from a file."""


@dataclass(frozen=True, eq=False)
class Source:
    """Origin of N puzzles."""

    path: str
    """File or folder, or its name in messages."""
    format: str
    """Description of the recognized format."""
    label: str
    """File's name, with which the name of a puzzle without its own name begins."""
    numbers: NDArray[np.int64]
    """Place of each puzzle [N]: its line, from 1, or in an array its row, from 0."""
    given: Sequence[str] | None = None
    """Name of each puzzle in the file (column ``source``) [N]; None where there is none."""

    def name(self, row: int) -> str:
        """Return a puzzle's name in results: the file's own name for it, else ``label:number``."""
        own = "" if self.given is None else self.given[row]
        return own or f"{self.label}:{self.numbers[row]}"

    def where(self, row: int) -> str:
        """Return the place of a puzzle in its file, for messages."""
        return f"{self.path}, line {self.numbers[row]}"

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Source:
        """Keep some of the puzzles."""
        kept = range(len(self.numbers))[rows] if isinstance(rows, slice) else rows.tolist()
        given = None if self.given is None else [self.given[row] for row in kept]
        return replace(self, numbers=self.numbers[rows], given=given)


@dataclass(frozen=True, eq=False)
class Puzzles:
    """N puzzles of one task."""

    task: Task
    givens: Tokens
    """Puzzles as given, uint8 [N, S]."""
    labels: Tokens | None
    """Right answers, uint8 [N, S]; a row of padding where one is not known, None where none is."""
    ids: NDArray[np.int32]
    """Rows of the model's puzzle table [N]; 0 is the blank puzzle."""
    source: Source

    @classmethod
    def of(
        cls,
        task: Task,
        givens: Tokens,
        labels: Tokens | None = None,
        ids: NDArray[np.int32] | None = None,
        *,
        called: str,
    ) -> Puzzles:
        """Return puzzles that are not read from a file; ``called`` is their origin in messages.

        ``ids`` None: all are the blank puzzle.
        """
        source = Source(called, called, called, np.arange(len(givens)))
        return cls(task, givens, labels, np.zeros(len(givens), np.int32) if ids is None else ids, source)

    def __len__(self) -> int:
        return len(self.givens)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Puzzles:
        """Keep the puzzles of a slice, or those of the numbers ``rows`` in their order."""
        labels = None if self.labels is None else self.labels[rows]
        return Puzzles(self.task, self.givens[rows], labels, self.ids[rows], self.source[rows])

    def head(self, limit: int | None) -> Puzzles:
        """Keep the first ``limit`` puzzles (None: all)."""
        return self[:limit]

    def answered(self) -> Bools:
        """Return for each puzzle [N] whether its right answer is known."""
        if self.labels is None:
            return np.zeros(len(self), np.bool_)
        return np.asarray((self.labels != PAD_TOKEN).any(axis=1))
