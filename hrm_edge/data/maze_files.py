"""Mazes from files: the hub's CSV (columns question and answer), text with one maze a line, or arrays (.npz).

A space is a cell and '#' a wall: nothing is stripped and there are no comments. Axes: N mazes, S cells.
"""

from __future__ import annotations

import csv
import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.sources import open_text
from hrm_edge.errors import UserError
from hrm_edge.files import os_error
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.maze import GOAL, PATH, START, WALL, Maze

_NAMES = (".csv", ".csv.gz", ".npz", ".txt", ".txt.gz")


@dataclass(frozen=True)
class MazeFile:
    """The mazes of one file, each with a right answer."""

    path: Path
    task: Maze
    inputs: Tokens
    """[N, S]"""
    labels: Tokens
    """[N, S]; where the file has no answers: the first shortest path, see ``Maze.label``."""
    sources: list[str]
    """Column ``source``, else ``file:line``, of each."""
    solved: int
    """Mazes the file had no answer for."""

    def __len__(self) -> int:
        return len(self.inputs)


class _Row(NamedTuple):
    line: int
    question: str
    answer: str
    source: str | None


def read_mazes(path: Path | str, task: Maze) -> MazeFile:
    """Read and check a file of mazes of one size.

    Raises ``UserError`` naming file and line for a malformed maze, one without a way, and an answer that is no path.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _arrays(path, task)
    with open_text(path) as stream:
        rows = list(_rows(path, stream))
    if not rows:
        raise UserError(f"{path} holds no mazes", "give one maze a line, or a CSV with the column 'question'")
    inputs = np.stack([_parse(path, row.line, task, row.question) for row in rows])
    answered = np.array([bool(row.answer) for row in rows])
    labels = np.stack([
        _parse(path, row.line, task, row.answer) if row.answer else given
        for row, given in zip(rows, inputs, strict=True)
    ])  # fmt: skip
    labels[~answered] = task.label(inputs[~answered])
    where = [f"line {row.line}" for row in rows]
    _check_answers(path, task, inputs, labels, where)
    sources = [row.source if row.source is not None else f"{path.name}:{row.line}" for row in rows]
    return MazeFile(path, task, inputs, labels, sources, int((~answered).sum()))


def folder_files(folder: Path) -> dict[str, Path]:
    """The files of a local folder that hold the parts: split → ``train.csv``, ``train.csv.gz``, ``train.npz``, …"""
    found = {}
    for split in ("train", "test"):
        paths = [folder / f"{split}{ending}" for ending in _NAMES if (folder / f"{split}{ending}").is_file()]
        if not paths:
            raise UserError(f"{folder} has no {split}.csv", "a source folder holds train.csv and test.csv, or .npz")
        found[split] = paths[0]
    return found


def _rows(path: Path, stream: Iterator[str]) -> Iterator[_Row]:
    first = next(stream, "")
    names = [name.strip().lower() for name in first.split(",")]
    if "question" not in names:
        if len(names) > 1:
            raise UserError(
                f"{path}: the header has no column 'question' (it has {', '.join(names[:6])})",
                "name the columns question,answer[,source,rating] in the first line",
            )
        for line, text in enumerate(itertools.chain([first], stream), start=1):
            if maze := text.rstrip("\r\n"):
                yield _Row(line, maze, "", None)
        return
    reader = csv.reader(stream)
    try:
        for fields in reader:
            line = 1 + reader.line_num
            if not fields:
                continue
            if len(fields) != len(names):
                raise UserError(
                    f"{path}, line {line}: {len(fields)} fields, the header has {len(names)}", "correct that line"
                )
            row = dict(zip(names, fields, strict=True))
            yield _Row(line, row["question"], row.get("answer", ""), row.get("source"))
    except csv.Error as error:
        raise UserError(f"{path}, line {1 + reader.line_num}: {error}", "correct that line") from error


def _parse(path: Path, line: int, task: Maze, text: str) -> Tokens:
    try:
        return task.parse(text)
    except UserError as error:
        raise UserError(f"{path}, line {line}: {error.what}", error.mend) from error


def _check_answers(path: Path, task: Maze, inputs: Tokens, labels: Tokens, where: list[str]) -> None:
    for row in np.nonzero(~task.verify(inputs, labels))[0][:1]:
        raise UserError(
            f"{path}, {where[row]}: the answer does not solve the question",
            "correct it, or leave out the column 'answer' to have the mazes solved",
        )


def _arrays(path: Path, task: Maze) -> MazeFile:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            inputs, labels = _array(path, task, arrays, "inputs"), _array(path, task, arrays, "labels")
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no whole .npz file: {error}", "download or write it again") from error
    if len(inputs) != len(labels):
        raise UserError(f"{path}: {len(inputs)} inputs but {len(labels)} labels", "give one label for every input")
    where = [f"maze {row}" for row in range(len(inputs))]
    _check_cells(path, inputs, where)
    _check_answers(path, task, inputs, labels, where)
    return MazeFile(path, task, inputs, labels, [f"{path.name}:{row}" for row in range(len(inputs))], 0)


def _array(path: Path, task: Maze, arrays: dict[str, NDArray], name: str) -> Tokens:
    if name not in arrays:
        raise UserError(f"{path} has no array '{name}'", "it needs inputs and labels, tokens [mazes, cells]")
    array = arrays[name]
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != task.seq_len or not len(array):
        raise UserError(
            f"{path}: '{name}' is {array.dtype} {array.shape}, not whole numbers [mazes, {task.seq_len}]",
            f"give tokens of {task.name}, or the size as maze-RxC",
        )
    return np.asarray(
        array.astype(np.uint8) if ((array >= 0) & (array < 256)).all() else np.zeros_like(array, np.uint8)
    )


def _check_cells(path: Path, inputs: Tokens, where: list[str]) -> None:
    bad = ((inputs < WALL) | (inputs > PATH)).any(axis=1)
    bad |= ((inputs == START).sum(axis=1) != 1) | ((inputs == GOAL).sum(axis=1) != 1)
    for row in np.nonzero(bad)[0][:1]:
        raise UserError(f"{path}, {where[row]}: no maze with one start and one goal", "tokens are `# SGo` = 1 to 5")
