"""Reader of puzzle files and typed puzzles as ``Puzzles``: it recognizes the format and checks the content.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.formats import Entry, entries, guess_task
from hrm_edge.data.text import STDIN_NAME, open_text
from hrm_edge.errors import UserError
from hrm_edge.files import check_input, os_error
from hrm_edge.tasks.base import NOT_A_CELL, PAD_TOKEN, Task, Tokens
from hrm_edge.tasks.maze import GOAL, PATH, START, WALL
from hrm_edge.tasks.puzzles import TYPED, Puzzles, Source
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_text import TextError

_PIECE = 1 << 16  # puzzles held as text at a time: the hub's file has 3.8 million
_HEAD = 40  # lines from which the size of a puzzle is guessed


def read_puzzles(path: Path | str, task: Task | None = None, limit: int | None = None) -> Puzzles:
    """Read the first ``limit`` puzzles (None: all) of a file in any known format, or of standard input (``-``).

    ``task`` None: Sudokus of the first puzzle's size. With a limit, no more of the file is read than needed. Raises
    ``UserError`` naming file, line and column of text that is no puzzle, contradicts the rules or has a wrong answer.
    """
    _refuse_others(str(path), task)
    if task is not None and task.family == "maze" and str(path).endswith(".npz"):
        return _maze_arrays(Path(path), task).head(limit)
    with open_text(path) as text:
        return _read(text.name, text.lines, text.about, task, limit)


def read_typed(text: str, task: Task) -> Puzzles:
    """Read puzzles from a text in the formats of files. Raises ``UserError`` naming the place of an error."""
    _refuse_others(TYPED, task)
    puzzles = _read(TYPED, io.StringIO(text, newline=""), (), task, None)
    if len(puzzles) > 1:
        return puzzles
    return replace(puzzles, source=replace(puzzles.source, given=[TYPED]))


def _refuse_others(name: str, task: Task | None) -> None:
    if task is not None and not task.has_rules:
        raise UserError(f"{name}: puzzles of {task.name} do not come in such files", "give a built data folder")


def _read(name: str, lines: Iterator[str], about: tuple[str, ...], task: Task | None, limit: int | None) -> Puzzles:
    with _placed(name):
        if task is None:
            head = list(itertools.islice(lines, _HEAD))
            task, lines = _task_of(head), itertools.chain(head, lines)
        in_file = itertools.islice(entries(task, lines), limit)
        pieces: list[tuple[Tokens, Tokens]] = []
        places: list[NDArray[np.int64]] = []
        given: list[str] = []
        form = ""
        while piece := list(itertools.islice(in_file, _PIECE)):
            form = form or piece[0].form
            pieces.append(_checked(task, piece))
            places.append(np.array([entry.line for entry in piece], np.int64))
            given.extend(entry.source for entry in piece)
    if not pieces:
        things = "mazes" if task.family == "maze" else "puzzles"
        hint = "give one a line, a grid of one row a line, or a CSV with the column 'question'"
        raise UserError(f"{name} holds no {things}", hint)
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    numbers, label = np.concatenate(places), name if name in (STDIN_NAME, TYPED) else Path(name).name
    source = Source(name, ", ".join((form, *about)), label, numbers, given if any(given) else None)
    return Puzzles(task, inputs, labels if labels.any() else None, np.zeros(len(inputs), np.int32), source)


@contextlib.contextmanager
def _placed(name: str) -> Iterator[None]:
    """Put file, line and column before a text's error, or neither where a typed puzzle has only one line."""
    try:
        yield
    except TextError as error:
        where = f"{name}, line {error.line}, column {error.column}: "
        raise UserError(
            error.problem if name == TYPED and error.line == 1 else where + error.problem, error.hint
        ) from error


def _task_of(head: list[str]) -> Sudoku:
    """Return the task, a size of Sudoku, of a file that begins with ``head``."""
    # In a CSV or XML file, only the puzzles' own text shows their size.
    for task in (Sudoku(), Sudoku(4, 4)):
        with contextlib.suppress(TextError):
            first = next(entries(task, iter(head)), None)
            if first is not None and first.form.startswith(("CSV", "OpenSudoku")):
                return guess_task(str(first.question).splitlines())
    return guess_task(head)


