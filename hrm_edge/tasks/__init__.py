"""Tasks by name."""

from __future__ import annotations

import re

from hrm_edge.errors import UserError, nearest
from hrm_edge.tasks.sudoku import Sudoku

_SUDOKU_NAME = re.compile(r"sudoku-(\d{1,2})x(\d{1,2})")
_TASKS = {"sudoku": Sudoku(3, 3), "mini-sudoku": Sudoku(2, 2)}


def task_names() -> list[str]:
    """Names of the tasks that have one of their own; ``sudoku-RxC`` (box rows x columns) is known besides."""
    return sorted(_TASKS)


def get_task(name: str) -> Sudoku:
    """The task of that name; ``UserError`` with the nearest name when there is none."""
    if name in _TASKS:
        return _TASKS[name]
    if match := _SUDOKU_NAME.fullmatch(name):
        return Sudoku(int(match[1]), int(match[2]))
    raise UserError(f"unknown task '{name}'", nearest(name, [*task_names(), "sudoku-2x3", "sudoku-4x4"]))
