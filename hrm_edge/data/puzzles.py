"""Puzzles to measure or solve: a built folder's test part, or a file of puzzles. Needs no extra.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data import maze_files
from hrm_edge.data.layout import is_data_folder, read_part, task_of
from hrm_edge.data.sources import folder_files, read_puzzles
from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku


@dataclass(frozen=True)
class PuzzleSet:
    """Puzzles with their answers where these are known."""

    task: Task
    inputs: Tokens
    """[N, S]"""
    labels: Tokens | None
    """[N, S]"""
    sources: list[str]
    """Where each is from: the file's column ``source``, else ``file:line`` or ``test:example``."""
    ratings: NDArray[np.float64] | None = None
    """Difficulty [N] where the file has it (column ``rating`` or ``ser``)."""
    puzzle_ids: NDArray[np.int32] | None = None
    """Rows [N] of the model's puzzle table; None: the blank one."""

    def __len__(self) -> int:
        return len(self.inputs)

    def head(self, limit: int | None) -> PuzzleSet:
        """The first ``limit`` puzzles (None: all)."""
        rows = slice(limit)
        return PuzzleSet(
            self.task,
            self.inputs[rows],
            None if self.labels is None else self.labels[rows],
            self.sources[rows],
            None if self.ratings is None else self.ratings[rows],
            None if self.puzzle_ids is None else self.puzzle_ids[rows],
        )


def load_puzzles(path: Path | str, task: Task | None = None) -> PuzzleSet:
    """The puzzles of ``path``: the test part of a built folder, ``test.csv`` of a hub's folder, or a CSV or text file.

    ``task`` None: told by the folder or by the length of a puzzle. Raises ``UserError`` for whatever is wrong with it.
    """
    path = Path(path)
    if path.is_dir() and is_data_folder(path):
        part = read_part(path, "test", task)
        name = task_of(part.metadata)
        if task is None and name is None:
            raise UserError(f"{path} does not say what task it is of", "build it with 'hrm-edge data build'")
        sources = [f"test:{row}" for row in range(len(part))]
        return PuzzleSet(
            task or get_task(str(name)),
            np.array(part.inputs, np.uint8),
            np.array(part.labels, np.uint8),
            sources,
            puzzle_ids=part.identifiers(),
        )
    if path.is_dir():
        path = (maze_files.folder_files if isinstance(task, Maze) else folder_files)(path)["test"]
    if isinstance(task, Maze):
        mazes = maze_files.read_mazes(path, task)
        return PuzzleSet(task, mazes.inputs, mazes.labels, mazes.sources)
    if task is not None and not isinstance(task, Sudoku):
        raise UserError(f"{path}: puzzles of {task.name} do not come in such files", "give a built data folder")
    file = read_puzzles(path, task)
    return PuzzleSet(file.task, file.inputs, file.labels, file.sources, file.ratings)
