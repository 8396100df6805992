"""Interface between the solve loop and the runtime of a model's step.

Axes: B slots in the batch, S cells, V vocabulary, Q outputs of the halting head (1: halt; 2: halt, continue).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hrm_edge.costs import reference_batch
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks.puzzles import Puzzles

Carry: TypeAlias = Any  # opaque to the loop: arrays on the host, buffers on a device, torch tensors
FRESH = -1  # in ``Session.gather``: a slot that starts from the initial state

StepResult: TypeAlias = tuple[Carry, NDArray[np.float32], NDArray[np.float32]]  # of a session on the host


class Logits(Protocol):
    """Logits float32 [B, S, V], as an array or on a device; an index of slots copies theirs to the host [K, S, V].

    They are valid until the session's next step.
    """

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]: ...


AnyStepResult: TypeAlias = tuple[Carry, Logits, NDArray[np.float32]]


class Session(Protocol):
    """Loaded model that advances a batch of carries by one ACT step."""

    @property
    def spec(self) -> ModelSpec:
        """Specification of the model."""

    @property
    def backend(self) -> str:
        """Short name for reports: ``torch``, ``onnxruntime-cpu`` …"""

    @property
    def max_batch(self) -> int:
        """Largest B that ``step`` accepts."""

    def initial_carry(self, batch: int) -> Carry:
        """Return a carry of ``batch`` slots in the initial state."""

    def gather(self, carry: Carry, rows: NDArray[np.int64]) -> Carry:
        """Return a carry whose slot i is row ``rows[i]`` of ``carry``, or the initial state where that is ``FRESH``.

        It refills halted slots and shrinks or grows the batch. The given carry must not be used afterwards.
        """

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: Carry) -> AnyStepResult:
        """Run one ACT step: tokens [B, S], puzzle_ids [B] → (carry, logits float32 [B, S, V], q float32 [B, Q]).

        The given carry must not be used afterwards. Read the logits of few slots only: each one is copied from the
        device.
        """


@dataclass(frozen=True)
class Rolled:
    """What one step of a :func:`rollout` gave."""

    puzzles: Puzzles
    """The batch, B of the puzzles."""
    step: int
    """From 1."""
    carry: Carry
    logits: Logits
    q: NDArray[np.float32]


def rollout(session: Session, puzzles: Puzzles, steps: int, batch: int | None = None) -> Iterator[Rolled]:
    """Run every puzzle for all ``steps`` steps, whether it would halt or not, and yield after every step.

    The puzzles come in batches of ``batch`` (None: as many as torch compares at a time), one after another: all steps
    of the first batch, then those of the next.
    """
    batch = min(batch or reference_batch(session.spec), session.max_batch)
    for begin in range(0, len(puzzles), batch):
        part = puzzles[begin : begin + batch]
        carry = session.initial_carry(len(part))
        for step in range(1, steps + 1):
            carry, logits, q = session.step(part.givens, part.ids, carry)
            yield Rolled(part, step, carry, logits, q)


def wants_to_halt(q: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the head's decision per slot, bool [B]: halt > continue or, for one output, halt > 0.

    Sources: HRM section 2; TRM.
    """
    return q[:, 0] > q[:, 1] if q.shape[1] == 2 else q[:, 0] > 0.0
