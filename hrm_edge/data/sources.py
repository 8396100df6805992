"""Puzzles from files: CSV with a header, or text with one puzzle a line, plain or gzipped; and the hub's CSV files.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import os_error
from hrm_edge.packages import unusable
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.sudoku import BLANK, DIGITS, FIRST_DIGIT, Sudoku, geometry

HUB_DATASETS = {"sudoku": "sapientinc/sudoku-extreme", "maze": "sapientinc/maze-30x30-hard-1k"}
HUB_FILES = {"train": "train.csv", "test": "test.csv"}
_PIECE = 1 << 16  # rows in memory as text at a time: the hub's file has 3.8 million
_BOXES_OF_LENGTH = {16: (2, 2), 36: (2, 3), 81: (3, 3), 144: (3, 4), 256: (4, 4)}
_BAD = 255  # in the table of characters: no cell


@dataclass(frozen=True)
class PuzzleFile:
    """The puzzles of one file."""

    path: Path
    task: Sudoku
    inputs: Tokens
    """[N, S]"""
    labels: Tokens | None
    """[N, S]; None where the file has no answers."""
    lines: NDArray[np.int64]
    """Line of each puzzle [N], from 1."""
    sources: list[str]
    """Column ``source``, else ``file:line``, of each."""
    ratings: NDArray[np.float64] | None
    """Column ``rating`` or ``ser`` [N]."""

    def __len__(self) -> int:
        return len(self.inputs)

    def where(self, row: int) -> str:
        """``file, line n`` of a puzzle, for messages."""
        return f"{self.path}, line {self.lines[row]}"


class _Row(NamedTuple):
    line: int
    question: str
    answer: str | None
    source: str | None
    rating: str | None


def read_puzzles(path: Path | str, task: Sudoku | None = None) -> PuzzleFile:
    """Read and check a file of puzzles; without ``task`` the length of the first puzzle tells which it is.

    Raises ``UserError`` naming file and line for a malformed or contradictory puzzle and an answer that does not fit.
    """
    path = Path(path)
    inputs: list[Tokens] = []
    labels: list[Tokens | None] = []
    lines: list[int] = []
    sources: list[str] = []
    ratings: list[float] = []
    with open_text(path) as stream:
        rows = _rows(path, stream)
        while piece := list(itertools.islice(rows, _PIECE)):
            task = task or _task_of(path, piece[0])
            piece_inputs, piece_labels = _checked(path, task, piece)
            inputs.append(piece_inputs)
            labels.append(piece_labels)
            lines.extend(row.line for row in piece)
            sources.extend(row.source if row.source is not None else f"{path.name}:{row.line}" for row in piece)
            ratings.extend(_rating(path, row) for row in piece if row.rating is not None)
    if task is None or not inputs:
        raise UserError(f"{path} holds no puzzles", "give one puzzle a line, or a CSV with the column 'question'")
    known = [piece for piece in labels if piece is not None]
    return PuzzleFile(
        path=path,
        task=task,
        inputs=np.concatenate(inputs),
        labels=np.concatenate(known) if len(known) == len(inputs) else None,
        lines=np.array(lines),
        sources=sources,
        ratings=np.array(ratings) if ratings else None,
    )


def hub_files(task: Task) -> dict[str, Path]:
    """Download (or find in the hub's cache) the published CSV files: split → path. Needs the extra ``hub``."""
    if task.name not in HUB_DATASETS:
        raise UserError(
            f"the hub has no data set of {task.name}", f"use --source generate, or --source PATH of {task.name} puzzles"
        )
    dataset = HUB_DATASETS[task.name]
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise unusable("huggingface_hub", error, "which --source hub needs") from error
    try:
        return {split: Path(hf_hub_download(dataset, name, repo_type="dataset")) for split, name in HUB_FILES.items()}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"{dataset} could not be downloaded: {reason}",
            "check the network, or download train.csv and test.csv elsewhere and give their folder as --source",
        ) from error


def folder_files(folder: Path) -> dict[str, Path]:
    """The hub's files in a local folder: split → path (``train.csv`` or ``train.csv.gz``)."""
    found = {}
    for split, name in HUB_FILES.items():
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                found[split] = candidate
                break
        else:
            raise UserError(f"{folder} has no {name}", "a source folder holds train.csv and test.csv, as on the hub")
    return found


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text file, gzipped or not; what is wrong with the file is a ``UserError``."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is no whole gzip file: {error}", "download or write it again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: {error}", "give a CSV or text file of puzzles (.gz is fine)") from error
    except OSError as error:
        raise os_error(error, path) from error


