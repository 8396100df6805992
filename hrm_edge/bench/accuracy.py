"""Accuracy of a solver's answers against the labels. Axes: N puzzles, S cells."""

from __future__ import annotations

import numpy as np

from hrm_edge.report.figures import accuracy_drop, wilson_95
from hrm_edge.report.schema import Answers, AtViews, ModelInfo, Paired
from hrm_edge.solution import Solutions
from hrm_edge.tasks.base import Bools, Task, Tokens, exact

_VIEW_MARKS = (1, 4, 16, 64)


def score(solutions: Solutions, labels: Tokens, task: Task | None = None, *, views: int | None = None) -> Answers:
    """Score ``solutions`` against ``labels`` uint8 [N, S], as if the solver had stopped after ``views`` (None: all).

    A puzzle that needed more views counts as unsolved: its earlier answers broke the rules, and no label does. A maze
    can have many shortest paths, and its label is only one of them: given its ``task``, any shortest path counts as
    right.
    """
    in_time: Bools = np.ones(len(solutions), np.bool_) if views is None else solutions.views <= views
    verified = solutions.verified & in_time
    right = exact(solutions.answers, labels) & in_time
    optimal = None if task is None else task.optimal(solutions.givens, solutions.answers)
    if optimal is not None:
        optimal &= in_time
    steps = solutions.steps_by_view[:, :views].sum(axis=1)
    count = len(solutions)
    return Answers(
        count=count,
        exact_accuracy=float(right.mean()) if count else 0.0,
        exact_accuracy_interval_95=wilson_95(int(right.sum()), count),
        verified=int(verified.sum()),
        false_verified=int((verified & ~(right if optimal is None else right | optimal)).sum()),
        mean_steps=float(steps.mean()) if count else 0.0,
        optimal=None if optimal is None else int(optimal.sum()),
    )


def score_by_views(solutions: Solutions, labels: Tokens, views: int, task: Task | None = None) -> list[AtViews]:
    """Return :func:`score` after 1, 4, 16 and 64 views, up to the number allowed, and after all of them."""
    return [AtViews(views=mark, **score(solutions, labels, task, views=mark).model_dump()) for mark in marks_to(views)]


def marks_to(views: int) -> list[int]:
    """Return the numbers of views that a report scores: 1, 4, 16 and 64 up to ``views``, and ``views`` itself."""
    return sorted({*(mark for mark in _VIEW_MARKS if mark <= views), views})


def steps_histogram(solutions: Solutions) -> dict[int, int]:
    """Return how many puzzles took each number of ACT steps: steps → puzzles."""
    steps, counts = np.unique(solutions.steps, return_counts=True)
    return {int(k): int(n) for k, n in zip(steps, counts, strict=True)}


def paired(
    solutions: Solutions, other: Solutions, labels: Tokens, *, model: ModelInfo, backend: str, task: Task | None = None
) -> Paired:
    """Compare ``solutions`` with the ``other`` model's answers to the same puzzles, puzzle by puzzle.

    ``labels`` uint8 [N, S]; ``model`` and ``backend`` describe the other model.
    """
    right, others = exact(solutions.answers, labels), exact(other.answers, labels)
    only_other, only_this = int((others & ~right).sum()), int((right & ~others).sum())
    answers, loss = score(other, labels, task), accuracy_drop(only_other, only_this, len(solutions))
    both = {"exact_accuracy", "exact_accuracy_interval_95", "false_verified", "mean_steps"}
    return Paired(
        model=model,
        backend=backend,
        **answers.model_dump(include=both),
        only_other=only_other,
        only_this=only_this,
        lost_points=loss.points,
        lost_points_interval_95=loss.interval_95,
    )
