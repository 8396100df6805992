"""Results of solving puzzles. Numpy only.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.tasks.base import Bools, Tokens

HaltedBy = Literal["rules", "head", "limit"]
Stage = Literal["encode", "step", "decode", "halt check"]
"""Stage of solving: filling slots and applying views; the session's step; logits to answers; checking the rules."""
STAGES: tuple[Stage, ...] = ("encode", "step", "decode", "halt check")
_ARRAYS = ("givens", "answers", "verified", "steps_by_view", "views", "latency_s", "q_halt")  # a row a puzzle


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of solving one puzzle."""

    givens: Tokens  # [S]
    answer: Tokens  # [S]; the first view's where none is verified
    verified: bool
    """Whether the answer keeps the givens and obeys the rules. If not, the puzzle is not solved."""
    steps: int
    """ACT steps of all its views."""
    views: int
    """Number of views tried; 1 is only the puzzle as given."""
    latency_s: float
    """Seconds in a slot, over all views, without the wait in the queue."""
    halted_by: HaltedBy
    """Reason for the end of its last view."""
    trace: Tokens | None
    """Decoded prediction after each step uint8 [steps, S], in the puzzle's own frame, if requested."""


@dataclass(frozen=True, eq=False)
class Solutions:
    """Results of N puzzles as arrays, in the order of the puzzles; an index gives one :class:`Solution`."""

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
    """Seconds of the whole call in each stage."""

    @property
    def steps(self) -> NDArray[np.int32]:
        """ACT steps of all views, int32 [N]."""
        return self.steps_by_view.sum(axis=1, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.answers)

    def subset(self, rows: NDArray[np.int64]) -> Solutions:
        """Return the solutions of the puzzles ``rows`` [n], in that order."""
        return Solutions(
            **{name: getattr(self, name)[rows] for name in _ARRAYS},
            halted_by=[self.halted_by[row] for row in rows.tolist()],
            traces=None if self.traces is None else [self.traces[row] for row in rows.tolist()],
            stage_s=self.stage_s,
        )

    @classmethod
    def joined(cls, parts: Sequence[Solutions]) -> Solutions:
        """Return the solutions of several calls as one, without their traces."""
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS},
            halted_by=[reason for part in parts for reason in part.halted_by],
            traces=None,
            stage_s={stage: sum(part.stage_s[stage] for part in parts) for stage in STAGES},
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
