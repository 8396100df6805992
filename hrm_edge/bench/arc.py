"""ARC evaluation: answer every augmentation of a question, let the answers vote, score two attempts.

Axes: N augmented questions, S = 900 cells.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from hrm_edge.bench.accuracy import marks_to, steps_histogram
from hrm_edge.bench.accuracy import score as score_answers
from hrm_edge.bench.run import Subject, describe_setup
from hrm_edge.bench.scenarios import Solver
from hrm_edge.errors import UserError
from hrm_edge.report.schema import ArcAtViews, ArcCells, ArcVotes, CellAccuracy, EvalReport
from hrm_edge.solution import Solutions
from hrm_edge.solve import Progress
from hrm_edge.tasks.arc import FIRST_COLOUR, decode, encode
from hrm_edge.tasks.arc_votes import Question, Questions, Score, Votes, score, submission
from hrm_edge.tasks.base import PAD_TOKEN, Tokens
from hrm_edge.tasks.puzzles import Puzzles

Submission = dict[str, list[dict[str, list[list[int]]]]]


def evaluate_arc(
    solver: Solver,
    questions: Questions,
    views: int,
    subject: Subject,
    *,
    on_progress: Progress | None = None,
) -> tuple[EvalReport, Submission]:
    """Answer the first ``views`` augmentations of each question and return the report and the submission.

    The submission is the content of the official submission file: task → its questions' two attempts. Raises
    ``UserError`` where the model's puzzle table does not belong to this data folder.
    """
    _check_table(solver, questions, subject.data.path)
    rows = np.flatnonzero(questions.view < views)
    began = time.perf_counter()
    asked = Puzzles.of(solver.task, questions.inputs[rows], None, questions.puzzle_ids[rows], called=subject.data.path)
    solutions = solver(asked, on_progress=on_progress)
    duration = time.perf_counter() - began
    originals = questions.originals()
    votes, by_views = _vote(questions, originals, rows, solutions, views)
    last = score(votes, originals)
    known = questions.labels[rows].any(axis=1)
    plain = known & (questions.view[rows] == 0)
    cells = cell_accuracies(questions.inputs[rows][plain], questions.labels[rows][plain], solutions.answers[plain])
    answered = solutions.subset(np.flatnonzero(known))
    report = EvalReport(
        **dict(describe_setup(solver, subject).model_copy(update={"views": views})),
        **dict(score_answers(answered, questions.labels[rows][known])),
        steps_histogram=steps_histogram(answered),
        arc=ArcVotes(tasks=last.tasks, questions=last.questions, asked=len(originals), by_views=by_views, cells=cells),
        mean_views=len(rows) / max(1, len(originals)),
        by_views=[],
        duration_s=duration,
        throughput_per_s=len(rows) / duration,
    )
    return report, submission(votes, originals)


def _check_table(solver: Solver, questions: Questions, path: str) -> None:
    """Refuse data that has not as many identifiers as the model's puzzle table has rows: a row means one task."""
    spec = solver.session.spec
    if spec.puzzle_dim and spec.puzzles != questions.table:
        raise UserError(
            f"the model's puzzle table has {spec.puzzles} rows, {path} has {questions.table} identifiers",
            "give the data folder that the model was trained on, or one built with the same options and seed",
        )


def _vote(
    questions: Questions, originals: list[Question], rows: NDArray[np.int64], solutions: Solutions, views: int
) -> tuple[Votes, list[ArcAtViews]]:
    """Return all votes, and the score after 1, 4, 16, 64 and all views."""
    votes, by_views = Votes(), []
    # The published code breaks ties by the mean halting probability.
    surety = 1 / (1 + np.exp(-solutions.q_halt.astype(np.float64)))
    counted = 0
    for mark in marks_to(views):
        new = np.flatnonzero((questions.view[rows] >= counted) & (questions.view[rows] < mark))
        names = [questions.identifiers[row] for row in rows[new]]
        votes.add(names, questions.inputs[rows[new]], solutions.answers[new], surety[new])
        counted = mark
        at = score(votes, originals)
        if at.questions:
            by_views.append(_at_views(mark, at))
    return votes, by_views


def cell_accuracies(inputs: Tokens, labels: Tokens, answers: Tokens) -> ArcCells | None:
    """Compare single cells of ``answers`` with ``labels``; None for N = 0. All arrays are uint8 [N, S].

    The grid read from an answer is first laid on an empty canvas: a model is not trained on the cells outside of it.
    Two baselines are scored too: the question's ``inputs`` copied, and its grid filled with its commonest colour.
    """
    if not len(labels):
        return None
    return ArcCells(
        questions=len(labels),
        model=_cells_right(np.stack([_alone(answer) for answer in answers]), labels),
        copied_input=_cells_right(inputs, labels),
        commonest_colour=_cells_right(np.stack([_in_one_colour(given) for given in inputs]), labels),
    )


def _cells_right(answers: Tokens, labels: Tokens) -> CellAccuracy:
    right, grid = answers == labels, labels >= FIRST_COLOUR
    return CellAccuracy(grid=float(right[grid].mean()), canvas=float(right.mean()))


def _alone(answer: Tokens) -> Tokens:
    grid = decode(answer)
    return np.full_like(answer, PAD_TOKEN) if grid is None else encode(grid)


def _in_one_colour(given: Tokens) -> Tokens:
    colours = given >= FIRST_COLOUR
    return np.where(colours, np.bincount(given[colours], minlength=1).argmax(), given).astype(np.uint8)


def _at_views(views: int, at: Score) -> ArcAtViews:
    (first, second), (solved, solved_2) = at.pass_at.values(), at.solved.values()
    return ArcAtViews(views=views, pass_at_1=first, pass_at_2=second, solved_at_1=solved, solved_at_2=solved_2)
