"""The step of a verified artifact on one of the CPU's backends, by the table of backends."""

from __future__ import annotations

import importlib
from pathlib import Path

from hrm_edge.backends import BACKENDS, CpuBackend
from hrm_edge.manifest import Manifest
from hrm_edge.runtime.host import HostSession


def open_step(folder: Path, manifest: Manifest, threads: int | None, backend: CpuBackend) -> HostSession:
    """Open the step of a verified artifact on one of the CPU's backends."""
    module, _, kind = BACKENDS[backend].session.partition(":")
    session = getattr(importlib.import_module(module), kind)(
        folder, manifest, threads=threads, **BACKENDS[backend].settings
    )
    assert isinstance(session, HostSession)
    return session
