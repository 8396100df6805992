"""Registry of tasks by name."""

from __future__ import annotations

import re

from hrm_edge.errors import UserError, nearest
from hrm_edge.tasks.arc import Arc
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku

_SIZED_NAME = re.compile(r"(sudoku|maze)-(\d{1,4})x(\d{1,4})")
_TASKS: dict[str, Task] = {"sudoku": Sudoku(3, 3), "mini-sudoku": Sudoku(2, 2), "maze": Maze(), "arc": Arc()}


def task_names() -> list[str]:
    """Return the names of the tasks of standard size.

    The names ``sudoku-RxC`` (box rows x columns) and ``maze-RxC`` (rows x columns) are valid too.
    """
    return sorted(_TASKS)


def get_task(name: str) -> Task:
    """Return the task of that name. Raises ``UserError``, with the nearest name, for an unknown one."""
    if name in _TASKS:
        return _TASKS[name]
    if match := _SIZED_NAME.fullmatch(name):
        return (Sudoku if match[1] == "sudoku" else Maze)(int(match[2]), int(match[3]))
    raise UserError(f"unknown task '{name}'", nearest(name, [*task_names(), "sudoku-2x3", "sudoku-4x4", "maze-10x10"]))
