"""Puzzles with their right answers, for the verbs that measure. Axes: N puzzles, S cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrm_edge.cli.options import progress_bar
from hrm_edge.errors import UserError
from hrm_edge.report import Data
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import require_unique

if TYPE_CHECKING:
    from hrm_edge.data.puzzles import PuzzleSet


@dataclass(frozen=True, eq=False)
class Answered:
    """Givens and labels uint8 [N, S], their rows of the puzzle table [N], and how the report names them."""

    givens: Tokens
    labels: Tokens
    puzzle_ids: NDArray[np.int32]
    data: Data


def sample_of(task: Task) -> str:
    """Path of the package's own puzzles of ``task``; ``UserError`` where it has none."""
    path = sample_file(task.name)
    if path is None:
        raise UserError(f"the package has no puzzles of {task.name}", "name a set: --data PATH")
    return str(path)


def answered_puzzles(path: str, task: Task, limit: int | None) -> Answered:
    """The first ``limit`` puzzles of ``path``, with the file's answers or, where it has none, the solver's.

    Raises ``UserError`` naming the puzzle that has no solution or several of them.
    """
    from hrm_edge.data.puzzles import load_puzzles

    found = load_puzzles(path, task).head(limit)
    if not len(found):
        raise UserError(f"{path} holds no puzzles", "give a set with at least one")
    labels = solved_labels(found, task) if found.labels is None else found.labels
    answers_from = "solver" if found.labels is None else "data"
    data = Data.model_validate({"path": path, "task": task.name, "puzzles": len(found), "answers": answers_from})
    ids = np.zeros(len(found), np.int32) if found.puzzle_ids is None else found.puzzle_ids
    return Answered(found.inputs, labels, ids, data)


def solved_labels(puzzles: PuzzleSet, task: Task) -> Tokens:
    """The only solution of every puzzle [N, S], by search."""
    labels = np.zeros_like(puzzles.inputs)
    with progress_bar("looking up the answers", len(puzzles)) as progress:
        for row, (givens, source) in enumerate(zip(puzzles.inputs, puzzles.sources, strict=True)):
            labels[row] = only_solution(task, givens, source)
            progress(row + 1)
    return labels


def only_solution(task: Task, givens: Tokens, source: str) -> Tokens:
    """The only solution [S] of ``givens`` [S], of a maze a shortest path; ``UserError`` naming ``source`` where there
    is none, or another."""
    if isinstance(task, Maze):
        return task.label(givens[None])[0]
    if not isinstance(task, Sudoku):
        raise UserError(f"{source}: no rule tells the answer of a {task.name} puzzle", "give a set with answers")
    try:
        answer = require_unique(task, givens)
    except UserError as error:
        raise UserError(f"{source}: {error.what}", error.mend) from error
    if answer is None:
        raise UserError(f"{source}: the search for its solution is too long", "give a set with answers")
    return answer
