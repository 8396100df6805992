"""Step loop of all solving: slots, halting, refill, and further views of unsolved puzzles. Numpy only.

Axes: N puzzles, B slots, S cells, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.session import FRESH, Carry, Logits, Session, wants_to_halt
from hrm_edge.solution import STAGES, HaltedBy, Solutions, Stage
from hrm_edge.tasks.base import Task, Tokens, Views

Halt = Literal["rules", "head", "fixed"]
"""Condition that stops a slot: its answer obeys the rules; the model's halting head; max_steps only (as published)."""

GUESSES = 2
"""Cells guessed in each further view for a model that is equivariant under the board's symmetries (mixing=groups), for
which a symmetry alone would give the same answer again (docs/explain/lattice.md).
"""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Callback that gets (puzzles done, puzzles verified) when one of them has changed."""
Watch = Callable[[int, int, int, NDArray[np.float32]], None]
"""Callback after every step of every slot; gets (puzzle, view, step of that view, logits [S, V] in the puzzle's own
frame). An exception raised in it ends the loop.
"""

_REASONS: tuple[HaltedBy, ...] = ("limit", "head", "rules")
_LIMIT, _HEAD, _RULES = range(3)


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """How hard puzzles are tried."""

    halt: Halt = "rules"
    max_steps: int | None = None
    """ACT steps of one view; None: the model's own."""
    views: int = 1
    """Symmetries tried per puzzle at most; 1 is the puzzle as given."""
    guesses: int | None = None
    """Cells added to the givens of each further view, drawn from the model's logits at the end of the first view; the
    answer is checked against the puzzle without them. None: :data:`GUESSES` for mixing=groups, else 0.
    """
    budget_s: float | None = None
    """Seconds in slots after which no further view of a puzzle is tried."""
    parallel_views: int = 1
    """Further views of a puzzle that share the batch; the first one that solves it ends the others. Above 1, that view
    depends on the slots; which puzzles are solved within ``views`` does not.
    """
    slots: int = 64
    """Puzzles in the batch at most."""
    seed: int = 0
    """Chooses the symmetries."""

    def steps_of(self, session: Session) -> int:
        """Return the ACT steps of one view of the session's model."""
        return session.spec.max_steps if self.max_steps is None else self.max_steps

    def guesses_of(self, session: Session) -> int:
        """Return the number of cells guessed in each further view of the session's model."""
        if self.guesses is not None:
            return self.guesses
        return GUESSES if session.spec.mixing == "groups" else 0


