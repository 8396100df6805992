"""Puzzles with their right answers, to measure on. Axes: N puzzles, S cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnMessage, OnProgress
from hrm_edge.errors import UserError
from hrm_edge.report.schema import Data
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file


def sample_puzzles(task: str) -> str:
    """Return the path of the package's own 256 puzzles of ``task``, a CSV; ``UserError`` where it has none."""
    path = sample_file(task)
    if path is None:
        raise UserError(f"the package has no puzzles of {task}", "name a set: --data PATH")
    return str(path)


def note_format(puzzles: Puzzles, on_message: OnMessage) -> None:
    """Say what a file of puzzles was taken for."""
    on_message(f"{puzzles.source.path}: read as {puzzles.source.format}")


def answered_puzzles(
    path: str, task: Task, limit: int | None, on_message: OnMessage, on_progress: OnProgress
) -> tuple[Puzzles, Data]:
    """Return the first ``limit`` puzzles of ``path``, with its answers or else the solver's, and their description.

    Raises ``UserError`` naming the puzzle that has no solution or several of them.
    """
    from hrm_edge.data.puzzles import load_puzzles

    puzzles = load_puzzles(path, task, limit)
    if not len(puzzles):
        raise UserError(f"{path} holds no puzzles", "give a set with at least one")
    if not Path(path).is_dir() and path != str(sample_file(task.name)):
        note_format(puzzles, on_message)
    missing = np.flatnonzero(~puzzles.answered())
    answers_from = "data" if not len(missing) else "solver" if len(missing) == len(puzzles) else "data and solver"
    data = Data.model_validate(
        {
            "path": path,
            "task": task.name,
            "puzzles": len(puzzles),
            "answers": answers_from,
            "read_as": puzzles.source.format,
        }
    )
    return replace(puzzles, labels=_solved_labels(puzzles, task, missing, on_progress)), data


def _solved_labels(puzzles: Puzzles, task: Task, missing: NDArray[np.int64], on_progress: OnProgress) -> Tokens:
    """Return the answers of all puzzles [N, S]: the file's, of those in ``missing`` the only solution, by search."""
    labels = np.zeros_like(puzzles.givens) if puzzles.labels is None else puzzles.labels.copy()
    if not task.has_rules:  # padding is the answer of a question whose answer nobody knows
        return labels
    for done, row in enumerate(missing.tolist(), start=1):
        labels[row] = only_solution(task, puzzles.givens[row], puzzles.source.name(row))
        on_progress("looking up the answers", done, len(missing))
    return labels


def only_solution(task: Task, givens: Tokens, source: str) -> Tokens:
    """Return the only solution [S] of ``givens`` [S], of a maze a shortest path.

    Raises ``UserError`` naming ``source`` where there is none, or another.
    """
    try:
        answer = task.only_answer(givens)
    except UserError as error:
        raise UserError(f"{source}: {error.problem}", error.hint) from error
    if answer is None:
        raise UserError(f"{source}: the search for its solution is too long", "give a set with answers")
    return answer
