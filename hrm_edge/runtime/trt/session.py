"""One ACT step as a TensorRT engine, its carry on the GPU.

The carry never leaves the device: two sets of buffers take turns as a step's input and output. A step is one launch
of a CUDA graph, and what comes back for it is q; logits follow only for the slots that the loop asks for.

Axes: B slots, S cells, P puzzle tokens, T = P + S, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.manifest import Manifest
from hrm_edge.runtime.state import State
from hrm_edge.runtime.trt.cuda import Cuda, Launch, Memory
from hrm_edge.runtime.trt.identity import Identity, Opened
from hrm_edge.session import FRESH, AnyStepResult
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, step_io

_CARRY = {"z_h": "z_h_next", "z_l": "z_l_next"}
_START_ROWS = 64  # copies of the initial state that are kept on the device: a refill takes few copies then


def _padded(batch: int, most: int) -> int:
    """Return the batch that is run for ``batch`` slots: 1, 2, 3, 4, 6, 8, 12, 16, … up to ``most``.

    Few sizes, because each has a graph of its own; at most a third of the rows are idle, and their results are unread.
    """
    size = 1
    while size < batch:
        size = size * 4 // 3 if size % 3 == 0 else size * 3 // 2 if size > 1 else 2
    return min(size, most)


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Return (first position, first row, length) of stretches that one copy serves: consecutive rows, or FRESH."""
    begin = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and (rows[end] == rows[end - 1] + 1 if rows[begin] != FRESH else rows[end] == FRESH):
            continue
        yield begin, int(rows[begin]), end - begin
        begin = end


@dataclass(eq=False)
class _Slots:
    """Buffers of up to ``capacity`` slots, and the graphs that are recorded on their addresses."""

    capacity: int
    memory: dict[str, Memory]
    carry: tuple[dict[str, Memory], dict[str, Memory]]
    host: dict[str, NDArray[Any]]  # page-locked [capacity, ...]: tokens, puzzle, logits, q
    front: int = 0
    serial: int = 0
    """Counts what changed the carry or the outputs; what is older than that is stale."""
    launches: dict[tuple[int, int], Launch] = field(default_factory=dict)


class _TrtCarry:
    """z_h and z_l of ``batch`` slots, on the device; good for one use, after which its buffers serve the next.

    Iterating over it brings copies of both to the host, for comparisons; that is no use of it.
    """

    def __init__(self, slots: _Slots, batch: int, session: TrtSession) -> None:
        slots.serial += 1
        self.slots, self.batch, self.serial, self._session = slots, batch, slots.serial, session

    def __del__(self) -> None:
        if self.serial == self.slots.serial:  # nobody will use it: the end of a solve
            self._session.idle.append(self.slots)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if self.serial != self.slots.serial:
            raise ValueError("this carry was used already")
        return iter(self._session.levels(self.slots, self.batch))

    def use(self) -> _Slots:
        if self.serial != self.slots.serial:
            raise ValueError("this carry was used already")
        self.slots.serial += 1
        return self.slots


class _DeviceLogits:
    """float32 [B, S, V] on the device; indexing copies rows to the host. Valid until the next step."""

    def __init__(self, cuda: Cuda, slots: _Slots, batch: int) -> None:
        self._cuda, self._slots, self._batch, self._serial = cuda, slots, batch, slots.serial

    def __len__(self) -> int:
        return self._batch

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        """Return the logits [K, S, V] of some slots; ``rows``: a slice, indices or a mask."""
        if self._serial != self._slots.serial:
            raise ValueError("these logits are of a step before the last")
        wanted = np.arange(self._batch)[rows]
        host, source = self._slots.host["logits"], self._slots.memory["logits"]
        row_bytes = host[0].nbytes
        for position, row, length in _runs(wanted):
            self._cuda.download(host[position : position + length], source, row * row_bytes)
        self._cuda.synchronize()
        logits: NDArray[np.float32] = host[: len(wanted)].copy()
        return logits


