"""Sudokus as text: the characters that are cells, and the lines that form a grid.

``-`` and ``*`` are blanks in some files and parts of a frame in others. A grid is therefore read in each possible way,
and the way that gives complete rows is used.

Axes: N grids, S cells; ``side`` is the number of rows, columns and digits, S = side².
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens

DIGITS = "123456789" + string.ascii_uppercase
BLANKS = "0._?xX*-"
STROKES = "-*"  # blanks that may be parts of a frame instead
_SEPARATORS = "|+!,;:=\"'"  # also white space and the box-drawing block
_LINE_LIKE = re.compile(r"[-*+=|.:!'\s\u2500-\u257f]*")
_DRAWN = re.compile(r"\+|---|===|\*\*\*|[\u2500-\u257f]{3}")
_WORD = re.compile(r"[^\s,;|\u2500-\u257f]+")
_KNOWN_SIDES = {4: "mini-sudoku", 6: "sudoku-2x3", 9: "sudoku", 12: "sudoku-3x4", 16: "sudoku-4x4"}

Line = tuple[int, str]
"""Line of a text: its number, from 1, and its characters."""


class _Board(Protocol):
    """Size and name of a grid, as in ``Sudoku``: side, number of cells, and the task's name."""

    @property
    def side(self) -> int: ...
    @property
    def seq_len(self) -> int: ...
    @property
    def name(self) -> str: ...


class _Cell(NamedTuple):
    """Cell of a text and its place; digit 0 is a blank. ``line`` and ``column`` count from 1."""

    digit: int
    line: int
    column: int


class TextError(UserError):
    """Error at a place of a text: ``line`` and ``column``, both from 1."""

    def __init__(self, line: int, column: int, problem: str, hint: str) -> None:
        super().__init__(problem, hint)
        self.line, self.column = line, column


def row_cells(task: _Board, line: Line, strokes: str = "") -> list[_Cell]:
    """Return the cells of a line, none for a line of the frame.

    ``strokes``: those of ``-`` and ``*`` that are no blanks here. Raises ``TextError`` for a character that is no cell.
    """
    number, text = line
    if task.side > 9 and (numbers := number_cells(task.side, line)):
        return numbers
    cells: list[_Cell] = []
    for column, character in enumerate(text, start=1):
        digit = DIGITS.find(character.upper()) + 1
        if 0 < digit <= max(9, task.side):
            cells.append(_Cell(digit, number, column))
        elif character in BLANKS and character not in strokes:
            cells.append(_Cell(0, number, column))
        elif not (character.isspace() or character in _SEPARATORS + STROKES or "\u2500" <= character <= "\u257f"):
            raise _bad_character(task, _Cell(0, number, column), character, len(cells))
    may_be_cells = len(cells) in (task.side, task.seq_len) and "+" not in text
    return cells if may_be_cells or not (_LINE_LIKE.fullmatch(text) and _DRAWN.search(text)) else []


def number_cells(side: int, line: Line) -> list[_Cell]:
    """Return the cells of a line that has digits as numbers, such as ``10 0 16 3``; none for another line."""
    words = [(match.group(), match.start() + 1) for match in _WORD.finditer(line[1])]
    decimal = [int(word) if word.isdecimal() else -1 for word, _ in words]
    blank = [len(word) == 1 and word in BLANKS for word, _ in words]
    if len(words) not in (side, side * side) or not any(value > 9 for value in decimal):
        return []
    if not all(0 <= value <= side or is_blank for value, is_blank in zip(decimal, blank, strict=True)):
        return []
    return [_Cell(max(0, value), line[0], column) for value, (_, column) in zip(decimal, words, strict=True)]


