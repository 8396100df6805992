"""``hrm-edge bench --sweep``: a report for every point of precision, batch and power mode, in one table."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import Output, say, show
from hrm_edge.errors import Interrupted, UserError

if TYPE_CHECKING:
    from hrm_edge.cli.bench_one import Options

# Options that every point takes over as they were given; the rest belongs to the sweep itself.
_NOT_PASSED = {"json_file", "markdown_file", "html_file"}


def run_sweep(
    context: click.Context, models: Sequence[str], options: Options, sweep: str, calibration: str | None
) -> None:
    """Measure every point, write what was asked for, and print one table.

    Raises ``UserError`` where an axis cannot be swept here, or no point could be measured, and
    ``Interrupted`` after Ctrl-C, when the points that were measured are written.
    """
    from hrm_edge.bench.sweep import Points, check_axes, measure_points, models_of
    from hrm_edge.report import Sweep
    from hrm_edge.report.html import page
    from hrm_edge.report.several import comparison_markdown, comparison_table

    axes = check_axes(sweep, models, options.scenario, options.power_mode)
    points, stopped = Points(), False
    with tempfile.TemporaryDirectory(prefix="hrm-edge-sweep.") as scratch:
        folders = models_of(models, axes, calibration, Path(scratch))
        given = _passed_on(context, options, _NOT_PASSED | ({"slots"} if "batch" in axes else set()))
        try:
            measure_points(folders, axes, given, Path(scratch), points, say)
        except KeyboardInterrupt:
            stopped = True
    reports = points.reports
    if stopped and not reports:
        raise KeyboardInterrupt
    if not reports:
        raise UserError("no point could be measured: " + "; ".join(f"{k}: {v}" for k, v in points.failed.items()))
    for name, why in points.failed.items():
        say(f"Not measured: {name}: {why}")
    document = Sweep(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["hrm-edge", *context.obj]),
        axes=axes,
        points=reports,
        failed=points.failed,
    )
    outputs = [
        Output(options.json_file, document.document),
        Output(options.markdown_file, lambda: comparison_markdown(reports, [], [])),
        Output(options.html_file, lambda: page(reports)),
    ]
    following = f"hrm-edge bench {shlex.quote(models[0])} --duration 600s --json bench.json --html bench.html"
    show([comparison_table(reports, [], [])], outputs, following)
    if stopped:
        raise Interrupted("Interrupted", f"{len(reports)} points were measured before")


def _passed_on(context: click.Context, options: Options, own: set[str]) -> list[str]:
    """The options that were given on the command line, for a point of the sweep."""
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if typed and hasattr(options, name) and name not in own:
            value = getattr(options, name)
            text = f"{value}s" if name in ("duration_s", "idle_s") else str(value)
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], text]
    return words
