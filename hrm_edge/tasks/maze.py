"""Mazes of any size: tokens, rules, symmetries, text. Numpy only.

Axes: N mazes, R rows, C columns, S = R·C cells, V vocabulary. Token ids are the published ones: 0 pad, then the
characters ``# SGo`` (wall, open, start, goal, path). A length counts moves: a path of ``n`` cells has n - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks import dihedral
from hrm_edge.tasks.base import NOT_A_CELL, Bools, Task, Tokens, Views

_CHARACTERS = "# SGo"
WALL, OPEN, START, GOAL, PATH = range(1, 6)
_SHOWN = {WALL: "██", OPEN: "  ", START: "S ", GOAL: "G ", PATH: "· "}
DIRECTIONS = ((1, 0), (0, -1), (0, 1), (-1, 0))
"""(row, column) of a move, in the order down, left, right, up. The label is the first of the shortest paths in this
order, as in Maze-Hard, so a label is a function of its maze.
"""
_MAX_CELLS = 4096


@dataclass(frozen=True)
class Maze(Task):
    """Mazes of ``rows`` x ``columns`` cells; Maze-Hard's are 30 x 30."""

    rows: int = 30
    columns: int = 30
    family: ClassVar[Literal["maze"]] = "maze"
    has_rules: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not 2 <= self.seq_len <= _MAX_CELLS:
            raise UserError(
                f"a maze cannot have {self.rows}x{self.columns} cells",
                f"rows x columns must be 2 to {_MAX_CELLS}, e.g. maze-10x10",
            )

    @property
    def name(self) -> str:
        """``maze`` (30 x 30), else ``maze-RxC``."""
        return "maze" if (self.rows, self.columns) == (30, 30) else f"maze-{self.rows}x{self.columns}"

    @property
    def vocab(self) -> int:
        """V = 6: pad and five kinds of cells."""
        return len(_CHARACTERS) + 1

    @property
    def seq_len(self) -> int:
        """S = R·C."""
        return self.rows * self.columns

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """(rows, columns, rows of a box, columns of a box): the whole maze is one box."""
        return self.rows, self.columns, self.rows, self.columns

    # -- text ---------------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        """Return the tokens uint8 [S] of a maze as text: ``# SGo``; line breaks are skipped, a space is a cell.

        Raises ``UserError`` for another character, a wrong number of cells, and a maze without a solution.
        """
        characters = text.replace("\r", "").replace("\n", "")
        for cell, character in enumerate(characters):
            if character not in _CHARACTERS:
                row, column = divmod(cell, self.columns)
                where = f"row {row + 1}, column {column + 1}" if cell < self.seq_len else f"place {cell + 1}"
                raise UserError(
                    f"bad character {character!r} in {where}: no cell of a maze",
                    "a cell is '#' (wall), ' ' (open), 'S' (start), 'G' (goal) or 'o' (path)",
                )
        if len(characters) != self.seq_len:
            raise UserError(
                f"read {len(characters)} cells, a {self.name} has {self.seq_len} ({self.rows} rows of {self.columns})",
                "give every cell a character: spaces count, so do not strip them",
            )
        tokens = np.array([_CHARACTERS.index(character) + 1 for character in characters]).astype(np.uint8)
        self.check_givens(tokens)
        return tokens

    def check_givens(self, tokens: Tokens) -> None:
        """Raise ``UserError`` unless tokens [S] have one start, one goal, and a path between them."""
        for token, what in ((START, "S (start)"), (GOAL, "G (goal)")):
            count = int((tokens == token).sum())
            if count != 1:
                raise UserError(f"the maze has {count} cells {what}", "a maze has exactly one of each")
        if self.shortest(tokens[None])[0] < 0:
            raise UserError("no way leads from S to G in this maze", "check its walls against the original")

    def hopeless(self, tokens: Tokens) -> Bools:
        """Return for each row of [N, S] whether its start, its goal or a path between them is missing."""
        bad = ((tokens == START).sum(axis=1) != 1) | ((tokens == GOAL).sum(axis=1) != 1)
        bad[~bad] = self.shortest(tokens[~bad]) < 0
        return np.asarray(bad)

    def cell_table(self) -> Tokens:
        """Return the token of every character [256] that is a cell; ``NOT_A_CELL`` for the others."""
        table = np.full(256, NOT_A_CELL, np.uint8)
        table[list(_CHARACTERS.encode())] = np.arange(1, len(_CHARACTERS) + 1)
        return table

    def format(self, tokens: Tokens) -> str:
        """Return tokens [S] as one line of S characters ``# SGo``; padding becomes ``?``."""
        return "".join(("?" + _CHARACTERS)[token] for token in tokens.tolist())

    def pretty(self, tokens: Tokens, givens: Tokens | None = None) -> str:
        """Return tokens [S] as a picture of R + 2 lines: a border, walls as blocks, the path dotted.

        Cells that differ from ``givens`` [S] are bold (ANSI), so that the path stands out.
        """
        cells = [_SHOWN.get(token, "? ") for token in tokens.tolist()]
        if givens is not None:
            cells = [
                f"\x1b[1m{cell}\x1b[0m" if new else cell for cell, new in zip(cells, tokens != givens, strict=True)
            ]
        board = [cells[start : start + self.columns] for start in range(0, self.seq_len, self.columns)]
        bar = "─" * (2 * self.columns)
        return "\n".join([f"┌{bar}┐", *("│" + "".join(row) + "│" for row in board), f"└{bar}┘"])

    # -- rules --------------------------------------------------------------------------------------------------

    def verify(self, givens: Tokens, answers: Tokens) -> Bools:
        """Return whether each answer marks one path from S to G and changes nothing else; nothing is repaired.

        Only open cells may be marked. The marks must define the order of the path: S and G each touch one marked cell
        (or each other), every marked cell touches two cells of the path, and all are connected. Cells touch along their
        sides. Tokens [N, S] give bool [N]; other leading axes are allowed, so [S] gives one bool.
        """
        givens, answers = np.asarray(givens), np.asarray(answers)
        lead = np.broadcast_shapes(givens.shape[:-1], answers.shape[:-1])
        givens = np.broadcast_to(givens, (*lead, self.seq_len)).reshape(-1, self.seq_len)
        answers = np.broadcast_to(answers, (*lead, self.seq_len)).reshape(-1, self.seq_len)
        kept = ((answers == givens) | ((givens == OPEN) & (answers == PATH))).all(axis=1)
        ends = ((givens == START).sum(axis=1) == 1) & ((givens == GOAL).sum(axis=1) == 1)
        good = kept & ends
        good[good] = self._is_path(answers[good])
        return np.asarray(good.reshape(lead))

    def optimal(self, givens: Tokens, answers: Tokens) -> Bools:
        """Return whether each answer of [N, S] is right and no longer than the shortest path, bool [N]."""
        good = np.array(self.verify(givens, answers))
        good[good] = self.length(answers[good]) == self.shortest(givens[good])
        return good

    def only_answer(self, givens: Tokens) -> Tokens:
        """Return the label [S] of a maze [S]: one of its shortest paths."""
        return self.label(givens[None])[0]

    def length(self, answers: Tokens) -> NDArray[np.int64]:
        """Return the moves int64 [N] of the path marked in right answers [N, S]."""
        return np.asarray((answers == PATH).sum(axis=1) + 1)

    def _is_path(self, answers: Tokens) -> Bools:
        """Return whether the START, GOAL and PATH cells of [N, S] (one start, one goal) are a chordless path."""
        count = len(answers)
        on_path = self._framed(answers >= START, False)  # [N, R + 2, C + 2]
        board = self._framed(answers, 0)
        degree = sum(np.roll(on_path, move, axis=(1, 2)).astype(np.int8) for move in DIRECTIONS)
        fits = np.where(board == PATH, degree == 2, ~on_path | (degree == 1)).all(axis=(1, 2))
        # With these degrees the cells are one path from S to G and possibly loops: follow the path and count its cells.
        flat, line = self._flat(on_path), self.columns + 2
        steps = np.array([row * line + column for row, column in DIRECTIONS])
        rows = np.nonzero(fits)[0]
        here = np.argmax(self._flat(board == START), axis=1)[rows]
        before, cells, total = here.copy(), np.ones(len(rows), np.int64), flat.sum(axis=1)[rows]
        goal = np.argmax(self._flat(board == GOAL), axis=1)[rows]
        while (walking := here != goal).any():
            around = here[walking, None] + steps  # [n, 4]
            onward = flat[rows[walking, None], around] & (around != before[walking, None])
            before[walking] = here[walking]
            here[walking] = around[np.arange(len(around)), onward.argmax(axis=1)]
            cells[walking] += 1
        result = np.zeros(count, np.bool_)
        result[rows] = cells == total
        return result

    def _framed(self, cells: NDArray, fill: int) -> NDArray:
        """Return [N, S] as [N, R + 2, C + 2] with a border of ``fill``, so that every cell has four neighbours."""
        board = cells.reshape(-1, self.rows, self.columns)
        return np.pad(board, ((0, 0), (1, 1), (1, 1)), constant_values=fill)

    def _flat(self, boards: NDArray) -> NDArray:
        """Return [N, R + 2, C + 2] as [N, cells]."""
        return boards.reshape(len(boards), (self.rows + 2) * (self.columns + 2))

    def distances(self, givens: Tokens) -> NDArray[np.int32]:
        """Return the moves from every cell to the goal, int32 [N, S], up to the start's distance; -1 beyond it.

        Searches breadth first in all mazes at once; mazes [N, S] with one start and one goal each.
        """
        free = self._framed(givens > WALL, False)
        reached, start = self._framed(givens == GOAL, False), self._framed(givens == START, False)
        moves = np.where(reached, 0, -1).astype(np.int32)
        front, length = reached, 0
        while True:
            waiting = ~(reached & start).any(axis=(1, 2))
            front = np.logical_or.reduce([np.roll(front, move, axis=(1, 2)) for move in DIRECTIONS])
            front &= free & ~reached & waiting[:, None, None]
            if not front.any():
                break
            length += 1
            moves[front] = length
            reached = reached | front
        return np.asarray(moves[:, 1:-1, 1:-1].reshape(-1, self.seq_len))

    def shortest(self, givens: Tokens) -> NDArray[np.int64]:
        """Return the moves int64 [N] of the shortest path from S to G in mazes [N, S]; -1 where there is none."""
        return np.where(givens == START, self.distances(givens), 0).sum(axis=1).astype(np.int64)

    def label(self, givens: Tokens) -> Tokens:
        """Return mazes [N, S] with a shortest path marked, the first one in the order of ``DIRECTIONS``.

        Each maze must have a path from S to G.
        """
        answers = np.array(givens, np.uint8)
        moves = self._flat(self._framed(self.distances(givens), -1))
        line = self.columns + 2
        steps = np.array([row * line + column for row, column in DIRECTIONS])
        rows = np.arange(len(answers))
        here = np.argmax(self._flat(self._framed(answers == START, False)), axis=1)
        while len(rows):
            around = here[:, None] + steps
            onward = moves[rows[:, None], around] == moves[rows, here][:, None] - 1
            here = around[np.arange(len(rows)), onward.argmax(axis=1)]
            going = moves[rows, here] > 0
            rows, here = rows[going], here[going]
            row, column = np.divmod(here, line)
            answers[rows, (row - 1) * self.columns + column - 1] = PATH
        return answers

    # -- symmetries ---------------------------------------------------------------------------------------------

    def symmetries(self) -> NDArray[np.int64]:
        """Return the cells of all symmetries, int64 [K, S], as in ``Views.cells``: K = 8 for a square, else 4."""
        board = np.arange(self.seq_len, dtype=np.int64).reshape(self.rows, self.columns)
        kinds = range(dihedral.COUNT) if self.rows == self.columns else dihedral.SAME_SHAPE
        return np.stack([dihedral.transform(board, kind).ravel() for kind in kinds])

    @property
    def distinct_views(self) -> int:
        """Number of symmetries: 8 for a square, 4 for another rectangle."""
        return len(self.symmetries())

    def views(self, cells: NDArray[np.int64]) -> Views:
        """Return the views with these cells [N, S]; tokens keep their meaning."""
        return Views(cells, np.tile(np.arange(self.vocab, dtype=np.uint8), (len(cells), 1)))

    def random_views(self, count: int, rng: np.random.Generator) -> Views:
        """Draw rotations and reflections uniformly."""
        every = self.symmetries()
        return self.views(every[rng.integers(len(every), size=count)])
