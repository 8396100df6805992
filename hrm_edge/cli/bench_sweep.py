"""``hrm-edge bench --sweep``: a report for every point of precision, batch and power mode, each in its own process."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.child import python_command
from hrm_edge.cli.options import Output, show
from hrm_edge.errors import Interrupted, UserError, nearest
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.cli.bench_one import Options
    from hrm_edge.report import BenchReport

AXES = ("precision", "batch", "power-mode")
PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = (1, 4, 16, 64)
# Options that every point takes over as they were given; the rest belongs to the sweep itself.
_NOT_PASSED = {"json_file", "markdown_file", "html_file", "slots"}


def run_sweep(
    context: click.Context, models: Sequence[str], options: Options, sweep: str, calibration: str | None
) -> None:
    """Measure every point, write what was asked for, and print one table.

    Raises ``UserError`` where an axis cannot be swept here, or no point could be measured, and
    ``Interrupted`` after Ctrl-C, when the points that were measured are written.
    """
    from hrm_edge.report import Sweep
    from hrm_edge.report.html import page
    from hrm_edge.report.several import comparison_markdown, comparison_table

    axes = _axes(sweep, models, options)
    points: list[BenchReport] = []
    failed: dict[str, str] = {}
    stopped = False
    with tempfile.TemporaryDirectory(prefix="hrm-edge-sweep.") as scratch:
        folders = _precisions(models, axes, calibration, Path(scratch))
        try:
            _measure_all(context, folders, axes, options, Path(scratch), points, failed)
        except KeyboardInterrupt:
            stopped = True
    if stopped and not points:
        raise KeyboardInterrupt
    if not points:
        raise UserError("no point could be measured: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
    for name, why in failed.items():
        echo(f"Not measured: {name}: {why}", err=True)
    document = Sweep(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["hrm-edge", *context.obj]),
        axes=axes,
        points=points,
        failed=failed,
    )
    outputs: list[Output] = [
        (options.json_file, document.document),
        (options.markdown_file, lambda: comparison_markdown(points, [], [])),
        (options.html_file, lambda: page(points)),
    ]
    following = f"hrm-edge bench {shlex.quote(models[0])} --duration 600s --json bench.json --html bench.html"
    show([comparison_table(points, [], [])], outputs, following)
    if stopped:
        raise Interrupted("Interrupted", f"{len(points)} points were measured before")


def _axes(sweep: str, models: Sequence[str], options: Options) -> list[str]:
    axes = [axis.strip() for axis in sweep.split(",")]
    for axis in axes:
        if axis not in AXES:
            raise UserError(f"--sweep: there is no axis '{axis}'", nearest(axis, AXES))
    if "precision" not in axes and len(models) > 1:
        raise UserError("several models are for --sweep precision", "add precision to --sweep, or name one model")
    if "power-mode" in axes and options.power_mode is not None:
        raise UserError("--power-mode and --sweep power-mode: which?", "leave one of them out")
    if "batch" in axes and options.scenario != "offline":
        raise UserError("--sweep batch is for --scenario offline", "add --scenario offline")
    return axes


def _precisions(models: Sequence[str], axes: Sequence[str], calibration: str | None, scratch: Path) -> list[str]:
    """The models to measure: as named, or one that has float32 weights, exported to each precision."""
    if "precision" not in axes or len(models) > 1:
        return list(models)
    found = []
    for precision in PRECISIONS:
        out = scratch / f"{Path(models[0]).name}-{precision}"
        arguments = ["export", models[0], "--out", str(out), f"--{precision}"]
        done = _run([*arguments, *(["--calibration", calibration] if calibration else [])])
        if not (out / "manifest.json").is_file():
            raise UserError(
                f"--sweep precision: {precision} cannot be exported: {_last_words(done)}",
                "name an artifact for each precision: hrm-edge bench fp32/ int8/ --sweep precision",
            )
        found.append(str(out))
    return found


def _measure_all(
    context: click.Context,
    models: Sequence[str],
    axes: Sequence[str],
    options: Options,
    scratch: Path,
    points: list[BenchReport],
    failed: dict[str, str],
) -> None:
    """Put the report of every point into ``points``, or into ``failed`` why it could not be measured."""
    from hrm_edge.report.read import read_bench

    modes: list[str | None] = list(_modes()) if "power-mode" in axes else [None]
    batches: list[int | None] = list(BATCHES) if "batch" in axes else [options.slots]
    for mode, model, batch in itertools.product(modes, models, batches):
        name = ", ".join(str(part) for part in (Path(model).name, batch and f"{batch} slots", mode) if part)
        echo(f"Measuring {name}", err=True)
        file = scratch / "point.json"
        file.unlink(missing_ok=True)
        chosen = [*(["--slots", str(batch)] if batch else []), *(["--power-mode", mode] if mode else [])]
        done = _run(["bench", model, *_passed_on(context, options), *chosen, "--json", str(file)])
        if file.is_file():
            points += read_bench(file)
        else:
            failed[name] = _last_words(done)


def _passed_on(context: click.Context, options: Options) -> list[str]:
    """The options that were given on the command line, for a point of the sweep."""
    found: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if typed and hasattr(options, name) and name not in _NOT_PASSED:
            value = getattr(options, name)
            text = f"{value}s" if name in ("duration", "idle") else str(value)
            found += [parameter.opts[0]] if value is True else [parameter.opts[0], text]
    return found


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = python_command("-m", "hrm_edge", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("Error: ", "Failed: "))]
    return (told or lines or [f"exit code {done.returncode}"])[-1]


def _modes() -> list[str]:
    from hrm_edge.device.clocks import power_modes
    from hrm_edge.device.system import System

    found = list(power_modes(System()).values())
    if not found:
        raise UserError("--sweep power-mode: this machine has no nvpmodel modes", "it is for a Jetson")
    return found