def solve(
    session: Session,
    task: Task,
    givens: Tokens,
    options: SolveOptions = SolveOptions(),
    *,
    puzzle_ids: NDArray[np.int32] | None = None,
    on_progress: Progress | None = None,
    on_step: Watch | None = None,
    trace: bool = False,
    **changes: Any,
) -> Solutions:
    """Answer ``givens`` uint8 [N, S] with at most ``options.slots`` puzzles in the batch at a time.

    A slot that halts takes the next puzzle from the queue at once; when the queue is empty the batch shrinks, so the
    cost follows the remaining work. A puzzle that is not verified when its slot halts is queued again under a random
    symmetry, and its answer is mapped back before it is checked, until ``views`` views were tried or it has been in
    slots for ``budget_s`` seconds. The symmetry depends only on ``seed``, the puzzle's index and the number of the
    view: slots do not change results.

    ``changes``: single options, as ``views=4``. ``puzzle_ids`` int32 [N]: rows of the model's puzzle table (default: 0,
    the blank one). ``on_step``, ``trace``: see :data:`Watch`, :class:`Solution`. Raises ``UserError`` if the model is
    not for this task or has no such puzzle ids.
    """
    options = replace(options, **changes)
    givens = np.asarray(givens, dtype=np.uint8)
    ids = np.zeros(len(givens), np.int32) if puzzle_ids is None else np.asarray(puzzle_ids, dtype=np.int32)
    steps, slots, parallel = options.steps_of(session), options.slots, options.parallel_views
    if min(steps, options.views, slots, parallel) < 1:
        raise ValueError(
            f"max_steps={steps}, views={options.views}, slots={slots} and parallel_views={parallel} must be at least 1"
        )
    if trace and parallel > 1:
        raise ValueError("a trace is of one view after another: trace needs parallel_views=1")
    check_fits(session, task)
    _check_input(session, task, givens, ids)
    loop = _Loop(session, task, givens, ids, options, on_progress, on_step, trace)
    return loop.run(min(slots, session.max_batch, len(givens) * parallel))


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
    """State of one ``solve`` call: the queue, the slots, the results so far."""

    def __init__(
        self,
        session: Session,
        task: Task,
        givens: Tokens,
        ids: NDArray[np.int32],
        options: SolveOptions,
        on_progress: Progress | None,
        on_step: Watch | None,
        trace: bool,
    ) -> None:
        self.session, self.task, self.givens, self.ids = session, task, givens, ids
        self.options, self.halt = options, options.halt
        self.max_steps, self.guesses = options.steps_of(session), options.guesses_of(session)
        self.on_progress, self.on_step = on_progress, on_step
        count = len(givens)
        # The queue: puzzles not begun yet, in order, then further views in the order of their requests.
        self.begun = 0
        self.again: deque[tuple[int, int]] = deque()  # (puzzle, view)
        self.next_view = np.ones(count, np.int64)  # the next one to queue
        self.open = np.ones(count, np.int64)  # views that wait or hold a slot
        self.over = np.zeros(count, np.bool_)  # solved, or given up
        self.held = np.zeros(count, np.int64)  # slots that the puzzle holds now
        self.since = np.zeros(count, np.float64)  # when it began to hold one
        self.beliefs: dict[int, NDArray[np.float32]] = {}  # puzzle → logits [S, V] that guesses are drawn from
        # The results.
        self.answers = np.zeros_like(givens)
        self.verified = np.zeros(count, np.bool_)
        self.steps_by_view = np.zeros((count, options.views), np.int32)
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
        """Run steps until the queue is empty and all slots have halted."""
        self._empty_slots(slots)
        carry = self._timed("encode", self._refill, None)
        while len(self.item):
            carry, logits, q = self._timed("step", self.session.step, self.tokens, self.ids[self.item], carry)
            self.steps += 1
            self._timed("halt check", self._judge, logits, q)
            if self.vacant.any():
                carry = self._timed("encode", self._refill, carry)
        # Decoding is a part of the halt check but is reported separately.
        self.stage_s["halt check"] -= self.stage_s["decode"]
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
        self.capacity = slots
        self.vacant = np.zeros(0, np.bool_)
        self.item, self.view, self.steps = (np.zeros(0, np.int64) for _ in range(3))
        self.tokens = np.zeros((0, self.givens.shape[1]), np.uint8)  # the puzzles under their views
        self.back = self.task.identity_views(0)  # from a slot's view to the puzzle's own frame

    def _next(self) -> tuple[int, int] | None:
        if self.begun < len(self.givens):
            self.begun += 1
            return self.begun - 1, 0
        while self.again:
            item, view = self.again.popleft()
            if not self.over[item]:
                return item, view
        return None

    def _refill(self, carry: Carry | None) -> Carry:
        """Fill vacant slots, and new ones up to the capacity, from the queue; remove the slots that stay vacant."""
        free = np.flatnonzero(self.vacant)
        waiting = iter(self._next, None)
        jobs = list(itertools.islice(waiting, self.capacity - len(self.item) + len(free)))
        if len(jobs) > len(free):
            self._add_vacant(len(jobs) - len(free))
            free = np.flatnonzero(self.vacant)
        rows = np.arange(len(self.item))
        for slot, job in zip(free.tolist(), jobs, strict=False):
            self._admit(slot, *job)
            rows[slot] = FRESH
        if self.vacant.any():
            keep = ~self.vacant
            rows, self.vacant = rows[keep], self.vacant[keep]
            self.item, self.view, self.steps = self.item[keep], self.view[keep], self.steps[keep]
            self.tokens = self.tokens[keep]
            self.back = Views(self.back.cells[keep], self.back.labels[keep])
        if not len(rows):
            return carry
        return self.session.initial_carry(len(rows)) if carry is None else self.session.gather(carry, rows)

    def _add_vacant(self, count: int) -> None:
        """Add ``count`` vacant slots after the others."""
        self.vacant = np.append(self.vacant, np.ones(count, np.bool_))
        self.item, self.view, self.steps = (
            np.append(one, np.zeros(count, np.int64)) for one in (self.item, self.view, self.steps)
        )
        self.tokens = np.concatenate([self.tokens, np.zeros((count, self.tokens.shape[1]), np.uint8)])
        more = self.task.identity_views(count)
        self.back = Views(
            np.concatenate([self.back.cells, more.cells]), np.concatenate([self.back.labels, more.labels])
        )

    def _admit(self, slot: int, item: int, view: int) -> None:
        if not self.held[item]:
            self.since[item] = time.perf_counter()
        self.held[item] += 1
        puzzle = self.givens[item : item + 1]
        if view:
            rng = np.random.default_rng((self.options.seed, item, view))
            there = self.task.random_views(1, rng)
            if item in self.beliefs:
                puzzle = self.task.with_guesses(puzzle[0], self.beliefs[item], self.guesses, rng)[None]
            puzzle, back = there.apply(puzzle), there.inverse()
        else:
            back = self.task.identity_views(1)
        self.tokens[slot] = puzzle[0]
        self.back.cells[slot], self.back.labels[slot] = back.cells[0], back.labels[0]
        self.item[slot], self.view[slot], self.steps[slot], self.vacant[slot] = item, view, 0, False

    # -- halting ------------------------------------------------------------------------------------------------

    def _judge(self, logits: Logits, q: NDArray[np.float32]) -> None:
        """Decide which slots halt and record their answers, decoding only the answers that are needed."""
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
        """Return the answers of ``slots`` uint8 [K, S] in the puzzles' own frame.

        Givens are not restored: the model must keep them.
        """
        answers = logits[slots].argmax(axis=-1).astype(np.uint8)
        if self.view[slots].any():
            answers = Views(self.back.cells[slots], self.back.labels[slots]).apply(answers)
        return answers

    def _own_frame(self, slot: int, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [S, V] of the slot's view in the puzzle's own frame, with cells and labels mapped back."""
        own = np.empty_like(logits)
        own[:, self.back.labels[slot]] = logits[self.back.cells[slot]]
        return own

    def _record(
        self, slots: NDArray[np.int64], answers: Tokens, reason: NDArray[np.int8], q_halt: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Record the halted ``slots`` [K] with their answers [K, S], queue further views of the unsolved puzzles.

        Returns the slots whose puzzle is not finished.
        """
        # The rules decide whether it is solved, whatever the reason for halting.
        solved = self.task.verify(self.givens[self.item[slots]], answers)
        for slot, answer, right, why, q in zip(slots.tolist(), answers, solved.tolist(), reason, q_halt, strict=True):
            item, view = int(self.item[slot]), int(self.view[slot])
            # Another view of the puzzle has ended in the same step.
            if self.over[item]:
                continue
            self._release(slot)
            if right or view == 0:
                self.answers[item], self.q_halt[item] = answer, q
            self.verified[item], self.reasons[item] = right, why
            self.views[item] = view + 1 if right else max(int(self.views[item]), view + 1)
            if right or not self._queue_views(item, view):
                self._end(item)
        return slots[~self.over[self.item[slots]]]

    def _release(self, slot: int) -> None:
        """Vacate a slot and record its steps and time."""
        item = self.item[slot]
        self.steps_by_view[item, self.view[slot]] = self.steps[slot]
        self.vacant[slot] = True
        self.held[item] -= 1
        if not self.held[item]:
            self.latency_s[item] += time.perf_counter() - self.since[item]

    def _queue_views(self, item: int, ended: int) -> bool:
        """Queue the views that follow an unsolved one: ``parallel`` views after the first one, one after any other.

        Returns False if no view of the puzzle is left to wait for.
        """
        spent = self.latency_s[item] + (time.perf_counter() - self.since[item] if self.held[item] else 0)
        if self.options.budget_s is not None and spent >= self.options.budget_s:
            return False
        first = int(self.next_view[item])
        behind = min(first + (1 if ended else self.options.parallel_views), self.options.views)
        self.again.extend((item, view) for view in range(first, behind))
        self.next_view[item] = behind
        self.open[item] += behind - first - 1
        return bool(self.open[item])

    def _end(self, item: int) -> None:
        """Finish a puzzle and release the slots of its other views."""
        for slot in np.flatnonzero((self.item == item) & ~self.vacant).tolist():
            self._release(slot)
        self.over[item] = True
        self.beliefs.pop(item, None)
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(self.done, int(self.verified.sum()))

    def _believe(self, slots: NDArray[np.int64], logits: Logits) -> None:
        """Keep the logits at the end of the first view of the unsolved ``slots``, from which guesses are drawn."""
        if self.guesses:
            for slot in slots[self.view[slots] == 0].tolist():
                self.beliefs[int(self.item[slot])] = self._own_frame(slot, logits[slot])
