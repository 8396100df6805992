"""Formats of puzzle files: all common ones are recognized, and give one entry a puzzle, as text, read lazily."""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.parsers import expat

from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_text import BLANKS, DIGITS, STROKES, Line, TextError, number_cells, read_grids, row_cells

_QUESTION = (
    "question",
    "questions",
    "quiz",
    "quizzes",
    "puzzle",
    "puzzles",
    "givens",
    "maze",
    "sudoku",
    "board",
    "grid",
)
_ANSWER = ("answer", "answers", "solution", "solutions")
_ONE_A_LINE = "one puzzle a line"
_TITLE = re.compile(r"(grid|puzzle|sudoku|board|game|problem|maze|no\.?|nr\.?)[\s:#.]*\d*[\s:.]*", re.IGNORECASE)
_SECTION = re.compile(r"\[(\w+)\]")
_FIELD = re.compile(r"[^\s,;\"]+")
_HEADER_NAME = re.compile(r"[A-Za-z_][\w .-]*")
# OpenSudoku's saved games: value|notes|editable, later value|corner notes|centre notes|editable
_SAVED_CELL = {
    False: re.compile(r"(\d)\|[^|]*\|{1,2}([01])\|"),
    True: re.compile(r"(\d)\|[^|]*\|[^|]*\|([01])\|"),
}
_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 12: (3, 4), 16: (4, 4)}  # side → rows and columns of a box


class Entry(NamedTuple):
    """Puzzle as written in a file."""

    form: str
    """Description of the file's format."""
    line: int
    """Line number, from 1."""
    question: str | Tokens
    """Text of the puzzle, or the tokens uint8 [S] of a grid of several lines."""
    column: int = 0
    """Number of characters before the question in its line."""
    answer: str = ""
    """Text of the answer; empty where the file has none."""
    answer_column: int = 0
    source: str = ""
    """Origin of the puzzle that the file names."""


def entries(task: Task, lines: Iterator[str]) -> Iterator[Entry]:
    """Yield the puzzles of a text in any known format. Raises ``TextError`` for a line that does not fit its format."""
    skipped: list[str] = []
    for first in lines:
        skipped.append(first)
        is_maze = task.family == "maze"  # in a maze a space is a cell and # is a wall
        if first.strip("\r\n" if is_maze else None) and (is_maze or not first.startswith("#")):
            break
    else:
        return iter(())
    names, delimiter = _header(first)
    if names:
        return _csv(names, delimiter, lines, len(skipped), comments=not is_maze)
    everything = itertools.chain(skipped, lines)
    if first.lstrip().startswith("<"):
        return _opensudoku(everything)
    numbered = enumerate(everything, start=1)
    return _LINES[task.family](task, numbered)


def _header(first: str) -> tuple[list[str], str]:
    """Return (column names, delimiter) of a CSV file by its first line; no names where that is not a header."""
    if len(first) > csv.field_size_limit():
        return [], ""
    for delimiter in ",;\t":
        names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if set(names) & set(_QUESTION) and (len(names) > 1 or first.strip().isalpha()):
            return names, delimiter
    names = [name.strip() for name in first.split(",")]
    if len(names) > 1 and all(map(_HEADER_NAME.fullmatch, names)) and max(map(len, names)) > 2:
        raise TextError(
            1,
            1,
            f"the header has no column 'question' (it has {', '.join(names[:6])})",
            f"name the columns question,answer[,source] in the first line; also known: {', '.join(_QUESTION[2:6])}",
        )
    return [], ""


