"""Rules and model in a thread of their own: one reading at a time, the newest, every step kept to be watched.

Axes: S cells, V vocabulary, D digits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.session import Session
from hrm_edge.solution import Solution
from hrm_edge.solve import solve
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import FIRST_DIGIT, Sudoku
from hrm_edge.vision.judge import Verdict, judge
from hrm_edge.vision.read import Reading

_REMEMBERED = 8  # readings whose thought is kept, so that one shown again is answered at once
REFUSED_S = 2.0  # a reading that the rules refuse is judged again after this: more frames may have made it surer


@dataclass(eq=False)
class Thought:
    """State of solving one reading. Written by the worker, read by everyone: values only grow."""

    number: int
    reading: Reading
    verdict: Verdict | None = None
    """Verdict of the rules on the reading; None until there is one."""
    refused: UserError | None = None
    """Why the reading is no puzzle, by the last verdict while it is judged once more; the model is not asked then."""
    ended_s: float | None = None
    """When (``time.perf_counter``) it was refused, or the model came to its end."""
    steps: int = 0
    """ACT steps so far, all views together."""
    view: int = 0
    """The view (symmetry of the puzzle) that is being tried, from 0."""
    records: bytearray = field(default_factory=bytearray)
    """A record a step: view, step of the view, then the belief in each digit of each cell [S, D] in 1/255."""
    solution: Solution | None = None
    """Set when the model has come to its end; its ``verified`` says whether the puzzle is solved."""

    @property
    def givens(self) -> Tokens | None:
        """The puzzle [S] that the rules made of the reading; None until they have."""
        return None if self.verdict is None else self.verdict.puzzle

    @property
    def answer(self) -> Tokens | None:
        """The answer [S] where the rules have verified it: nothing else may be shown."""
        return self.solution.answer if self.solution is not None and self.solution.verified else None


class _Dropped(Exception):
    """Nobody waits for this thought any more."""


class Thinker:
    """Owns the session. ``views``: symmetries tried before a puzzle counts as beyond the model."""

    def __init__(self, session: Session, task: Sudoku, *, views: int = 64, max_steps: int | None = None) -> None:
        self.task, self.views = task, views
        self._session, self._max_steps = session, max_steps
        self._changed = threading.Condition()
        self._known: OrderedDict[bytes, Thought] = OrderedDict()
        self._wanted: Thought | None = None
        self._stopping = False
        self._count = 0
        self.fault: Exception | None = None
        """Exception that ended the thread, if it was not :meth:`stop`."""
        self._thread = threading.Thread(target=self._run, name="thinker", daemon=True)
        self._thread.start()

    def think(self, reading: Reading) -> Thought:
        """Return the thought about the digits of ``reading``, begun now unless known; a thought about others ends."""
        key = reading.digits.tobytes()
        with self._changed:
            thought = self._known.get(key)
            if thought is None or self._is_stale(thought):
                self._count += 1
                refused = None if thought is None else thought.refused
                thought = self._known[key] = Thought(self._count, reading, refused=refused)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            if thought is not self._wanted:
                self._wanted = thought if thought.ended_s is None else None
                self._changed.notify_all()
            return thought

    def _is_stale(self, thought: Thought) -> bool:
        """Return whether it was given up half way, or refused some time ago."""
        if thought.ended_s is None:
            return thought is not self._wanted
        return thought.refused is not None and time.perf_counter() - thought.ended_s > REFUSED_S

    def stop(self) -> None:
        """End the thread after the step it is in."""
        with self._changed:
            self._stopping = True
            self._wanted = None
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._wanted is not None or self._stopping)
                    thought = self._wanted
                if self._stopping or thought is None:
                    return
                self._work(thought)
        except Exception as error:  # noqa: BLE001 - the loop raises it where the user sees it
            self.fault = error

    def _work(self, thought: Thought) -> None:
        verdict = judge(thought.reading, self.task)
        thought.refused, thought.verdict = verdict.why, verdict
        if verdict.puzzle is not None:
            try:
                thought.solution = self._solve(thought, verdict.puzzle)
            except _Dropped:
                return
        with self._changed:
            thought.ended_s = time.perf_counter()
            if self._wanted is thought:
                self._wanted = None

    def _solve(self, thought: Thought, givens: Tokens) -> Solution:
        def watch(_: int, view: int, step: int, logits: NDArray[np.float32]) -> None:
            if self._wanted is not thought:
                raise _Dropped
            thought.records += bytes([view % 256, step % 256]) + beliefs(logits).tobytes()
            thought.steps, thought.view = thought.steps + 1, view

        solutions = solve(
            self._session,
            self.task,
            givens[None],
            halt="rules",
            views=self.views,
            max_steps=self._max_steps,
            on_step=watch,
        )
        return solutions[0]


def beliefs(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map logits [S, V] to the probability of every digit in every cell [S, D], in 1/255."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = exponent[:, FIRST_DIGIT:] / exponent.sum(axis=1, keepdims=True)
    return np.rint(255 * probability).astype(np.uint8)
