"""What several tests read and is costly to make: made once a run, by the first of pytest-xdist's workers to need it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def all_workers(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its workers share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name`` after ``make(folder)`` has filled it, in this worker or in another. Read it only."""
    folder = all_workers(factory) / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            make(folder)
            (folder / ".made").touch()
    return folder


@contextlib.contextmanager
def numba_compiles_once(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let workers that need the same machine code wait for the first, which compiles it for all: ten seconds each."""
    try:
        from numba.core.dispatcher import Dispatcher
    except ModuleNotFoundError:  # the GPU day's machine has none
        yield
        return

    compile_or_read, path, is_within = Dispatcher.compile, all_workers(factory) / "numba.lock", False

    def in_turn(self: Dispatcher, sig: object) -> object:
        nonlocal is_within
        if is_within:  # a function that this one calls
            return compile_or_read(self, sig)
        with open(path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            is_within = True
            try:
                return compile_or_read(self, sig)
            finally:
                is_within = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "compile", in_turn)
        yield


def small_kernels(factory: pytest.TempPathFactory) -> Path:
    """Fused kernels as ``hrm_edge.ops.aot`` writes them: for sm_87 and the base's PTX, float16, Dh 32."""
    from hrm_edge.ops.aot import main

    command = ["--sm", "87", "--dtype", "float16", "--head-dim", "32", "--out"]

    def compile_them(folder: Path) -> None:
        assert main([*command, str(folder / "kernels")]) == 0

    return made_once(factory, "kernels", compile_them) / "kernels"