def _csv(names: list[str], delimiter: str, lines: Iterator[str], before: int, *, comments: bool) -> Iterator[Entry]:
    def place(known: Sequence[str]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    raw = ""

    def watched() -> Iterator[str]:
        nonlocal raw
        for raw in lines:  # noqa: UP028 - the line that the reader is at is kept
            yield raw

    question, answer, source = place(_QUESTION), place(_ANSWER), place(("source",))
    assert question is not None
    form = f"CSV, columns {names[question]}" + (f" and {names[answer]}" if answer is not None else "")
    reader, line = csv.reader(watched(), delimiter=delimiter), before + 1
    try:
        for fields in reader:
            first, line = line, before + 1 + reader.line_num
            if not fields or (comments and fields[0].startswith("#")):
                continue
            if len(fields) != len(names):
                raise TextError(
                    first,
                    len(raw.rstrip("\r\n")),
                    f"{len(fields)} fields, the header has {len(names)}",
                    "correct that line",
                )
            solution = "" if answer is None else fields[answer]
            yield Entry(
                form,
                first,
                fields[question],
                max(0, raw.find(fields[question])),
                solution,
                max(0, raw.rfind(solution)),
                "" if source is None else sys.intern(fields[source]),
            )
    except csv.Error as error:
        raise TextError(line, 1, str(error), "correct that line") from error


def _opensudoku(lines: Iterator[str]) -> Iterator[Entry]:
    """Yield the ``game`` elements of OpenSudoku's XML; of a saved game, only the cells that cannot be edited."""
    ready: list[Entry] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "game" and attributes.get("data"):
            data = attributes["data"]
            if version := re.match(r"version: (\d+)\s", data):
                saved = data[version.end() :].strip()
                cells = list(_SAVED_CELL[int(version[1]) > 3].finditer(saved))
                if "".join(cell.group() for cell in cells) != saved:
                    raise TextError(parser.CurrentLineNumber, 1, "a saved game is damaged", "export it again")
                data = "".join("0" if cell[2] == "1" else cell[1] for cell in cells)
            ready.append(Entry("OpenSudoku XML", parser.CurrentLineNumber, data))

    def entity(*_: Any) -> None:
        raise TextError(parser.CurrentLineNumber, 1, "the XML declares entities", "remove them: puzzles need none")

    parser.StartElementHandler, parser.EntityDeclHandler = start, entity
    try:
        for text in lines:
            parser.Parse(text)
            yield from ready
            ready.clear()
        parser.Parse("", True)
    except expat.ExpatError as error:
        raise TextError(
            error.lineno,
            error.offset + 1,
            f"this is no whole XML: {expat.ErrorString(error.code)}",
            "export the puzzles again",
        ) from error


def _maze_lines(task: Maze, lines: Iterator[Line]) -> Iterator[Entry]:
    """Yield mazes written in one line each, or as grids of one row a line, with blank lines between them skipped."""
    block: list[Line] = []
    for number, text in lines:
        row = text.rstrip("\r\n")
        if not row and not block:
            continue
        if not block and len(row) != task.columns:
            yield Entry("one maze a line", number, row)
            continue
        if len(row) != task.columns:
            raise TextError(
                number,
                len(row) + 1,
                f"this row has {len(row)} cells, a {task.name} has {task.columns} a row",
                "give every cell a character: spaces count, so do not strip them",
            )
        block.append((number, row))
        if len(block) == task.rows:
            yield Entry(f"grids of {task.rows} lines", block[0][0], "".join(row for _, row in block))
            block = []
    if block:
        raise TextError(block[-1][0], 1, f"the maze ends after {len(block)} of {task.rows} rows", "give all of them")


class _Block:
    """Lines of a Sudoku file since the last puzzle: rows, frames, and lines that may be either."""

    def __init__(self, task: Sudoku) -> None:
        self.task = task
        self.lines: list[Line] = []
        self.most: list[int] = []
        """Number of cells in each line if ``-`` and ``*`` are blanks."""
        self.least: list[int] = []
        """Number of cells in each line if they are parts of a frame."""

    def add(self, line: Line) -> None:
        """Add a line. Raises ``TextError`` for a character that is no cell."""
        self.lines.append(line)
        self.most.append(len(row_cells(self.task, line)))
        self.least.append(len(row_cells(self.task, line, STROKES)))

    def is_ready(self) -> bool:
        """Return whether there are enough cells, and no further line can change their meaning."""
        side = self.task.side
        decided = self.most == self.least
        rows = all(side in counts or not counts[1] for counts in zip(self.most, self.least, strict=True))
        return sum(self.most) >= self.task.seq_len and (decided or not rows)

    def is_band(self) -> bool:
        """Return whether these are whole bands of an unfinished grid, between which a blank line is allowed."""
        side, box_rows = self.task.side, self.task.box_rows
        rows = [[count for count in counts if count] for counts in (self.most, self.least)]
        return any(set(r) == {side} and len(r) < side and len(r) % box_rows == 0 for r in rows)

    def entries(self, form: str) -> Iterator[Entry]:
        """Yield the grids and clear the block; a frame alone is ignored. Raises ``TextError``
        for an incomplete grid.
        """
        lines, is_frame = self.lines, not any(self.least) and len(self.lines) < self.task.side
        numbers = [number for (number, _), count in zip(lines, self.least, strict=True) if count]
        self.lines, self.most, self.least = [], [], []
        if is_frame:
            return
        grids = read_grids(self.task, lines)
        for index, grid in enumerate(grids):
            yield Entry(form, numbers[index * len(numbers) // len(grids)] if numbers else lines[0][0], grid)


def _sudoku_lines(task: Sudoku, lines: Iterator[Line]) -> Iterator[Entry]:
    """Yield Sudokus written in one line each, with or without a remark, or as grids of one row a line, in any frame."""
    block, form, section = _Block(task), f"grids of {task.side} lines", "puzzle"
    cells, length = _cell_characters(task), task.seq_len
    for number, text in lines:
        stripped = text.strip()
        if len(stripped) == length and section == "puzzle" and _is_plain(stripped, cells):  # nearly every line
            if block.lines:
                yield from block.entries(form)
            yield Entry(_ONE_A_LINE, number, stripped, text.index(stripped))
            continue
        text, is_comment, _ = text.partition("#")
        stripped = text.strip()
        if (is_comment and not stripped) or (section != "puzzle" and not _SECTION.fullmatch(stripped)):
            continue
        begins = _SECTION.fullmatch(stripped)
        whole = _whole_line(task, cells, number, text) if stripped and not begins else None
        if begins or whole or _TITLE.fullmatch(stripped) or (not stripped and not block.is_band()):
            yield from block.entries(form)
            if begins:
                section, form = begins[1].lower(), "SadMan Sudoku, [Puzzle] sections"
            if whole:
                yield whole
        elif stripped:
            block.add((number, text))
            if block.is_ready():
                yield from block.entries(form)
    yield from block.entries(form)


def _cell_characters(task: Sudoku) -> frozenset[str]:
    digits = DIGITS[: max(9, task.side)]
    return frozenset(BLANKS + digits + digits.lower())


def _is_plain(text: str, cells: frozenset[str]) -> bool:
    return cells.issuperset(text) and bool(text.strip(STROKES))


def _whole_line(task: Sudoku, cells: frozenset[str], number: int, text: str) -> Entry | None:
    """Return the puzzle of a line that holds a whole one, with its answer or a remark; None for other lines."""
    form = _ONE_A_LINE
    fields = [f for f in _FIELD.finditer(text) if len(f.group()) > 2 * task.side and _is_plain(f.group(), cells)]
    if len(fields) > 1:
        # A complete field may be the answer to an incomplete one.
        for field in fields:
            if (has := len(field.group())) != task.seq_len:
                what = f"read {has} cells, a {task.name} puzzle has {task.seq_len}"
                raise TextError(number, field.end(), what, "give all cells of it, or leave it out")
    fields = [f for f in fields if len(f.group()) == task.seq_len]
    if len(fields) > 2:
        raise TextError(number, fields[2].start() + 1, f"{len(fields)} puzzles on one line", "give each its own line")
    if fields:
        (question, column), (answer, answer_column) = [*((f.group(), f.start()) for f in fields), ("", 0)][:2]
        form += ", its answer behind it" if answer else "" if text.strip() == question else ", a remark beside it"
        return Entry(form, number, question, column, answer, answer_column)
    for strokes in ("", STROKES):
        with contextlib.suppress(TextError):
            if len(row_cells(task, (number, text), strokes)) == task.seq_len:
                return Entry(form, number, text)
    return None


def guess_task(lines: Sequence[str]) -> Sudoku:
    """Return the size of Sudoku in ``lines``, a text's first lines, by the length of a puzzle or a row.

    Raises ``TextError`` where no size has that many cells.
    """
    texts = [text.strip() for text in lines if text.strip() and not text.startswith(("#", "["))]
    fields = [max((sum(map(_is_cell, field)) for field in _FIELD.findall(text)), default=0) for text in texts]
    in_all = [sum(_is_cell(character) for character in text if character not in STROKES) for text in texts]
    if in_all[:16] == [16] * 16:
        return Sudoku(4, 4)
    for side in (12, 16):
        if any(number_cells(side, (1, text)) for text in texts):
            return Sudoku(*_BOXES[side])
    for count in itertools.chain(*zip(fields[:3], in_all[:3], strict=True)):
        for side, boxes in _BOXES.items():
            if count in (side, side * side):
                return Sudoku(*boxes)
    sizes = ", ".join(f"{side * side} ({Sudoku(*boxes).name})" for side, boxes in _BOXES.items())
    raise TextError(1, 1, f"{fields[0] if fields else 0} characters are no puzzle", f"a puzzle has {sizes} cells")


def _is_cell(character: str) -> bool:
    return character in BLANKS or character.upper() in DIGITS


_LINES: dict[str, Callable[[Any, Iterator[Line]], Iterator[Entry]]] = {"sudoku": _sudoku_lines, "maze": _maze_lines}
"""Reader of the lines of a file, for each family of puzzles."""
