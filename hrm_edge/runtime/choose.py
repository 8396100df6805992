"""The fastest way to run an artifact on this CPU, found by running it: backends and thread counts, taking turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hrm_edge.backends import BACKENDS, CpuBackend
from hrm_edge.errors import UserError
from hrm_edge.manifest import Manifest
from hrm_edge.runtime.host import HostCarry, HostSession, usable_cores
from hrm_edge.runtime.native.session import available
from hrm_edge.runtime.step import open_step

_ROUNDS = 5
_STEPS = 5  # of one candidate at a time; the first of them finds cold caches and is not counted
_SLOW_S = 0.2  # a turn ends after so long, with one counted step at least
_PAUSE_S = 0.02  # before each turn: the threads of the one before go on spinning for a while and would be in the way


@dataclass(frozen=True)
class Candidate:
    """One way to run the step, and what a step took."""

    backend: CpuBackend
    threads: int
    session: HostSession
    step_ms: float
    """Median of the measured steps at the batch asked for."""

    def __str__(self) -> str:
        return f"{self.backend} with {self.threads} thread{'s'[: self.threads > 1]}"


def candidates(folder: Path, manifest: Manifest, threads: int | None = None, *, batch: int = 1) -> list[Candidate]:
    """Measure every installed backend that keeps the artifact's precision, on one thread and on all; fastest first.

    A backend that refuses the artifact is left out, as long as ONNX Runtime takes it. ``threads``: only that many.
    They take turns, so that a change of the machine's clock meets all of them.
    """
    counts = [threads] if threads else sorted({1, usable_cores()})
    ways = [(backend, count) for backend in get_args(CpuBackend) if _is_tried(backend, manifest) for count in counts]
    sessions: dict[tuple[CpuBackend, int], HostSession] = {}
    for way in ways:
        try:
            sessions[way] = open_step(folder, manifest, way[1], way[0])
            sessions[way].step(*_first(sessions[way], batch))  # some compile, and refuse, when they are first asked
        except UserError:
            if way[0] == "onnxruntime":
                raise
            sessions.pop(way, None)
    taken: dict[tuple[CpuBackend, int], list[float]] = {way: [] for way in sessions}
    for _ in range(_ROUNDS):
        for way, session in sessions.items():
            taken[way] += step_seconds(session, batch)
    measured = [Candidate(*way, sessions[way], 1e3 * statistics.median(taken[way])) for way in sessions]
    return sorted(measured, key=lambda candidate: candidate.step_ms)


def _is_tried(backend: CpuBackend, manifest: Manifest) -> bool:
    about = BACKENDS[backend]
    is_installed = all(importlib.util.find_spec(module) is not None for module in about.modules)
    return about.keeps_precision and (available(manifest) if about.compiles else is_installed)


def fastest(folder: Path, manifest: Manifest, threads: int | None = None, *, slots: int = 1) -> HostSession:
    """Return the session of the first of :func:`candidates` for ``slots`` puzzles; it says how it was chosen."""
    best, *others = candidates(folder, manifest, threads, batch=min(slots, manifest.max_batch))
    rivals = ", ".join(f"{other} {other.step_ms:.2f}" for other in others)
    at_once = f" of {slots} puzzles" if slots > 1 else ""
    best.session.chosen = f"{best}, {best.step_ms:.2f} ms a step{at_once} ({rivals})"
    return best.session


def _first(session: HostSession, batch: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], HostCarry]:
    """Return inputs of a first step; its time does not depend on the values."""
    tokens = np.ones((batch, session.spec.seq_len), np.uint8)
    return tokens, np.zeros(batch, np.int32), session.initial_carry(batch)


def step_seconds(session: HostSession, batch: int) -> list[float]:
    """Return times of a few steps on one carry, the first one left out."""
    tokens, ids, carry = _first(session, batch)
    taken = []
    time.sleep(_PAUSE_S)
    for _ in range(_STEPS):
        started = time.perf_counter()
        carry, _, _ = session.step(tokens, ids, carry)
        taken.append(time.perf_counter() - started)
        if len(taken) > 1 and sum(taken) > _SLOW_S:
            break
    return taken[1:]
