"""Base of every backend whose carry is numpy arrays: the initial state, slots, puzzle vectors, one step.

Axes: B slots, S cells, P puzzle tokens, T = P + S, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, Manifest
from hrm_edge.runtime.arithmetic import Arithmetic
from hrm_edge.runtime.state import AGAIN, carry_dtype, read_state
from hrm_edge.session import FRESH, StepResult
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, ModelSpec, step_io

HostCarry = tuple[NDArray[Any], NDArray[Any]]  # z_h, z_l [B, T, D] float32 or float16, on the host
Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]  # in the order of STEP_OUTPUTS


def usable_cores() -> int:
    """Return cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class HostSession:
    """A session whose carry is two numpy arrays; a backend adds :meth:`run`."""

    backend: str
    threads: int | None = None
    """Threads of one step; None: the backend's default."""
    chosen: str | None = None
    """The chosen way and the times of the others, where it was chosen by measurement."""
    arithmetic: Arithmetic | None = None
    """Arithmetic of an INT8 artifact's products; None for float artifacts."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.spec = manifest.spec
        self.max_batch = manifest.max_batch
        self.dtype = carry_dtype(manifest)
        self._state = read_state(folder / STATE_FILE, self.spec, self.dtype)

    def run(self, feeds: dict[str, NDArray[Any]]) -> Outputs:
        """Run the graph on its named inputs (``spec.step_io``); the outputs belong to the caller."""
        raise NotImplementedError

    def initial_carry(self, batch: int) -> HostCarry:
        """Start every position of both levels from its level's vector."""
        shape = (batch, self.spec.total_len, self.spec.hidden)
        z_h, z_l = (np.broadcast_to(start, shape).copy() for start in self._state.start)
        return z_h, z_l

    def gather(self, carry: HostCarry, rows: NDArray[np.int64]) -> HostCarry:
        fresh = rows == FRESH
        same = len(rows) == len(carry[0]) and bool((fresh | (rows == np.arange(len(rows)))).all())
        z_h, z_l = carry if same else (level[rows] for level in carry)  # row -1 is overwritten below
        z_h[fresh], z_l[fresh] = self._state.start
        return z_h, z_l

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: HostCarry) -> StepResult:
        if not 1 <= len(tokens) <= self.max_batch:
            raise ValueError(
                f"batch {len(tokens)} is not in 1..{self.max_batch}, the range the artifact was checked for"
            )
        feeds: dict[str, NDArray[Any]] = {"tokens": tokens.astype(np.int32), "z_h": carry[0], "z_l": carry[1]}
        if self._state.puzzle_table is not None:
            feeds["puzzle"] = self._state.puzzle_vectors(puzzle_ids)
        z_h, z_l, logits, q = self.run(feeds)
        return (z_h, z_l), logits, q


Port = tuple[str, str, list[Any]]
"""Name, element type in numpy's words, shape with a str or None where an axis is dynamic."""


def check_ports(inputs: list[Port], outputs: list[Port], spec: ModelSpec, dtype: np.dtype[Any], path: Path) -> None:
    """Compare names, types and shapes of a loaded graph with ``step_io``; the batch axis must be dynamic."""
    table = step_io(spec)
    for kind, ports, order in (("input", inputs, STEP_INPUTS), ("output", outputs, STEP_OUTPUTS)):
        wanted = [name for name in order if name in table]
        given = {name: (type_name, shape) for name, type_name, shape in ports}
        for name in sorted(set(wanted) ^ set(given)):
            what = "lacks the" if name in wanted else "has an unknown"
            raise UserError(f"{path} {what} {kind} '{name}'", AGAIN)
        for name in wanted:
            type_name, shape = table[name]
            type_name = dtype.name if type_name == "carry" else type_name
            has_type, has_shape = given[name]
            if has_type != type_name:
                raise UserError(f"{path}: {kind} '{name}' is {has_type}, the manifest's model has {type_name}", AGAIN)
            if isinstance(has_shape[0], int):
                raise UserError(f"{path}: {kind} '{name}' has a fixed batch of {has_shape[0]}", AGAIN)
            if tuple(has_shape[1:]) != shape[1:]:
                raise UserError(
                    f"{path}: {kind} '{name}' is [B, {', '.join(map(str, has_shape[1:]))}], "
                    f"the manifest's model has [B, {', '.join(map(str, shape[1:]))}]",
                    AGAIN,
                )