def _rows(path: Path, stream: Iterator[str]) -> Iterator[_Row]:
    """The puzzles of a file, CSV or text as its first line that is no comment tells."""
    skipped, first = 0, ""
    for skipped, first in enumerate(stream):  # noqa: B007 - used after the loop
        if first.strip() and not first.startswith("#"):
            break
    else:
        return
    names = [name.strip().lower() for name in first.split(",")]
    if "question" in names:
        yield from _csv_rows(path, names, csv.reader(stream), skipped + 1)
    elif len(names) > 1:
        raise UserError(
            f"{path}: the header has no column 'question' (it has {', '.join(names[:6])})",
            "name the columns question,answer[,source,rating] in the first line",
        )
    else:
        for line, text in enumerate(itertools.chain([first], stream), start=skipped + 1):
            puzzle = text.partition("#")[0].strip()
            if puzzle:
                yield _Row(line, puzzle, None, None, None)


def _csv_rows(path: Path, names: list[str], reader: Any, offset: int) -> Iterator[_Row]:
    def place(*known: str) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    question, others = names.index("question"), (place("answer"), place("source"), place("rating", "ser"))
    try:
        for fields in reader:
            line = offset + reader.line_num
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) != len(names):
                raise UserError(
                    f"{path}, line {line}: {len(fields)} fields, the header has {len(names)}", "correct that line"
                )
            answer, source, rating = (None if index is None else fields[index] for index in others)
            yield _Row(line, fields[question], answer, source, rating)
    except csv.Error as error:
        raise UserError(f"{path}, line {offset + reader.line_num}: {error}", "correct that line") from error


def _task_of(path: Path, row: _Row) -> Sudoku:
    length = len("".join(row.question.split()))
    if length not in _BOXES_OF_LENGTH:
        known = ", ".join(f"{cells} ({Sudoku(*boxes).name})" for cells, boxes in _BOXES_OF_LENGTH.items())
        raise UserError(f"{path}, line {row.line}: {length} characters are no puzzle", f"a puzzle has {known} cells")
    return Sudoku(*_BOXES_OF_LENGTH[length])


def _rating(path: Path, row: _Row) -> float:
    try:
        return float(str(row.rating))
    except ValueError:
        raise UserError(f"{path}, line {row.line}: the rating '{row.rating}' is no number", "correct it") from None


def _checked(path: Path, task: Sudoku, rows: list[_Row]) -> tuple[Tokens, Tokens | None]:
    """Inputs [n, S] and labels [n, S] (None where no row has an answer) of some rows."""
    lines = [row.line for row in rows]
    inputs = _tokens(path, task, [row.question for row in rows], lines)
    _check_givens(path, task, inputs, lines)
    answers = [row.answer or "" for row in rows]
    if not any(answers):
        return inputs, None
    labels = _tokens(path, task, answers, lines)
    for row in np.nonzero(~task.verify(inputs, labels))[0][:1]:
        raise UserError(
            f"{path}, line {lines[row]}: the answer does not solve the question",
            "correct that line, or leave out the column 'answer' to have the puzzles solved",
        )
    return inputs, labels


def _tokens(path: Path, task: Sudoku, texts: list[str], lines: list[int]) -> Tokens:
    """Texts to tokens [N, S]: by table where every text is one character a cell, else one by one."""
    table = np.full(256, _BAD, np.uint8)
    for character in ".0_":
        table[ord(character)] = BLANK
    for token, digit in enumerate(DIGITS[: task.side], start=FIRST_DIGIT):
        table[[ord(digit), ord(digit.lower())]] = token
    joined = "".join(texts)
    if joined.isascii() and all(len(text) == task.seq_len for text in texts):
        tokens = table[np.frombuffer(joined.encode(), np.uint8)].reshape(-1, task.seq_len)
        if (tokens != _BAD).all():
            return np.asarray(tokens)
    return np.stack([_parse(path, line, task, text) for line, text in zip(lines, texts, strict=True)])


def _parse(path: Path, line: int, task: Sudoku, text: str) -> Tokens:
    try:
        return task.parse(text)
    except UserError as error:
        raise UserError(f"{path}, line {line}: {error.what}", error.mend) from error


def _check_givens(path: Path, task: Sudoku, inputs: Tokens, lines: list[int]) -> None:
    bits = np.where(inputs >= FIRST_DIGIT, np.left_shift(np.int64(1), np.maximum(inputs, FIRST_DIGIT) - FIRST_DIGIT), 0)
    clash = np.zeros(len(inputs), bool)
    for unit in geometry(task).units:
        cells = bits[:, unit]
        clash |= cells.sum(axis=1) != np.bitwise_or.reduce(cells, axis=1)  # equal only where no bit comes twice
    for row in np.nonzero(clash)[0][:1]:
        try:
            task.check_givens(inputs[row])
        except UserError as error:
            raise UserError(f"{path}, line {lines[row]}: {error.what}", error.mend) from error
