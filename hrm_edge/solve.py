"""The only step loop: slots, halting, refill, further views of what is not solved yet. Numpy only.

Axes: N puzzles, B slots, S cells, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.session import FRESH, Carry, Logits, Session, wants_to_halt
from hrm_edge.tasks.base import Bools, Task, Tokens, Views

Halt = Literal["rules", "head", "fixed"]
"""When a slot stops: its answer obeys the rules; the model's halting head says so; after max_steps (as published)."""

HaltedBy = Literal["rules", "head", "limit"]
Stage = Literal["encode", "step", "decode", "halt check"]
"""Filling slots and turning views; the session's step; logits to answers; the rules and what follows from them."""
STAGES: tuple[Stage, ...] = ("encode", "step", "decode", "halt check")

GUESSES = 2
"""Cells guessed in each further view of a model whose answer moves with the board (mixing=groups): a symmetry alone
would give the same answer again (docs/explain/lattice.md)."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (puzzles done, puzzles verified) whenever one of these has changed."""
Watch = Callable[[int, int, int, NDArray[np.float32]], None]
"""Called after every step of every slot with (puzzle, view, step of that view, logits [S, V] in the puzzle's own
frame). What it raises ends the loop."""

_REASONS: tuple[HaltedBy, ...] = ("limit", "head", "rules")
_LIMIT, _HEAD, _RULES = range(3)


@dataclass(frozen=True, eq=False)
class Solution:
    """What came of one puzzle."""

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


def solve(
    session: Session,
    task: Task,
    givens: Tokens,
    *,
    puzzle_ids: NDArray[np.int32] | None = None,
    halt: Halt = "rules",
    max_steps: int | None = None,
    views: int = 1,
    guesses: int | None = None,
    budget_s: float | None = None,
    slots: int = 64,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_step: Watch | None = None,
    trace: bool = False,
) -> Solutions:
    """Answer ``givens`` uint8 [N, S] with at most ``slots`` puzzles in the batch at a time.

    A slot that halts takes the next puzzle from the queue at once; when the queue is empty the batch shrinks, so the
    cost follows the work that is left. A puzzle that is not verified when its slot halts is queued again under a
    random symmetry, its answer being turned back before it is checked, until ``views`` views were tried, or until it
    has held slots for ``budget_s`` seconds. The symmetry depends on ``seed``, the puzzle's index and the number of the
    view only: slots do not change results.

    ``guesses``: so many cells, drawn from what the model believed at the end of the first view, are added to the
    givens of each further view; the answer is checked against the puzzle without them. Default: :data:`GUESSES` for a
    model whose answer moves with the board, else 0.

    ``puzzle_ids`` int32 [N]: rows of the model's puzzle table (default: 0, the blank one). ``max_steps``: ACT steps of
    one view (default: the model's own). ``halt``, ``on_step``, ``trace``: see :data:`Halt`, :data:`Watch`,
    :class:`Solution`.
    Raises ``UserError`` when the model is not for this task or has no such puzzle ids.
    """
    givens = np.asarray(givens, dtype=np.uint8)
    ids = np.zeros(len(givens), np.int32) if puzzle_ids is None else np.asarray(puzzle_ids, dtype=np.int32)
    steps = session.spec.max_steps if max_steps is None else max_steps
    if guesses is None:
        guesses = default_guesses(session)
    if min(steps, views, slots) < 1:
        raise ValueError(f"max_steps={steps}, views={views} and slots={slots} must be at least 1")
    check_fits(session, task)
    _check_input(session, task, givens, ids)
    retries = _Retries(views, guesses, budget_s, seed)
    loop = _Loop(session, task, givens, ids, halt, steps, retries, on_progress, on_step, trace)
    return loop.run(min(slots, session.max_batch, len(givens)))


def default_guesses(session: Session) -> int:
    """Cells guessed in each further view where the caller does not say."""
    return GUESSES if session.spec.mixing == "groups" else 0


@dataclass(frozen=True)
class _Retries:
    """What is done about a puzzle whose view ended unsolved."""

    views: int
    guesses: int
    budget_s: float | None
    seed: int


def check_fits(session: Session, task: Task) -> None:
    """Raise ``UserError`` unless the model was made for the task's board and vocabulary."""
    spec = session.spec
    if (spec.seq_len, spec.vocab) != (task.seq_len, task.vocab):
        raise UserError(
            f"the model is for {spec.seq_len} cells and {spec.vocab} tokens, "
            f"{task.name} has {task.seq_len} cells and {task.vocab} tokens",
            f"use a model trained on {task.name}",
        )