class TrtSession:
    """The step of an engine; see :func:`hrm_edge.runtime.trt.open.open_engine`."""

    keep: Any = None
    """Objects that must live as long as the engine."""
    opened: Opened | None = None
    """Engine that it was opened from."""

    def __init__(
        self, engine: Any, manifest: Manifest, state: State, cuda: Cuda, identity: Identity, names: dict[str, str]
    ) -> None:
        """Map ``names`` of ``step_io`` to the engine's, where they differ."""
        self._names = names
        self.spec = manifest.spec
        self.backend = f"{identity.runtime}-cuda"
        self.max_batch = identity.options.batch.max
        self.cuda = cuda
        self._state = state
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise UserError("the engine's working memory does not fit on the GPU", "close other programs on it")
        carry = state.start[0].dtype
        table = step_io(self.spec)
        known = [name for name in (*STEP_INPUTS, *STEP_OUTPUTS) if name in table]
        self._shapes = {name: tuple(int(size) for size in table[name][1][1:]) for name in known}
        self._dtypes = {name: np.dtype(carry if kind == "carry" else kind) for name, (kind, _) in table.items()}
        self._row_bytes = {n: math.prod(s) * self._dtypes[n].itemsize for n, s in self._shapes.items()}
        self._start = {name: self._start_rows(name, state.start[i]) for i, name in enumerate(_CARRY)}
        self.idle: list[_Slots] = []

    # -- memory -------------------------------------------------------------------------------------------------

    def _start_rows(self, name: str, start: NDArray[Any]) -> Memory:
        rows = np.ascontiguousarray(np.broadcast_to(start, (min(_START_ROWS, self.max_batch), *self._shapes[name])))
        memory = self.cuda.allocate(rows.nbytes)
        self.cuda.upload(memory, rows)
        self.cuda.synchronize()  # before `rows`, which is not page-locked, goes
        return memory

    def _slots(self, batch: int) -> _Slots:
        """Return buffers for ``batch`` slots: idle ones that are large enough, or new ones."""
        capacity = _padded(batch, self.max_batch)
        for slots in self.idle:
            if slots.capacity >= capacity:
                self.idle.remove(slots)
                return slots
        self.idle.clear()  # all too small: their memory is better used now

        def allocate(name: str) -> Memory:
            return self.cuda.allocate(capacity * self._row_bytes[name])

        own = [name for name in self._shapes if name not in _CARRY and name not in _CARRY.values()]
        host = {
            name: self.cuda.pinned(capacity * self._row_bytes[name])
            .view(self._dtypes[name])
            .reshape(capacity, *self._shapes[name])
            for name in own
        }
        first, second = ({name: allocate(name) for name in _CARRY} for _ in range(2))
        return _Slots(capacity, {name: allocate(name) for name in own}, (first, second), host)

    def levels(self, slots: _Slots, batch: int) -> list[NDArray[Any]]:
        """Return z_h and z_l [batch, T, D], copied to the host."""
        states = [np.zeros((batch, *self._shapes[name]), self._dtypes[name]) for name in _CARRY]
        for host, name in zip(states, _CARRY, strict=True):
            self.cuda.download(host, slots.carry[slots.front][name])
        self.cuda.synchronize()
        return states

    # -- the protocol -------------------------------------------------------------------------------------------

    def initial_carry(self, batch: int) -> _TrtCarry:
        if not 1 <= batch <= self.max_batch:
            raise ValueError(f"batch {batch} is not in 1..{self.max_batch}, the range the engine was built for")
        slots = self._slots(batch)
        self._fill(slots, slots.carry[slots.front], np.full(batch, FRESH), slots)
        return _TrtCarry(slots, batch, self)

    def gather(self, carry: _TrtCarry, rows: NDArray[np.int64]) -> _TrtCarry:
        source = carry.use()
        if len(rows) > source.capacity:
            target = self._slots(len(rows))
            self._fill(target, target.carry[target.front], rows, source)
            self.idle.append(source)
            return _TrtCarry(target, len(rows), self)
        moved = (rows != FRESH) & (rows != np.arange(len(rows)))
        if moved.any():
            self._fill(source, source.carry[1 - source.front], rows, source)
            source.front = 1 - source.front
        else:  # the usual refill: what stays is where it shall be
            self._fill(source, source.carry[source.front], rows, source)
        return _TrtCarry(source, len(rows), self)

    def _fill(self, target: _Slots, to: dict[str, Memory], rows: NDArray[np.int64], source: _Slots) -> None:
        """Copy rows of ``source``'s carry, or the initial state, into ``to``, on the device."""
        for name in _CARRY:
            size, current = self._row_bytes[name], source.carry[source.front][name]
            for position, row, length in _runs(rows):
                if row == FRESH:
                    for begin in range(0, length, _START_ROWS):
                        count = min(_START_ROWS, length - begin)
                        self.cuda.copy(to[name], (position + begin) * size, self._start[name], 0, count * size)
                elif to[name] is not current or row != position:
                    self.cuda.copy(to[name], position * size, current, row * size, length * size)

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: _TrtCarry) -> AnyStepResult:
        if len(tokens) != carry.batch:
            raise ValueError(f"{len(tokens)} puzzles for a carry of {carry.batch} slots")
        slots = carry.use()
        self._give(slots, "tokens", tokens)
        if self._state.puzzle_table is not None:
            self._give(slots, "puzzle", self._state.puzzle_vectors(puzzle_ids))
        self._launch(slots, _padded(carry.batch, slots.capacity))
        slots.front = 1 - slots.front
        self.cuda.synchronize()
        following = _TrtCarry(slots, carry.batch, self)
        return following, _DeviceLogits(self.cuda, slots, carry.batch), slots.host["q"][: carry.batch].copy()

    def _give(self, slots: _Slots, name: str, values: NDArray[Any]) -> None:
        """Upload an input where it changed; most steps think on about the same puzzles."""
        held = slots.host[name][: len(values)]
        if not np.array_equal(held, values):
            held[...] = values
            self.cuda.upload(slots.memory[name], held)

    def _launch(self, slots: _Slots, batch: int) -> None:
        key = (slots.front, batch)
        known = slots.launches.get(key)
        if known is not None:
            known()
            return
        self._bind(slots, batch)
        self._enqueue(slots, batch)  # TensorRT settles its shapes in a first call, which must not be recorded
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is None or capturable(self.cuda.handle):
            graph = self.cuda.record(lambda: self._enqueue(slots, batch))
            if graph is not None:
                slots.launches[key] = graph

    def _bind(self, slots: _Slots, batch: int) -> None:
        front, back = slots.carry[slots.front], slots.carry[1 - slots.front]
        places = {**slots.memory, **front, **{_CARRY[name]: memory for name, memory in back.items()}}
        for name, memory in places.items():
            self._context.set_tensor_address(self._names.get(name, name), memory.address)
            if name in STEP_INPUTS and not self._context.set_input_shape(name, (batch, *self._shapes[name])):
                raise UserError(f"the engine refuses a batch of {batch}", "build it with a larger --max-batch")

    def _enqueue(self, slots: _Slots, batch: int) -> None:
        if not self._context.execute_async_v3(self.cuda.handle):
            raise UserError("TensorRT could not queue the step", "its log above says why")
        self.cuda.download(slots.host["q"][:batch], slots.memory["q"])