def _checked(task: Task, piece: list[Entry]) -> tuple[Tokens, Tokens]:
    """Return inputs and labels uint8 [n, S] of some entries; a label is padding where there is no answer."""
    inputs = _tokens(task, [(r.line, r.column, r.question) for r in piece])
    bad = task.hopeless(inputs)
    for row in np.flatnonzero(bad)[:1]:
        try:
            task.check_givens(inputs[row])
        except UserError as error:
            raise TextError(piece[row].line, piece[row].column + 1, error.problem, error.hint) from error
    labels = np.full_like(inputs, PAD_TOKEN)
    answered = np.array([bool(entry.answer) for entry in piece])
    if answered.any():
        texts = [(r.line, r.answer_column, r.answer) for r in piece if r.answer]
        labels[answered] = _tokens(task, texts)
        wrong = np.flatnonzero(answered)[~task.verify(inputs[answered], labels[answered])]
        if len(wrong):
            entry = piece[wrong[0]]
            raise TextError(
                entry.line,
                entry.answer_column + 1,
                "the answer does not solve the question",
                "correct it, or leave the answers out to have the puzzles solved",
            )
    return inputs, labels


def _tokens(task: Task, texts: Sequence[tuple[int, int, str | Tokens]]) -> Tokens:
    """Convert texts (line, column, characters) to tokens uint8 [N, S]; with a table if all characters are cells."""
    length = task.seq_len
    plain = [text for _, _, text in texts if isinstance(text, str) and len(text) == length]
    joined = "".join(plain)
    if len(plain) == len(texts) and joined.isascii():
        tokens = task.cell_table()[np.frombuffer(joined.encode(), np.uint8)].reshape(-1, task.seq_len)
        if (tokens != NOT_A_CELL).all():
            return np.asarray(tokens)
    return np.stack([_parsed(task, *text) for text in texts])


def _parsed(task: Task, line: int, column: int, text: str | Tokens) -> Tokens:
    if not isinstance(text, str):
        return text
    try:
        return task.parse(text)
    except TextError as error:
        place = column if error.line == 1 else 0
        raise TextError(line + error.line - 1, place + error.column, error.problem, error.hint) from error
    except UserError as error:
        raise TextError(line, column + 1, error.problem, error.hint) from error


def _maze_arrays(path: Path, task: Task) -> Puzzles:
    """Read the mazes of a .npz file with the arrays ``inputs`` and ``labels``, tokens [N, S]."""
    check_input(path)
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            inputs, labels = _array(path, task, arrays, "inputs"), _array(path, task, arrays, "labels")
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no whole .npz file: {error}", "download or write it again") from error
    if len(inputs) != len(labels):
        raise UserError(f"{path}: {len(inputs)} inputs but {len(labels)} labels", "give one label for every input")
    bad = ((inputs < WALL) | (inputs > PATH)).any(axis=1)
    bad |= ((inputs == START).sum(axis=1) != 1) | ((inputs == GOAL).sum(axis=1) != 1)
    for row in np.flatnonzero(bad)[:1]:
        raise UserError(f"{path}, maze {row}: no maze with one start and one goal", "tokens are `# SGo` = 1 to 5")
    for row in np.flatnonzero(~task.verify(inputs, labels))[:1]:
        raise UserError(f"{path}, maze {row}: the answer does not solve the question", "correct it, or leave it out")
    source = Source(str(path), "NumPy arrays (.npz)", path.name, np.arange(len(inputs)))
    return Puzzles(task, inputs, labels, np.zeros(len(inputs), np.int32), source)


def _array(path: Path, task: Task, arrays: dict[str, NDArray], name: str) -> Tokens:
    if name not in arrays:
        raise UserError(f"{path} has no array '{name}'", "it needs inputs and labels, tokens [mazes, cells]")
    array = arrays[name]
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != task.seq_len or not len(array):
        raise UserError(
            f"{path}: '{name}' is {array.dtype} {array.shape}, not whole numbers [mazes, {task.seq_len}]",
            f"give tokens of {task.name}, or the size as maze-RxC",
        )
    in_range = ((array >= 0) & (array < 256)).all()
    return np.asarray(array.astype(np.uint8) if in_range else np.zeros_like(array, np.uint8))
