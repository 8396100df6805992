"""ARC: grids of ten colours up to 30 x 30, their encoding, and invertible augmentations. Numpy only.

Axes: N grids, R rows, C columns of a grid, S = 900 cells of the canvas, V = 12 tokens: 0 pad, 1 end, colour c is c + 2.
A grid lies on a 30 x 30 canvas with end markers along its lower and right side, where the canvas has room.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks import dihedral
from hrm_edge.tasks.base import NOT_A_CELL, PAD_TOKEN, Bools, Task, Tokens, Views

Grid = NDArray[np.uint8]  # [R, C], colours 0 to 9

SIDE = 30
COLOURS = 10
END = 1
FIRST_COLOUR = 2  # token of colour 0
# Published identifiers: task, symmetry, colours; older tools join them by "_", newer ones by "|||".
_IDENTIFIER = re.compile(r"(?P<task>.+?)(?P<join>_|\|\|\|)t(?P<which>[0-7])(?P=join)(?P<colours>\d{10})")


@dataclass(frozen=True)
class Augmentation:
    """Symmetry of the grid and permutation of its colours; colour 0, the background, stays."""

    which: int = 0
    """Number of the symmetry in :mod:`hrm_edge.tasks.dihedral`."""
    colours: tuple[int, ...] = tuple(range(COLOURS))
    """New colour of each colour c at index c."""

    def __post_init__(self) -> None:
        if sorted(self.colours) != list(range(COLOURS)) or not 0 <= self.which < dihedral.COUNT:
            raise ValueError(f"{self} is no symmetry with a permutation of {COLOURS} colours")

    def apply(self, grid: Grid) -> Grid:
        """Return the augmented grid, a new array: [R, C], or [C, R] after a quarter turn or transposition."""
        return np.asarray(np.array(self.colours, np.uint8)[dihedral.transform(grid, self.which)])

    def invert(self, grid: Grid) -> Grid:
        """Return the grid that ``apply`` maps to ``grid``."""
        return np.asarray(np.argsort(self.colours).astype(np.uint8)[dihedral.invert(grid, self.which)])

    def identifier(self, task: str) -> str:
        """Return the augmented task's name in ``identifiers.json``, as published: ``007bbfb7_t3_0284193765``."""
        return f"{task}_t{self.which}_{''.join(map(str, self.colours))}"


def split_identifier(identifier: str) -> tuple[str, Augmentation]:
    """Return (task, augmentation) of a name in ``identifiers.json``; a plain name has the identity as augmentation."""
    match = _IDENTIFIER.fullmatch(identifier)
    if match is None:
        return identifier, Augmentation()
    try:
        return match["task"], Augmentation(int(match["which"]), tuple(map(int, match["colours"])))
    except ValueError as error:
        raise UserError(f"identifier '{identifier}': {error}", "build the data folder again") from error


def random_augmentation(rng: np.random.Generator) -> Augmentation:
    """Draw a symmetry and a permutation of colours uniformly."""
    which = int(rng.integers(dihedral.COUNT))
    return Augmentation(which, (0, *(rng.permutation(COLOURS - 1) + 1).tolist()))


def check_grid(value: Any) -> Grid:
    """Return the grid for rows of colours read from JSON. Raises ``UserError`` that says what is wrong with them."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise UserError("a grid is a list of rows, each a list of colours", "correct that grid")
    widths = {len(row) for row in value}
    if len(widths) > 1:
        raise UserError(f"the grid's rows have {min(widths)} to {max(widths)} cells", "give all rows the same length")
    if max(len(value), *widths) > SIDE:
        raise UserError(f"the grid has {len(value)}x{widths.pop()} cells, more than {SIDE}x{SIDE}", "leave it out")
    for row in value:
        for colour in row:
            if type(colour) is not int or not 0 <= colour < COLOURS:
                raise UserError(f"{colour!r} is no colour", f"a colour is a whole number from 0 to {COLOURS - 1}")
    return np.array(value).astype(np.uint8)


def encode(grid: Grid, row: int = 0, column: int = 0) -> Tokens:
    """Return the tokens uint8 [S] of a grid whose top left cell is at (row, column) of the canvas."""
    height, width = grid.shape
    if row + height > SIDE or column + width > SIDE or min(row, column) < 0:
        raise ValueError(f"a {height}x{width} grid does not fit on the canvas at {row}, {column}")
    canvas = np.full((SIDE + 1, SIDE + 1), PAD_TOKEN, np.uint8)
    canvas[row + height, column : column + width] = END
    canvas[row : row + height, column + width] = END
    canvas[row : row + height, column : column + width] = grid + FIRST_COLOUR
    return canvas[:SIDE, :SIDE].ravel()


def _corner(tokens: Tokens) -> tuple[int, int]:
    """Return (row, column) of the grid's top left cell on a canvas [S]; (0, 0) where no cell has a colour."""
    coloured = tokens.reshape(SIDE, SIDE) >= FIRST_COLOUR
    return int(coloured.any(axis=1).argmax()), int(coloured.any(axis=0).argmax())