def read_grids(task: _Board, lines: Sequence[Line]) -> Tokens:
    """Return the grids uint8 [N, S] in ``lines``, one after the other; a single grid may have line breaks anywhere.

    Raises ``TextError`` naming the place where a row or a grid has too few or too many cells, or a cell an invalid
    digit.
    """
    text = "".join(characters for _, characters in lines)
    seen = [stroke for stroke in STROKES if stroke in text]
    meanings = ["", *seen, *([STROKES] if len(seen) == len(STROKES) else [])]
    readings = [[row for line in lines if (row := row_cells(task, line, meaning))] for meaning in meanings]
    whole = {tuple(cell.digit for row in rows for cell in row): rows for rows in readings if _are_whole(task, rows)}
    if not whole:
        raise _not_whole(task, lines, readings)
    if len(whole) > 1:
        raise TextError(
            lines[0][0], 1, f"{' and '.join(seen)} may be blanks or lines of this grid", "write every blank as '.'"
        )
    _check_zero(task, lines, text)
    (digits,) = whole
    cells = [cell for row in whole[digits] for cell in row]
    for place, cell in enumerate(cells):
        if cell.digit > task.side:
            raise _bad_character(task, cell, DIGITS[cell.digit - 1], place % task.seq_len)
    return (np.array(digits) + 1).astype(np.uint8).reshape(-1, task.seq_len)


def _are_whole(task: _Board, rows: list[list[_Cell]]) -> bool:
    total = sum(map(len, rows))
    even = all(len(row) == task.side for row in rows) and len(rows) % task.side == 0
    return total == task.seq_len or (total > 0 and even)


def _not_whole(task: _Board, lines: Sequence[Line], readings: list[list[list[_Cell]]]) -> TextError:
    """Return the error that no reading gives complete grids, described by the closest one."""
    hint = f"give every cell a character: {_alphabet(task)}"

    def distance(rows: list[list[_Cell]]) -> tuple[int, int]:
        return sum(len(row) != task.side for row in rows), abs(sum(map(len, rows)) - task.seq_len)

    rows = min(readings, key=distance)
    wanted = f"a {task.name} puzzle has {task.seq_len} ({task.side} rows of {task.side})"
    if not rows:
        return TextError(lines[0][0], 1, f"read 0 cells, {wanted}", hint)
    if all(len(row) == task.side for row in rows) and len(rows) > 1:
        last, has = rows[-1][-1], len(rows) % task.side
        return TextError(last.line, last.column, f"the grid ends after {has} of {task.side} rows", "give all of them")
    row = next(row for row in rows if len(row) != task.side or len(rows) == 1)
    most = task.seq_len if len(row) > task.seq_len or len(rows) == 1 else task.side
    place = row[most] if len(row) > most else row[-1]
    others = [f"a {name} puzzle" for side, name in _KNOWN_SIDES.items() if side * side == len(row)]
    others += [f"a row of {name}" for side, name in _KNOWN_SIDES.items() if side == len(row)]
    if others:
        hint = f"{len(row)} cells are {' or '.join(others)}: choose a model of that task with --model, or correct them"
    return TextError(place.line, place.column, f"read {len(row)} cells, {wanted}", hint)


def _check_zero(task: _Board, lines: Sequence[Line], text: str) -> None:
    """Raise ``TextError`` where 0 may be a digit: boards beyond 9x9 are also written with 0 to 9 and A to F."""
    others = [blank for blank in "._?" if blank in text]
    if task.side > 9 and "0" in text and others and DIGITS[task.side - 1] not in text.upper():
        number, column = next((number, line.index("0") + 1) for number, line in lines if "0" in line)
        if not any(number_cells(task.side, line) for line in lines):
            raise TextError(
                number,
                column,
                f"'0' and '{others[0]}' both stand here: is 0 a digit or a blank?",
                f"write digits as {_alphabet(task).partition(',')[0]} and every blank alike",
            )


def _alphabet(task: _Board) -> str:
    """Return a description of the characters of a cell."""
    last = DIGITS[task.side - 1]
    digits = f"1 to {last}" if task.side <= 9 else "1 to 9, A" + (f" to {last}" if last != "A" else "")
    return f"{digits}, and for a blank one of 0 . _ ? * - x"


def _bad_character(task: _Board, cell: _Cell, character: str, place: int) -> TextError:
    row, column = divmod(place, task.side)
    where = f" in row {row + 1}, column {column + 1}" if place < task.seq_len else f" after {place} cells"
    problem = f"bad character {character!r}{where}: no cell of a {task.name} puzzle"
    return TextError(cell.line, cell.column, problem, f"a cell is {_alphabet(task)}")
