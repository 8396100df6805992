"""Scoring of ARC answers: undo the augmentations, vote, give two attempts per question, write the official submission.

Axes: N answers, S = 900 cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrm_edge.tasks.arc import Grid, decode, split_identifier
from hrm_edge.tasks.base import Tokens

_ATTEMPTS = 2
"""Attempts per question in ARC Prize."""
_NO_ANSWER = ((0,),)
"""Grid in the submission where no answer was readable: the official format requires one."""

_Key = tuple[int, int, bytes]


@dataclass(frozen=True)
class Questions:
    """Augmented questions of a test part."""

    identifiers: list[str]
    """Identifier of each question's puzzle, by name [N]."""
    puzzle_ids: NDArray[np.int32]
    """Row of each question's puzzle in the puzzle table [N]."""
    view: NDArray[np.int64]
    """Number of the puzzle among those of its task [N]; 0 is the task itself."""
    inputs: Tokens
    labels: Tokens
    table: int
    """Rows of the puzzle table that the part was built for."""

    def __len__(self) -> int:
        return len(self.identifiers)

    def originals(self) -> list[Question]:
        """Return the questions of the part in its order: the examples of puzzles without augmentation."""
        questions = []
        for identifier, given, label in zip(self.identifiers, self.inputs, self.labels, strict=True):
            task, augmentation = split_identifier(identifier)
            grid = decode(given)
            if task == identifier and grid is not None:
                questions.append(Question(task, augmentation.invert(grid), decode(label)))
        return questions


class Question(NamedTuple):
    """Test pair of a task, without augmentation."""

    task: str
    input: Grid
    output: Grid | None
    """Output grid; None where it is not known."""


class _Candidate(NamedTuple):
    """Answer with at least one vote."""

    grid: Grid
    votes: int
    halt: float
    """Mean halting score of its votes."""


@dataclass(frozen=True)
class Score:
    """ARC Prize's score: the share of its questions answered for each task, averaged over tasks."""

    pass_at: dict[int, float]
    """Attempts allowed → score in [0, 1]."""
    solved: dict[int, int]
    """Attempts allowed → number of tasks with all their questions answered."""
    tasks: int
    questions: int


class Votes:
    """Answers to augmented questions, counted for the questions without augmentation."""

    def __init__(self) -> None:
        self._tally: defaultdict[tuple[str, _Key], dict[_Key, list[float]]] = defaultdict(dict)

    def add(self, identifiers: Sequence[str], inputs: Tokens, answers: Tokens, halt: ArrayLike) -> None:
        """Count N answers [N, S] to the questions ``inputs`` [N, S] of the puzzles ``identifiers``.

        ``halt`` [N]: halting score of each answer, higher for a surer one. An answer without a readable grid has no
        vote.
        """
        for identifier, given, answer, score in zip(identifiers, inputs, answers, np.asarray(halt), strict=True):
            task, augmentation = split_identifier(identifier)
            question, grid = decode(given), decode(answer)
            if question is None or grid is None:
                continue
            tally = self._tally[task, _key(augmentation.invert(question))]
            entry = tally.setdefault(_key(augmentation.invert(grid)), [0.0, 0.0])
            entry[0] += 1
            entry[1] += float(score)

    def ranked(self, question: Question) -> list[_Candidate]:
        """Return the answers to a question, best first: by votes, then by mean halting score.

        Remaining ties are ordered by the grids' cells, so that the order of ``add`` does not matter.
        """
        tally = self._tally.get((question.task, _key(question.input)), {})
        ranked = [(-count, -total / count, key) for key, (count, total) in tally.items()]
        return [_Candidate(_grid(key), int(-count), -halt) for count, halt, key in sorted(ranked)]


def score(votes: Votes, asked: Sequence[Question], attempts: Sequence[int] = (1, _ATTEMPTS)) -> Score:
    """Score the questions whose output is known, each with its best 1, 2, … answers."""
    known = [question for question in asked if question.output is not None]
    by_task: defaultdict[str, list[Question]] = defaultdict(list)
    for question in known:
        by_task[question.task].append(question)
    pass_at, solved = {}, {}
    for allowed in attempts:
        shares = [np.mean([_answered(votes, one, allowed) for one in several]) for several in by_task.values()]
        pass_at[allowed] = float(np.mean(shares)) if shares else 0.0
        solved[allowed] = int(sum(share == 1 for share in shares))
    return Score(pass_at, solved, len(by_task), len(known))


def _answered(votes: Votes, question: Question, allowed: int) -> bool:
    assert question.output is not None
    return any(np.array_equal(answer.grid, question.output) for answer in votes.ranked(question)[:allowed])


def submission(votes: Votes, asked: Sequence[Question]) -> dict[str, list[dict[str, list[list[int]]]]]:
    """Return the official file as a JSON value: task → {"attempt_1", "attempt_2"} for each question, in order.

    A single answer is used for both attempts; without any, both are ``_NO_ANSWER``.
    """
    answers: dict[str, list[dict[str, list[list[int]]]]] = {}
    for question in asked:
        grids = [candidate.grid.tolist() for candidate in votes.ranked(question)[:_ATTEMPTS]]
        grids = grids or [[list(row) for row in _NO_ANSWER]]
        attempts = {f"attempt_{number}": grids[min(number, len(grids)) - 1] for number in range(1, _ATTEMPTS + 1)}
        answers.setdefault(question.task, []).append(attempts)
    return answers


def _key(grid: Grid) -> _Key:
    return (*grid.shape, np.ascontiguousarray(grid).tobytes())


def _grid(key: _Key) -> Grid:
    return np.frombuffer(key[2], np.uint8).reshape(key[:2])
