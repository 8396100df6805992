"""A report for every point of precision, batch and power mode, each measured by a process of its own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from hrm_edge.callbacks import OnMessage
from hrm_edge.child import run_verb
from hrm_edge.device.clocks import power_modes
from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest
from hrm_edge.manifest import MANIFEST
from hrm_edge.report.read import read_bench
from hrm_edge.report.schema import BenchReport, Scenario, Sweep

_AXES = ("precision", "batch", "power-mode")
PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = (1, 4, 16, 64)


def check_axes(sweep: str, models: Sequence[str], scenario: Scenario, power_mode: str | None) -> list[str]:
    """Return the axes that ``sweep`` names; ``UserError`` where one is unknown, or has nothing to vary here."""
    axes = [axis.strip() for axis in sweep.split(",")]
    for axis in axes:
        if axis not in _AXES:
            raise UserError(f"--sweep: there is no axis '{axis}'", nearest(axis, _AXES))
    if "precision" not in axes and len(models) > 1:
        raise UserError("several models are for --sweep precision", "add precision to --sweep, or name one model")
    if "power-mode" in axes and power_mode is not None:
        raise UserError("--power-mode and --sweep power-mode: which?", "leave one of them out")
    if "batch" in axes and scenario != "offline":
        raise UserError("--sweep batch is for --scenario offline", "add --scenario offline")
    return axes


def sweep(
    models: Sequence[str],
    axes: Sequence[str],
    calibration: str | None,
    options: Sequence[str],
    command: str,
    on_message: OnMessage,
) -> tuple[Sweep, bool]:
    """Measure every point with the ``options`` of ``hrm-edge bench``, and say whether Ctrl-C ended it before.

    Raises ``UserError`` where no point could be measured, ``KeyboardInterrupt`` where none was before Ctrl-C.
    """
    reports: list[BenchReport] = []
    failed: dict[str, str] = {}
    stopped = False
    try:
        for name, measured in _points(models, axes, calibration, options, on_message):
            if isinstance(measured, str):
                failed[name] = measured
            else:
                reports += measured
    except KeyboardInterrupt:
        if not reports:
            raise
        stopped = True
    if not reports:
        raise UserError("no point could be measured: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    for name, why in failed.items():
        on_message(f"Not measured: {name}: {why}")
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Sweep(created=created, command=command, axes=list(axes), points=reports, failed=failed), stopped


def _points(
    models: Sequence[str],
    axes: Sequence[str],
    calibration: str | None,
    options: Sequence[str],
    on_message: OnMessage,
) -> Iterator[tuple[str, list[BenchReport] | str]]:
    """Measure point by point; of each its name and its reports, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="hrm-edge-sweep.") as folder:
        scratch = Path(folder)
        models = _exported(models, calibration, scratch) if "precision" in axes and len(models) == 1 else models
        modes: list[str | None] = list(_modes()) if "power-mode" in axes else [None]
        batches: list[int | None] = list(BATCHES) if "batch" in axes else [None]
        for mode, model, batch in itertools.product(modes, models, batches):
            name = ", ".join(str(part) for part in (Path(model).name, batch and f"{batch} slots", mode) if part)
            on_message(f"Measuring {name}")
            file = scratch / "point.json"
            file.unlink(missing_ok=True)
            chosen = [*(["--slots", str(batch)] if batch else []), *(["--power-mode", mode] if mode else [])]
            ended = run_verb(["bench", model, *options, *chosen, "--json", str(file)])
            yield name, read_bench(file) if file.is_file() else ended.last_words


def _exported(models: Sequence[str], calibration: str | None, scratch: Path) -> list[str]:
    """Export a model that has float32 weights to each precision, and return the artifacts."""
    artifacts = []
    for precision in PRECISIONS:
        out = scratch / f"{Path(models[0]).name}-{precision}"
        arguments = ["export", models[0], "--out", str(out), f"--{precision}"]
        ended = run_verb([*arguments, *(["--calibration", calibration] if calibration else [])])
        if not (out / MANIFEST).is_file():
            raise UserError(
                f"--sweep precision: {precision} cannot be exported: {ended.last_words}",
                "name an artifact for each precision: hrm-edge bench fp32/ int8/ --sweep precision",
            )
        artifacts.append(str(out))
    return artifacts


def _modes() -> list[str]:
    modes = list(power_modes(System()).values())
    if not modes:
        raise UserError("--sweep power-mode: this machine has no nvpmodel modes", "it is for a Jetson")
    return modes
