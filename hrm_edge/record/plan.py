"""The rows of a record: every model on every backend that works here, in every power mode that may be set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrm_edge import zoo
from hrm_edge.backends import APART_ON_CPU, ON_GPU
from hrm_edge.device.clocks import power_modes
from hrm_edge.device.system import System
from hrm_edge.doctor import Diagnosis
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import check_input
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, read_manifest
from hrm_edge.record.schema import OWN_PUZZLES, Row, Settings
from hrm_edge.runtime.native.session import why_unsupported

ENGINES = tuple(about.title for about in ON_GPU)  # built before they are measured
BACKENDS = (*APART_ON_CPU, *ENGINES)
_QUICK_S, _FULL_S = 20.0, 60.0  # a row's length
_IDLE_S = 10.0
_ROW_OVERHEAD_S = 12.0  # start, warm-up and the first answer, as they were on the slowest machine that we tried
_ENGINE_S = 60.0


@dataclass(frozen=True)
class Wanted:
    """What to measure, and what the child processes are told."""

    rows: Sequence[Row]
    settings: Settings
    notes: Sequence[str]
    data: str | None = None
    """File of puzzles in place of the package's own."""

    def expected_s(self) -> float:
        """Return about how long all of it takes."""
        engines = {(row.model, row.backend) for row in self.rows if row.backend in ENGINES}
        each = self.settings.duration_s + self.settings.idle_s + _ROW_OVERHEAD_S
        return len(self.rows) * each + len(engines) * _ENGINE_S


def plan_record(
    models: Sequence[str],
    backends: Sequence[str],
    power_modes: Sequence[str] | None,
    *,
    quick: bool,
    duration_s: float | None,
    data: str | None,
    look: Callable[[], Diagnosis],
) -> tuple[Wanted, Diagnosis]:
    """Decide what a record of this machine holds, by what ``look`` finds here; see :func:`plan`.

    ``quick``: shorter rows in the present power mode, unless ``power_modes`` and ``duration_s`` say otherwise. Raises
    ``UserError`` for a name that there is not, ``GateError`` where the default pipeline does not work.
    """
    _check_choices(models, backends)
    if data is not None:
        check_input(data)
    system = System()
    modes, notes = modes_to_hold(system, power_modes, quick=quick)
    diagnosis = look()
    diagnosis.check(engines=False)
    rows, left_out = plan(diagnosis, models, backends, modes)
    settings = Settings(
        quick=quick,
        duration_s=duration_s or (_QUICK_S if quick else _FULL_S),
        idle_s=_IDLE_S,
        puzzles=Path(data).name if data else OWN_PUZZLES,
        lock_clocks=_may_lock_clocks(system),
    )
    return Wanted(rows, settings, [*notes, *left_out], data), diagnosis


def plan(
    diagnosis: Diagnosis, models: Sequence[str], backends: Sequence[str], modes: Sequence[str | None]
) -> tuple[list[Row], list[str]]:
    """Return the rows and what is left out, and why.

    ``models``: shipped names or artifact folders, empty for all that are at hand; ``backends``: names of
    :data:`BACKENDS`, empty for all. Raises ``UserError`` for a name that there is not, and where nothing is left.
    """
    _check_choices(models, backends)
    works = {backend.name.removesuffix(" (CPU)"): backend for backend in diagnosis.backends}
    notes = [f"{name}: {works[name].why}" for name in backends or BACKENDS if not works[name].works]
    wanted = [name for name in backends or BACKENDS if works[name].works]
    rows: list[Row] = []
    for model in models or zoo.names():
        manifest = read_manifest(_artifact(model))
        for backend in wanted:
            why = _why_not(manifest, backend, works[backend].precisions)
            if why is not None:
                notes.append(f"{Path(model).name} on {backend}: {why}")
                continue
            rows += [_row(model, manifest, backend, mode) for mode in modes]
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--models: two of them are called {name}", "give their folders different names")
    if not rows:
        raise UserError(f"nothing can be measured here: {'; '.join(notes)}", "hrm-edge doctor")
    return rows, notes


def _check_choices(models: Sequence[str], backends: Sequence[str]) -> None:
    """Raise ``UserError`` for a model or backend that there is not; quick, for before the doctor is asked."""
    for name in backends:
        if name not in BACKENDS:
            raise UserError(f"--backends: there is no backend '{name}'", nearest(name, BACKENDS))
    for model in models:
        _artifact(model)


def _artifact(model: str) -> Path:
    path = zoo.path_of(model)
    if not (path / MANIFEST).is_file():
        hint = "export it first: hrm-edge export" if path.exists() else nearest(model, zoo.names())
        raise UserError(f"--models: {model} is no shipped model and no artifact", hint)
    return path


def _why_not(manifest: Manifest, backend: str, precisions: Sequence[str]) -> str | None:
    """Say why a backend that works here does not take this model; None where it does."""
    if backend == "native":
        return why_unsupported(manifest)
    if backend == "torch-tensorrt" and manifest.precision != "fp32":
        return "it builds from float32 weights, which this artifact has no more"
    return None if manifest.precision in precisions else f"it does not run {manifest.precision} here"


def _row(model: str, manifest: Manifest, backend: str, mode: str | None) -> Row:
    parts = [Path(model).name, backend, *([mode] if mode else [])]
    name = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part) for part in parts)
    return Row(
        name=name,
        model=model,
        precision=manifest.precision,
        sha256=manifest.files[STEP_FILE].sha256,
        backend=backend,
        power_mode=mode,
    )


def modes_to_hold(system: System, wanted: Sequence[str] | None, *, quick: bool) -> tuple[list[str | None], list[str]]:
    """Return the power modes to measure in, ``[None]`` for the present one alone, and a note where others are left out.

    ``wanted``: names, or None for all that the board has (the present one with ``quick``). Raises ``UserError`` for a
    mode that this machine lacks.
    """
    known = list(power_modes(system).values())
    if wanted is not None:
        for name in wanted:
            if name not in known:
                hint = nearest(name, known) if known else "leave it out: power modes are a Jetson's"
                raise UserError(f"--power-modes: this machine has no mode '{name}'", hint)
        return list(wanted), []
    if quick or len(known) < 2:
        return [None], []
    if not _may_be_root(system):
        return [None], ["other power modes: setting one needs root; run 'sudo -v' before, or as root"]
    return list(known), []


def _may_be_root(system: System) -> bool:
    """Return whether commands of root can be run without a password being asked."""
    return os.geteuid() == 0 or system.run("sudo", "--non-interactive", "true") is not None


def _may_lock_clocks(system: System) -> bool:
    """Return whether a Jetson's clocks can be held while a row is measured."""
    return shutil.which("jetson_clocks") is not None and _may_be_root(system)
