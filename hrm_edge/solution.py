"""Results of solving puzzles. Numpy only.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.tasks.base import Bools, Tokens

HaltedBy = Literal["rules", "head", "limit"]
Stage = Literal["encode", "step", "decode", "halt check"]
"""Filling slots and turning views; the session's step; logits to answers; the rules and what follows from them."""
STAGES: tuple[Stage, ...] = ("encode", "step", "decode", "halt check")


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of solving one puzzle."""

    givens: Tokens  # [S]
    answer: Tokens  # [S]; the first view's where nothing was verified
    verified: bool
    """The answer keeps the givens and obeys the rules. Where this is False the puzzle is not solved."""
    steps: int
    """ACT steps spent on it, all views together."""
    views: int
    """Views tried; 1 is the puzzle as given."""
    latency_s: float
    """Seconds it held a slot, all views together; waiting in the queue does not count."""
    halted_by: HaltedBy
    """What ended its last view."""
    trace: Tokens | None
    """Decoded prediction after each step [steps, S], in the puzzle's own frame, if asked for."""


@dataclass(frozen=True, eq=False)
class Solutions:
    """:class:`Solution` of N puzzles as arrays, in the order of the puzzles; indexing gives one."""

    givens: Tokens  # [N, S]
    answers: Tokens  # [N, S]
    verified: Bools  # [N]
    steps_by_view: NDArray[np.int32]  # [N, views allowed]; 0 where a view was not needed
    views: NDArray[np.int32]  # [N]
    latency_s: NDArray[np.float64]  # [N]
    q_halt: NDArray[np.float32]  # [N], the halting head's first output after the answer's last step
    halted_by: list[HaltedBy]  # N
    traces: list[Tokens] | None  # N times [steps, S]
    stage_s: dict[Stage, float]
    """Seconds that the whole call spent in each stage."""

    @property
    def steps(self) -> NDArray[np.int32]:
        """ACT steps of all views together [N]."""
        return self.steps_by_view.sum(axis=1, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.answers)

    def subset(self, rows: NDArray[np.int64]) -> Solutions:
        """The solutions of the puzzles ``rows`` [n], in that order."""
        return Solutions(
            givens=self.givens[rows],
            answers=self.answers[rows],
            verified=self.verified[rows],
            steps_by_view=self.steps_by_view[rows],
            views=self.views[rows],
            latency_s=self.latency_s[rows],
            q_halt=self.q_halt[rows],
            halted_by=[self.halted_by[row] for row in rows.tolist()],
            traces=None if self.traces is None else [self.traces[row] for row in rows.tolist()],
            stage_s=self.stage_s,
        )

    def __getitem__(self, index: int) -> Solution:
        return Solution(
            givens=self.givens[index],
            answer=self.answers[index],
            verified=bool(self.verified[index]),
            steps=int(self.steps_by_view[index].sum()),
            views=int(self.views[index]),
            latency_s=float(self.latency_s[index]),
            halted_by=self.halted_by[index],
            trace=None if self.traces is None else self.traces[index],
        )

    def __iter__(self) -> Iterator[Solution]:
        return (self[index] for index in range(len(self)))
