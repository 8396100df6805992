"""Interface of a task to the rest of the toolkit: tokens, rules, symmetries.

Axes: N puzzles, S cells (sequence), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8]  # [N, S] or [S]
Bools = NDArray[np.bool_]  # [N]

PAD_TOKEN = 0
NOT_A_CELL = 255
"""Value in a table of characters for those that are no cell."""


@dataclass(frozen=True)
class Views:
    """N symmetries of a task's grid: each permutes the cells and relabels the tokens.

    ``cells[n, s]`` is the cell of the original that moves to cell ``s`` of the view; ``labels[n, t]`` is the token that
    replaces token ``t``. Both are bijections, so every view has an inverse.
    """

    cells: NDArray[np.int64]  # [N, S]
    labels: NDArray[np.uint8]  # [N, V]

    def __len__(self) -> int:
        return len(self.cells)

    def apply(self, tokens: Tokens) -> Tokens:
        """Map tokens [N, S] of the originals to tokens [N, S] of the views."""
        moved = np.take_along_axis(tokens, self.cells, axis=1)
        return np.take_along_axis(self.labels, moved.astype(np.int64), axis=1)

    def inverse(self) -> Views:
        """Return the views that undo these: ``views.inverse().apply(views.apply(x)) == x``."""
        return Views(np.argsort(self.cells, axis=1), np.argsort(self.labels, axis=1).astype(np.uint8))

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Views:
        return Views(self.cells[rows], self.labels[rows])


def exact(answers: Tokens, labels: Tokens) -> Bools:
    """Return for each row of [N, S] whether every cell equals its label; padding in a label is ignored.

    Only ARC has padding, as its grids are smaller than the canvas. A row with no other label is never exact.
    """
    known = labels != PAD_TOKEN
    return np.asarray(((answers == labels) | ~known).all(axis=-1) & known.any(axis=-1))


class Task(Protocol):
    """Family of puzzles of one size; numpy only, so that it runs on the edge."""

    @property
    def name(self) -> str:
        """Name on the command line and in ``dataset.json``."""

    family: ClassVar[Literal["sudoku", "maze", "arc"]]
    """Kind of puzzle, of any size, which decides how files of them are read."""
    has_rules: ClassVar[bool]
    """Whether a puzzle alone defines its right answer, so that one can be checked; if not, examples do."""

    @property
    def vocab(self) -> int:
        """Number of token ids V, padding (0) included."""

    @property
    def seq_len(self) -> int:
        """Number of cells S."""

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """(rows, columns, rows of a box, columns of a box), as in ``ModelSpec.grid``."""

    def parse(self, text: str) -> Tokens:
        """Return the tokens uint8 [S] of a puzzle's text. Raises ``UserError`` if it is malformed or breaks rules."""

    def check_givens(self, tokens: Tokens) -> None:
        """Raise ``UserError`` that says why tokens [S] are no puzzle: givens that clash, no path to the goal."""

    def hopeless(self, tokens: Tokens) -> Bools:
        """Return for each row of [N, S] whether :meth:`check_givens` would refuse it."""

    def cell_table(self) -> Tokens:
        """Return the token of every character [256] that is a cell by itself; ``NOT_A_CELL`` for the others."""

    def format(self, tokens: Tokens) -> str:
        """Return tokens [S] as one line of text (blank = '0')."""

    def pretty(self, tokens: Tokens, givens: Tokens | None = None) -> str:
        """Return tokens [S] as a picture for a terminal; with ``givens`` [S], either these or
        the other cells are bold.
        """

    def verify(self, givens: Tokens, answers: Tokens) -> Bools:
        """Return for each row of [N, S] whether the answer keeps the givens and obeys all rules; it repairs nothing."""

    def optimal(self, givens: Tokens, answers: Tokens) -> Bools | None:
        """Return for each row of [N, S] whether it is as good as the label, or None where there is only one answer."""
        return None

    def only_answer(self, givens: Tokens) -> Tokens | None:
        """Return the right answer [S] to a puzzle [S], by search, or None where the search reached its limit.

        For a maze it is a shortest path, which may not be the only one. Raises ``UserError`` where there is no answer
        or, for a Sudoku, more than one.
        """

    @property
    def distinct_views(self) -> int | None:
        """Number of different symmetries, where they are so few that all can be tried; else None."""
        return None

    def random_views(self, count: int, rng: np.random.Generator) -> Views:
        """Draw ``count`` symmetries uniformly; each maps solutions to solutions."""

    def identity_views(self, count: int) -> Views:
        """Return ``count`` views that change nothing."""
        cells = np.tile(np.arange(self.seq_len, dtype=np.int64), (count, 1))
        return Views(cells, np.tile(np.arange(self.vocab, dtype=np.uint8), (count, 1)))

    def with_guesses(self, givens: Tokens, logits: NDArray[np.float32], count: int, rng: np.random.Generator) -> Tokens:
        """Return a puzzle [S] with up to ``count`` more givens, drawn from logits [S, V] where they are least sure.

        A guess may be wrong: the answer is checked against the puzzle itself. Tasks whose cells are not filled one by
        one return the puzzle unchanged.
        """
        return givens
