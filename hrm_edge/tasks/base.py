"""What a task is to the rest of the toolkit: tokens, rules, symmetries.

Axes: N puzzles, S cells (sequence), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8]  # [N, S] or [S]
Bools = NDArray[np.bool_]  # [N]

PAD_TOKEN = 0
NOT_A_CELL = 255
"""Stands in a table of characters for those that are no cell."""


@dataclass(frozen=True)
class Views:
    """N symmetries of a task's grid: a permutation of cells and a relabelling of tokens each.

    ``cells[n, s]`` is the cell of the original that lands on cell ``s`` of the view; ``labels[n, t]`` is the token
    that replaces token ``t``. Both are bijections, so every view inverts.
    """

    cells: NDArray[np.int64]  # [N, S]
    labels: NDArray[np.uint8]  # [N, V]

    def __len__(self) -> int:
        return len(self.cells)

    def apply(self, tokens: Tokens) -> Tokens:
        """Tokens [N, S] of the originals to tokens [N, S] of the views."""
        moved = np.take_along_axis(tokens, self.cells, axis=1)
        return np.take_along_axis(self.labels, moved.astype(np.int64), axis=1)

    def inverse(self) -> Views:
        """The views that undo these: ``views.inverse().apply(views.apply(x)) == x``."""
        return Views(np.argsort(self.cells, axis=1), np.argsort(self.labels, axis=1).astype(np.uint8))

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Views:
        return Views(self.cells[rows], self.labels[rows])


def exact(answers: Tokens, labels: Tokens) -> Bools:
    """Per row of [N, S]: is every cell as its label says? Padding in a label is no cell; a row of nothing else is not.

    Only ARC has padding: its grids are smaller than the canvas.
    """
    known = labels != PAD_TOKEN
    return np.asarray(((answers == labels) | ~known).all(axis=-1) & known.any(axis=-1))


class Task(Protocol):
    """A puzzle family; numpy only, so that it runs on the edge."""

    @property
    def name(self) -> str:
        """The name used on the command line and in ``dataset.json``."""

    @property
    def family(self) -> Literal["sudoku", "maze", "arc"]:
        """What its puzzles are, whatever their size: that decides how files of them are read."""

    @property
    def has_rules(self) -> bool:
        """A puzzle alone says what a right answer is, so that one can be checked. False: examples elsewhere say it."""

    @property
    def vocab(self) -> int:
        """Number of token ids V, padding (0) included."""

    @property
    def seq_len(self) -> int:
        """Number of cells S."""

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """(rows, columns, rows of a box, columns of a box), what ``ModelSpec.grid`` takes."""

    def parse(self, text: str) -> Tokens:
        """One puzzle as text to tokens [S]; raises ``UserError`` when it is malformed or breaks the rules."""

    def check_givens(self, tokens: Tokens) -> None:
        """Raise ``UserError`` that says why tokens [S] are no puzzle: givens that clash, no way to the goal."""

    def hopeless(self, tokens: Tokens) -> Bools:
        """Per row of [N, S]: would :meth:`check_givens` refuse it?"""

    def cell_table(self) -> Tokens:
        """The token of every character [256] that is a cell by itself; ``NOT_A_CELL`` for the others."""

    def format(self, tokens: Tokens) -> str:
        """Tokens [S] to one line of text (blank = '0')."""

    def pretty(self, tokens: Tokens, givens: Tokens | None = None) -> str:
        """Tokens [S] to a picture of several lines for a terminal; with ``givens`` [S] these or the others are bold."""

    def verify(self, givens: Tokens, answers: Tokens) -> Bools:
        """Per row of [N, S]: does the answer keep every given and obey all rules? Never repairs anything."""

    def optimal(self, givens: Tokens, answers: Tokens) -> Bools | None:
        """Per row of [N, S]: is it as good as the label, of which it may differ? None where a puzzle has one answer."""

    def only_answer(self, givens: Tokens) -> Tokens | None:
        """The right answer [S] to a puzzle [S], by search; ``UserError`` where there is none, or more than one.

        None where the search was given up. Of a maze a shortest path, which need not be the only one.
        """

    @property
    def distinct_views(self) -> int | None:
        """How many symmetries differ, where they are so few that all may be tried; else None."""

    def random_views(self, count: int, rng: np.random.Generator) -> Views:
        """``count`` symmetries drawn uniformly: a solution stays a solution under each."""

    def identity_views(self, count: int) -> Views:
        """``count`` views that change nothing."""

    def with_guesses(self, givens: Tokens, logits: NDArray[np.float32], count: int, rng: np.random.Generator) -> Tokens:
        """A puzzle [S] with up to ``count`` more givens, drawn from a model's logits [S, V] where it is least sure.

        A guess may be wrong: what follows from it is checked against the puzzle itself. Tasks whose cells are not
        filled one by one return the puzzle as it is.
        """
