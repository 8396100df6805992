"""Sudoku of any box size: tokens, rules, symmetries, text. Numpy only.

Axes: N puzzles, S cells, V vocabulary; ``side`` is the number of rows, columns, boxes and digits, S = side².
Token ids are the published ones: 0 pad, 1 blank, digit d is d + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import NOT_A_CELL, Bools, Task, Tokens, Views
from hrm_edge.tasks.sudoku_board import geometry
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.tasks.sudoku_text import BLANKS, DIGITS, read_grids

BLANK = 1
FIRST_DIGIT = 2  # token of digit 1
_MAX_SIDE = len(DIGITS)
_NAMES = {(3, 3): "sudoku", (2, 2): "mini-sudoku"}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Sudoku(Task):
    """Sudoku whose boxes have ``box_rows`` rows and ``box_cols`` columns: (3, 3) is the newspaper's."""

    box_rows: int = 3
    box_cols: int = 3
    family: ClassVar[Literal["sudoku"]] = "sudoku"
    has_rules: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.box_rows < 1 or self.box_cols < 1 or not 2 <= self.side <= _MAX_SIDE:
            raise UserError(
                f"no Sudoku has boxes of {self.box_rows}x{self.box_cols} cells",
                f"the cells of a box (rows x columns) must be 2 to {_MAX_SIDE}, e.g. sudoku-2x3",
            )

    @property
    def side(self) -> int:
        """Number of rows, of columns, of boxes and of digits."""
        return self.box_rows * self.box_cols

    @property
    def name(self) -> str:
        """``sudoku`` (3x3 boxes), ``mini-sudoku`` (2x2), else ``sudoku-RxC``."""
        return _NAMES.get((self.box_rows, self.box_cols), f"sudoku-{self.box_rows}x{self.box_cols}")

    @property
    def vocab(self) -> int:
        """V = side + 2: pad, blank, digits."""
        return self.side + 2

    @property
    def seq_len(self) -> int:
        """S = side²."""
        return self.side * self.side

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """(rows, columns, rows of a box, columns of a box), as in ``ModelSpec.grid``."""
        return self.side, self.side, self.box_rows, self.box_cols

    # -- text ---------------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        """Return the tokens uint8 [S] of a puzzle's text in any drawing, see :mod:`hrm_edge.tasks.sudoku_text`.

        Raises ``UserError`` for a character that is no cell, a wrong number of cells, or givens that clash.
        """
        lines = list(enumerate(text.splitlines(), start=1)) or [(1, text)]
        grids = read_grids(self, lines)
        if len(grids) > 1:
            raise UserError(f"these are {len(grids)} puzzles, not one", "give one of them")
        self.check_givens(grids[0])
        return np.asarray(grids[0])

    def check_givens(self, tokens: Tokens) -> None:
        """Raise ``UserError`` naming row, column or box if two givens of tokens [S] clash."""
        units = geometry(self).units
        ordered = np.sort(tokens[units], axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= FIRST_DIGIT)
        if twice.any():
            index = int(twice.any(axis=1).argmax())
            counts = np.bincount(tokens[units[index]])[FIRST_DIGIT:]
            token = int(counts.argmax())
            words = {2: "two", 3: "three"}.get(int(counts[token]), str(counts[token]))
            kind = ("row", "column", "box")[index // self.side]
            raise UserError(
                f"contradictory givens: {words} {DIGITS[token]}s in {kind} {index % self.side + 1}",
                "check that cell against the original puzzle",
            )

    def hopeless(self, tokens: Tokens) -> Bools:
        """Return for each row of [N, S] whether two givens of a row, column or box are equal."""
        digit = np.maximum(tokens, FIRST_DIGIT) - FIRST_DIGIT
        bits = np.where(tokens >= FIRST_DIGIT, np.left_shift(np.int64(1), digit), 0)
        clash = np.zeros(len(tokens), np.bool_)
        for unit in geometry(self).units:
            cells = bits[:, unit]
            # Sum and union are equal only where no bit occurs twice.
            clash |= cells.sum(axis=1) != np.bitwise_or.reduce(cells, axis=1)
        return clash

    def cell_table(self) -> Tokens:
        """Return the token of every character [256] that is a cell by itself; ``NOT_A_CELL`` for the others."""
        table = np.full(256, NOT_A_CELL, np.uint8)
        table[[ord(character) for character in BLANKS]] = BLANK
        for token, digit in enumerate(DIGITS[: self.side], start=FIRST_DIGIT):
            table[[ord(digit), ord(digit.lower())]] = token
        return table

    def format(self, tokens: Tokens) -> str:
        """Return tokens [S] as one line of S characters, blank = '0'."""
        return "".join("0" if token < FIRST_DIGIT else DIGITS[token - FIRST_DIGIT] for token in tokens.tolist())

    def pretty(self, tokens: Tokens, givens: Tokens | None = None) -> str:
        """Return tokens [S] as a picture with boxes, blank = '.'; cells given in ``givens`` [S] are bold (ANSI)."""
        cells = [c if c != "0" else "." for c in self.format(tokens)]
        if givens is not None:
            cells = [
                f"{_BOLD}{c}{_PLAIN}" if given >= FIRST_DIGIT else c for c, given in zip(cells, givens, strict=True)
            ]
        boxes_across = self.side // self.box_cols
        bars = ["─" * (2 * self.box_cols + 1)] * boxes_across
        lines = ["┌" + "┬".join(bars) + "┐"]
        for row in range(self.side):
            if row and row % self.box_rows == 0:
                lines.append("├" + "┼".join(bars) + "┤")
            line = cells[row * self.side : (row + 1) * self.side]
            boxes = [line[box * self.box_cols : (box + 1) * self.box_cols] for box in range(boxes_across)]
            lines.append("│ " + " │ ".join(" ".join(box) for box in boxes) + " │")
        return "\n".join([*lines, "└" + "┴".join(bars) + "┘"])

    # -- rules --------------------------------------------------------------------------------------------------

    def verify(self, givens: Tokens, answers: Tokens) -> Bools:
        """Return whether each answer keeps every given and has every digit once per row, column and box.

        Nothing is repaired. Tokens [N, S] give bool [N]; other leading axes are allowed, so [S] gives one bool.
        """
        givens, answers = np.asarray(givens), np.asarray(answers)
        kept = ((givens < FIRST_DIGIT) | (givens == answers)).all(axis=-1)
        return np.asarray(kept & self._obeys(answers))

    def _obeys(self, answers: Tokens) -> Bools:
        side, lead = self.side, answers.shape[:-1]
        digits = answers.astype(np.int64) - FIRST_DIGIT
        legal = ((digits >= 0) & (digits < side)).all(axis=-1)
        bits = np.left_shift(np.int64(1), np.clip(digits, 0, side - 1)).reshape(*lead, side, side)
        boxes = bits.reshape(*lead, side // self.box_rows, self.box_rows, side // self.box_cols, self.box_cols)
        full = (1 << side) - 1  # a unit whose bits together are full has every digit once
        obeys = legal
        for seen in (
            np.bitwise_or.reduce(bits, axis=-1),
            np.bitwise_or.reduce(bits, axis=-2),
            np.bitwise_or.reduce(np.bitwise_or.reduce(boxes, axis=-1), axis=-2).reshape(*lead, side),
        ):
            obeys = obeys & (seen == full).all(axis=-1)
        return np.asarray(obeys)

    def only_answer(self, givens: Tokens) -> Tokens | None:
        """Return the only solution [S] of givens [S], or None if the search hit its limit; see ``require_unique``."""
        return require_unique(self, givens)

    # -- symmetries ---------------------------------------------------------------------------------------------

    def random_views(self, count: int, rng: np.random.Generator) -> Views:
        """Draw from the symmetries uniformly: digits relabelled, bands, rows, stacks and columns shuffled, transposed.

        Pad and blank stay; only boards with square boxes are transposed.
        """
        side = self.side
        rows = _shuffled_lines(count, side // self.box_rows, self.box_rows, rng)  # [N, side]
        columns = _shuffled_lines(count, side // self.box_cols, self.box_cols, rng)
        cells = rows[:, :, None] * side + columns[:, None, :]  # [N, side, side]
        if self.box_rows == self.box_cols:
            flip = rng.random(count) < 0.5
            cells = np.where(flip[:, None, None], cells.transpose(0, 2, 1), cells)
        labels = np.empty((count, self.vocab), np.uint8)
        labels[:, :FIRST_DIGIT] = np.arange(FIRST_DIGIT)
        labels[:, FIRST_DIGIT:] = _permutations(count, side, rng) + FIRST_DIGIT
        return Views(cells.reshape(count, self.seq_len), labels)

    def with_guesses(self, givens: Tokens, logits: NDArray[np.float32], count: int, rng: np.random.Generator) -> Tokens:
        """Return a puzzle [S] with up to ``count`` more givens, drawn from logits [S, V] where they are least sure.

        Cells are drawn by the entropy of their digits, a digit by its probability; a digit that a peer of the cell
        already has is not drawn.
        """
        guessed, peers = givens.copy(), geometry(self).peers
        scores = logits[:, FIRST_DIGIT:].astype(np.float64)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        entropy = -(chances * np.log(np.maximum(chances, 1e-12))).sum(axis=1)
        entropy[givens >= FIRST_DIGIT] = 0
        for given in np.flatnonzero(givens >= FIRST_DIGIT):
            chances[peers[given], givens[given] - FIRST_DIGIT] = 0
        for _ in range(count):
            open_cells = np.where(chances.sum(axis=1) > 0, entropy, 0)
            if not open_cells.sum() > 0:
                break
            cell = rng.choice(self.seq_len, p=open_cells / open_cells.sum())
            digit = rng.choice(self.side, p=chances[cell] / chances[cell].sum())
            guessed[cell] = digit + FIRST_DIGIT
            entropy[cell] = 0
            chances[peers[cell], digit] = 0
        return guessed


def reveal(givens: Tokens, answers: Tokens, counts: NDArray[np.int64], order: NDArray[np.float64]) -> Tokens:
    """Return puzzles [N, S] with ``counts[n]`` more clues from ``answers`` [N, S], at the first blanks by ``order``.

    ``order`` [N, S] is drawn from [0, 1). A count beyond a puzzle's blanks reveals them all.
    """
    # A given comes after every blank; revealing it changes nothing.
    ranked = np.argsort(np.where(givens >= FIRST_DIGIT, 2.0, order), axis=1)
    chosen = np.zeros(givens.shape, dtype=np.bool_)
    np.put_along_axis(chosen, ranked, np.arange(givens.shape[1]) < np.asarray(counts)[:, None], axis=1)
    return np.where(chosen & (givens < FIRST_DIGIT), answers, givens).astype(np.uint8)


def _permutations(count: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return uniform permutations int64 [count, size]."""
    return np.argsort(rng.random((count, size)), axis=1)


def _shuffled_lines(count: int, bands: int, lines: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return permutations int64 [count, bands * lines] that keep the lines of a band together."""
    outer = _permutations(count, bands, rng)  # [N, bands]
    inner = _permutations(count * bands, lines, rng).reshape(count, bands, lines)
    return (outer[:, :, None] * lines + inner).reshape(count, bands * lines)