def _check_input(session: Session, task: Task, givens: Tokens, ids: NDArray[np.int32]) -> None:
    if givens.ndim != 2 or givens.shape[1] != task.seq_len or ids.shape != givens.shape[:1]:
        raise ValueError(f"givens {givens.shape} and puzzle_ids {ids.shape} are not [N, {task.seq_len}] and [N]")
    if givens.size and int(givens.max()) >= task.vocab:
        raise ValueError(f"token {givens.max()} is beyond the vocabulary of {task.vocab}")
    spec = session.spec
    if spec.puzzle_dim and len(ids) and not (ids.min() >= 0 and ids.max() < spec.puzzles):
        raise UserError(
            f"puzzle id {ids.max() if ids.max() >= spec.puzzles else ids.min()} is not in the model's table of "
            f"{spec.puzzles}",
            "use the data folder that the model was trained on",
        )


class _Loop:
    """State of one ``solve``: the queue, the slots, the results so far."""

    def __init__(
        self, session: Session, task: Task, givens: Tokens, ids: NDArray[np.int32], halt: Halt, max_steps: int,
        retries: _Retries, on_progress: Progress | None, on_step: Watch | None, trace: bool,
    ) -> None:  # fmt: skip
        self.session, self.task, self.givens, self.ids = session, task, givens, ids
        self.halt, self.max_steps, self.retries = halt, max_steps, retries
        self.on_progress, self.on_step = on_progress, on_step
        count = len(givens)
        # the queue: puzzles not begun yet, in order, then further views in the order they were asked for
        self.begun = 0
        self.again: deque[tuple[int, int]] = deque()  # (puzzle, view)
        self.beliefs: dict[int, NDArray[np.float32]] = {}  # puzzle → logits [S, V] that guesses are drawn from
        # the results
        self.answers = np.zeros_like(givens)
        self.verified = np.zeros(count, np.bool_)
        self.steps_by_view = np.zeros((count, retries.views), np.int32)
        self.views = np.zeros(count, np.int32)
        self.latency_s = np.zeros(count, np.float64)
        self.q_halt = np.zeros(count, np.float32)
        self.reasons = np.zeros(count, np.int8)
        self.traces: list[list[Tokens]] | None = [[] for _ in range(count)] if trace else None
        self.done = 0
        self.stage_s: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    def _timed(self, stage: Stage, work: Callable[..., T], *arguments: object) -> T:
        began = time.perf_counter()
        result = work(*arguments)
        self.stage_s[stage] += time.perf_counter() - began
        return result

    def run(self, slots: int) -> Solutions:
        self._empty_slots(slots)
        carry = self._timed("encode", self._refill, None)
        while len(self.item):
            carry, logits, q = self._timed("step", self.session.step, self.tokens, self.ids[self.item], carry)
            self.steps += 1
            self._timed("halt check", self._judge, logits, q)
            if self.vacant.any():
                carry = self._timed("encode", self._refill, carry)
        self.stage_s["halt check"] -= self.stage_s["decode"]  # which is a part of it
        return Solutions(
            givens=self.givens,
            answers=self.answers,
            verified=self.verified,
            steps_by_view=self.steps_by_view,
            views=self.views,
            latency_s=self.latency_s,
            q_halt=self.q_halt,
            halted_by=[_REASONS[reason] for reason in self.reasons],
            traces=None if self.traces is None else [np.stack(steps) for steps in self.traces],
            stage_s=self.stage_s,
        )

    # -- slots --------------------------------------------------------------------------------------------------

    def _empty_slots(self, slots: int) -> None:
        self.vacant = np.ones(slots, np.bool_)
        self.item = np.zeros(slots, np.int64)
        self.view = np.zeros(slots, np.int64)
        self.steps = np.zeros(slots, np.int64)
        self.started = np.zeros(slots, np.float64)
        self.tokens = np.zeros((slots, self.givens.shape[1]), np.uint8)  # the puzzles as their views show them
        self.back = self.task.identity_views(slots)  # from a slot's view to the puzzle's own frame

    def _next(self) -> tuple[int, int] | None:
        if self.begun < len(self.givens):
            self.begun += 1
            return self.begun - 1, 0
        return self.again.popleft() if self.again else None

    def _refill(self, carry: Carry | None) -> Carry:
        """Give every vacant slot the next puzzle; drop the slots for which there is none."""
        rows = np.arange(len(self.item))
        for slot in np.flatnonzero(self.vacant):
            job = self._next()
            if job is None:
                break
            self._admit(int(slot), *job)
            rows[slot] = FRESH
        if self.vacant.any():
            keep = ~self.vacant
            rows, self.vacant = rows[keep], self.vacant[keep]
            self.item, self.view, self.steps = self.item[keep], self.view[keep], self.steps[keep]
            self.started, self.tokens = self.started[keep], self.tokens[keep]
            self.back = Views(self.back.cells[keep], self.back.labels[keep])
        if not len(rows):
            return carry
        return self.session.initial_carry(len(rows)) if carry is None else self.session.gather(carry, rows)

    def _admit(self, slot: int, item: int, view: int) -> None:
        self.started[slot] = time.perf_counter()
        puzzle = self.givens[item : item + 1]
        if view:
            rng = np.random.default_rng((self.retries.seed, item, view))
            there = self.task.random_views(1, rng)
            if item in self.beliefs:
                puzzle = self.task.with_guesses(puzzle[0], self.beliefs[item], self.retries.guesses, rng)[None]
            puzzle, back = there.apply(puzzle), there.inverse()
        else:
            back = self.task.identity_views(1)
        self.tokens[slot] = puzzle[0]
        self.back.cells[slot], self.back.labels[slot] = back.cells[0], back.labels[0]
        self.item[slot], self.view[slot], self.steps[slot], self.vacant[slot] = item, view, 0, False

    # -- halting ------------------------------------------------------------------------------------------------

    def _judge(self, logits: Logits, q: NDArray[np.float32]) -> None:
        """Decide which slots halt, decode, and record those; answers are decoded only where they are looked at."""
        reason = np.full(len(q), _LIMIT, np.int8)
        answers = None
        if self.halt == "rules" or self.traces is not None:
            answers = self._timed("decode", self._decode, logits, slice(None))
        if self.traces is not None:
            assert answers is not None
            for item, answer in zip(self.item, answers, strict=True):
                self.traces[item].append(answer)
        if self.on_step is not None:
            for slot, (item, view) in enumerate(zip(self.item.tolist(), self.view.tolist(), strict=True)):
                self.on_step(item, view, int(self.steps[slot]), self._own_frame(slot, logits[slot]))
        if self.halt == "rules":
            assert answers is not None
            reason[self.task.verify(self.givens[self.item], answers)] = _RULES
        elif self.halt == "head":
            reason[wants_to_halt(q)] = _HEAD
        halted = np.flatnonzero((reason != _LIMIT) | (self.steps >= self.max_steps))
        if len(halted):
            found = self._timed("decode", self._decode, logits, halted) if answers is None else answers[halted]
            unsolved = self._record(halted, found, reason[halted], q[halted, 0])
            self._believe(unsolved, logits)

    def _decode(self, logits: Logits, slots: NDArray[np.int64] | slice) -> Tokens:
        """Answers of ``slots`` [K, S] in the puzzles' own frame; givens are not put back: the model must keep them."""
        answers = logits[slots].argmax(axis=-1).astype(np.uint8)
        if self.view[slots].any():
            answers = Views(self.back.cells[slots], self.back.labels[slots]).apply(answers)
        return answers

    def _own_frame(self, slot: int, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [S, V] of the slot's view turned back: cells to their places, labels to their tokens."""
        own = np.empty_like(logits)
        own[:, self.back.labels[slot]] = logits[self.back.cells[slot]]
        return own

    def _record(
        self, slots: NDArray[np.int64], answers: Tokens, reason: NDArray[np.int8], q_halt: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Book the halted ``slots`` [K] with their answers [K, S]; queue, and return, those that get another view."""
        item, view = self.item[slots], self.view[slots]
        solved = self.task.verify(self.givens[item], answers)  # whatever halted it: the rules have the last word
        self.latency_s[item] += time.perf_counter() - self.started[slots]
        finished = solved | (view + 1 >= self.retries.views)
        if self.retries.budget_s is not None:
            finished |= self.latency_s[item] >= self.retries.budget_s
        kept = solved | (view == 0)
        self.answers[item[kept]], self.q_halt[item[kept]] = answers[kept], q_halt[kept]
        self.verified[item] = solved
        self.steps_by_view[item, view] = self.steps[slots]
        self.views[item] = view + 1
        self.reasons[item] = reason
        self.vacant[slots] = True
        self.again.extend(zip(item[~finished].tolist(), (view[~finished] + 1).tolist(), strict=True))
        if finished.any():
            self.done += int(finished.sum())
            if self.on_progress is not None:
                self.on_progress(self.done, int(self.verified.sum()))
        for done in item[finished].tolist():
            self.beliefs.pop(done, None)
        return slots[~finished]

    def _believe(self, slots: NDArray[np.int64], logits: Logits) -> None:
        """Keep what the model believed at the end of the first view of the unsolved ``slots``."""
        if self.retries.guesses:
            for slot in slots[self.view[slots] == 0].tolist():
                self.beliefs[int(self.item[slot])] = self._own_frame(slot, logits[slot])