def decode(tokens: Tokens, row: int = 0, column: int = 0) -> Grid | None:
    """Return the grid at (row, column) of a canvas [S]: the largest rectangle of colours that begins there.

    None if that cell has no colour: there is no grid. A prediction may be malformed, so its rectangle is used with or
    without end markers around it; among equally large ones, the one with fewer rows.
    """
    coloured = tokens.reshape(SIDE, SIDE)[row:, column:] >= FIRST_COLOUR
    # The number of colours before the first other token, for each row.
    run = np.where(coloured.all(axis=1), coloured.shape[1], coloured.argmin(axis=1))
    widths = np.minimum.accumulate(run)
    height = int(np.argmax(widths * np.arange(1, len(widths) + 1))) + 1
    if widths[0] == 0:
        return None
    return np.asarray(
        tokens.reshape(SIDE, SIDE)[row : row + height, column : column + widths[height - 1]] - FIRST_COLOUR
    )


class Arc(Task):
    """Task of ARC-AGI 1 and 2 and ConceptARC: one puzzle is an input grid, its answer another grid.

    No rule can check an answer, so ``verify`` is always False, and only the puzzle's identifier tells the model what to
    do: see :mod:`hrm_edge.tasks.arc_votes` for how answers are scored.
    """

    name = "arc"
    family: ClassVar[Literal["arc"]] = "arc"
    has_rules: ClassVar[bool] = False
    vocab = FIRST_COLOUR + COLOURS
    seq_len = SIDE * SIDE
    grid = (SIDE, SIDE, SIDE, SIDE)
    """(rows, columns, rows of a box, columns of a box): the whole canvas is one box."""

    def parse(self, text: str) -> Tokens:
        """Return the tokens uint8 [S] of a grid as text: rows of digits, on lines or joined by ``|``, or JSON rows.

        Raises ``UserError`` for text that is no grid.
        """
        stripped = text.strip()
        if stripped.startswith("["):
            try:
                value = json.loads(stripped)
            except ValueError as error:
                raise UserError(f"the grid is no JSON: {error}", "give rows such as [[0, 1], [2, 0]]") from error
            return encode(check_grid(value))
        rows = [row.strip() for row in stripped.strip("|").replace("|", "\n").splitlines()]
        for number, row in enumerate(rows, start=1):
            for column, character in enumerate(row, start=1):
                if character not in "0123456789":
                    raise UserError(
                        f"bad character {character!r} in row {number}, column {column}: no colour",
                        "a colour is a digit from 0 to 9; rows are separated by line breaks or '|'",
                    )
        return encode(check_grid([[int(character) for character in row] for row in rows]))

    def check_givens(self, tokens: Tokens) -> None:
        """Accept every grid as a question."""

    def hopeless(self, tokens: Tokens) -> Bools:
        """Return False for every row of [N, S]."""
        return np.zeros(len(tokens), np.bool_)

    def cell_table(self) -> Tokens:
        """Return ``NOT_A_CELL`` for every character [256]: only whole lines define a grid's size."""
        return np.full(256, NOT_A_CELL, np.uint8)

    def format(self, tokens: Tokens) -> str:
        """Return the grid on a canvas [S] as rows of digits joined by ``|``; empty where there is none."""
        grid = decode(tokens, *_corner(tokens))
        return "" if grid is None else "|".join("".join(map(str, row)) for row in grid.tolist())

    def pretty(self, tokens: Tokens, givens: Tokens | None = None) -> str:
        """Return the grid on a canvas [S] as rows of digits, colour 0 as a dot; ``givens`` do not matter."""
        return self.format(tokens).replace("|", "\n").replace("0", ".") or "(no grid)"

    def verify(self, givens: Tokens, answers: Tokens) -> Bools:
        """Return False for every row of [N, S]: the question alone cannot show that an answer is right."""
        return np.zeros(np.broadcast_shapes(np.shape(givens)[:-1], np.shape(answers)[:-1]), np.bool_)

    def only_answer(self, givens: Tokens) -> Tokens:
        """Raise ``UserError``: a question alone does not define its answer."""
        raise UserError(f"no rule tells the answer of a {self.name} puzzle", "give a set with answers")

    def random_views(self, count: int, rng: np.random.Generator) -> Views:
        """Draw symmetries that are valid for grids of any size: transposition and permutations of the colours except 0.

        Rotations and reflections depend on a grid's size, which is not known before the answer: for them see
        :class:`Augmentation`.
        """
        canvas = np.arange(self.seq_len, dtype=np.int64).reshape(SIDE, SIDE)
        cells = np.where(rng.random(count)[:, None] < 0.5, canvas.ravel(), canvas.T.ravel())
        labels = np.tile(np.arange(self.vocab, dtype=np.uint8), (count, 1))
        labels[:, FIRST_COLOUR + 1 :] = np.argsort(rng.random((count, COLOURS - 1)), axis=1) + FIRST_COLOUR + 1
        return Views(cells, labels)
