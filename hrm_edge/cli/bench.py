"""``hrm-edge bench``: latency, throughput, power and accuracy in one report; reports side by side; sweeps."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import (
    COUNT,
    DURATION,
    STDOUT,
    Document,
    JsonCommand,
    Output,
    OutputFile,
    complete_models,
    halt_option,
    limit_option,
    max_steps_option,
    opening,
    option,
    progress_bars,
    report_options,
    run_options,
    say,
    show,
    task_option,
    views_option,
)
from hrm_edge.errors import GateError, Interrupted, UserError

if TYPE_CHECKING:
    from hrm_edge.report.schema import BenchReport

Files = tuple[str | None, str | None, str | None]
"""Where the JSON, the Markdown and the HTML go."""
_ON_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
# Parameters of a sweep that are not passed on to its points.
_NOT_PASSED = {"models", "compare", "sweep", "max_regression", "calibration", "json_file", "markdown_file", "html_file"}


@click.command(cls=JsonCommand)
@click.argument("models", metavar="MODEL", nargs=-1, required=True, type=click.Path(), shell_complete=complete_models)
@option(
    "--data",
    type=click.Path(),
    help="Built data folder, or a file of puzzles as solve reads them.  [default: 256 puzzles of the package]",
)
@task_option
@limit_option
@option(
    "--scenario",
    type=click.Choice(["single-stream", "offline", "camera"]),
    default="single-stream",
    help="One puzzle after another, all at hand at once, or one with every frame.",
)
@option("--duration", "duration_s", type=DURATION, default="10s", help="At least so long; 600s to cite.")
@option("--protocol", type=click.Path(exists=True, dir_okay=False), help="YAML file that sets these options.")
@option("--fps", type=click.FloatRange(0, min_open=True), default=30.0, help="Camera: frames/s.")
@views_option(1)
@halt_option()
@max_steps_option
@option("--slots", type=COUNT, help="Offline: puzzles in the batch at most.  [default: 64]")
@run_options
@option(
    "--power",
    default="auto",
    help="Meter: auto, none, ina238, ina3221, tegrastats, jtop, nvml, rapl; METER:RAIL for one rail.",
)
@option("--idle", "idle_s", type=DURATION, default="10s", help="With a meter: at rest first, for the net energy.")
@option(
    "--reference",
    type=click.Path(),
    shell_complete=complete_models,
    help="float32 artifact to compare with in the same run.  [default: a shipped one's own]",
)
@option("--strict", is_flag=True, help="Refuse a machine that is not ready, fail a run that was disturbed.")
@option("--power-mode", help="Jetson: hold this mode, by name, while measuring (needs root).")
@option("--lock-clocks", is_flag=True, help="Jetson: hold the highest clocks while measuring (needs root).")
@option("--compare", is_flag=True, help="MODEL are reports: one table, the first being the baseline.")
@option("--max-regression", type=click.FloatRange(0), help="With --compare: fail if so many % worse.")
@option("--sweep", help="One report per point of precision, batch, power-mode (a list with commas).")
@option(
    "--calibration", type=click.Path(), help="With --sweep precision of one model: puzzles for INT8, as for export."
)
@report_options
@option(
    "--html",
    "html_file",
    type=OutputFile(needs=("matplotlib", "for its plots")),
    help="Write the report as one HTML page with plots.",
)
@click.pass_context
def bench(
    context: click.Context,
    /,
    models: tuple[str, ...],
    compare: bool,
    sweep: str | None,
    max_regression: float | None,
    calibration: str | None,
    json_file: str | None,
    markdown_file: str | None,
    html_file: str | None,
    **chosen: Any,
) -> None:
    """Measure MODEL, an artifact, a checkpoint or a published state-dict file, on this machine: latency, throughput,
    power, accuracy of the same answers.

    Single-stream asks at least 64 puzzles (MLPerf's least) and its headline is the p90 latency.

    \b
    hrm-edge bench build/int8 --data puzzles.csv --duration 60s --html bench.html
    hrm-edge bench --compare before.json after.json --max-regression 10
    hrm-edge bench build/run --sweep precision,batch --calibration build/data
    """
    if max_regression is not None and not compare:
        raise UserError("--max-regression is for --compare", "leave it out")
    if calibration is not None and sweep is None:
        raise UserError("--calibration is for --sweep", "leave it out")
    files = (json_file, markdown_file, html_file)
    if compare:
        _compare(models, files, max_regression)
    elif sweep is not None:
        _sweep(context, models, files, sweep, calibration)
    elif len(models) > 1:
        raise UserError(
            f"bench measures one model at a time, not {len(models)}",
            "several in one table: measure each with --json, then --compare; or --sweep precision",
        )
    else:
        _measure(context, models[0], files, **chosen)


def _measure(
    context: click.Context,
    name: str,
    files: Files,
    *,
    protocol: str | None,
    lock_clocks: bool,
    power_mode: str | None,
    **chosen: Any,
) -> None:
    """Load ``name``, answer once cold, then measure; ``GateError`` where ``--strict`` is not met."""
    from hrm_edge.api.measure import bench as run
    from hrm_edge.api.measure import first_answer
    from hrm_edge.api.open import open_model
    from hrm_edge.bench.hold import hold
    from hrm_edge.bench.protocol import under_protocol
    from hrm_edge.bench.scenarios import BenchOptions
    from hrm_edge.bench.timing import process_age_s

    with hold(lock_clocks=lock_clocks, power_mode=power_mode):
        process_s = process_age_s()
        how = opening(chosen)
        options, followed = BenchOptions(**chosen), None
        if protocol is not None:
            options, followed = under_protocol(options, _given(context), protocol)
        options.check()
        model = open_model(name, slots=options.batch, on_message=say, **how)
        cold = first_answer(model, options, process_s, process_age_s())
        with progress_bars() as on_progress:
            report, example = run(
                model,
                options,
                cold_start=cold,
                protocol=followed,
                command=_command(context),
                on_message=say,
                on_progress=on_progress,
            )
    follow = f"hrm-edge solve {example} --model {shlex.quote(name)}"
    if files[0] is not None and files[0] != STDOUT:
        follow = f"hrm-edge bench --compare {shlex.quote(files[0])} OTHER.json"
    from hrm_edge.report.text import markdown, tables  # after the cold start: its import belongs to no model

    show(tables(report), _outputs(files, report.document, lambda: markdown(report), [report]), follow)
    if options.strict and report.warnings:
        raise GateError("--strict: " + "; ".join(report.warnings), "fix that and measure again")


def _compare(named: Sequence[str], files: Files, max_regression: float | None) -> None:
    """Print the table of the reports in ``named``, write the files, then hold them to ``max_regression`` percent.

    Raises ``UserError`` for reports of different protocols, ``GateError`` for a regression.
    """
    from hrm_edge.report.compare import Comparison, require_one_protocol
    from hrm_edge.report.read import read_bench

    reports = [(file, report) for file in named for report in read_bench(file)]
    require_one_protocol(reports)
    compared = Comparison.under_limit([report for _, report in reports], max_regression)
    more = "--max-regression 10" if max_regression is None else "--html compare.html"
    outputs = _outputs(files, compared.document, compared.markdown, compared.reports)
    show([compared.table()], outputs, f"hrm-edge bench --compare {shlex.join(named)} {more}")
    if compared.failures:
        raise GateError("; ".join(compared.failures), "find what changed, or allow more with --max-regression")


def _sweep(context: click.Context, models: Sequence[str], files: Files, sweep: str, calibration: str | None) -> None:
    """Measure every point, write the files, and print one table; after Ctrl-C of the points that were measured."""
    from hrm_edge.bench.sweep import check_axes
    from hrm_edge.bench.sweep import sweep as run
    from hrm_edge.report.compare import Comparison

    axes = check_axes(sweep, models, context.params["scenario"], context.params["power_mode"])
    given = _passed_on(context, _NOT_PASSED | ({"slots"} if "batch" in axes else set()))
    swept, stopped = run(models, axes, calibration, given, _command(context), say)
    compared = Comparison(swept.points)
    show(
        [compared.table()],
        _outputs(files, swept.document, compared.markdown, swept.points),
        f"hrm-edge bench {shlex.quote(models[0])} --duration 600s --json bench.json --html bench.html",
    )
    if stopped:
        raise Interrupted("Interrupted", f"{len(swept.points)} points were measured before")


def _outputs(
    files: Files,
    document: Callable[[], Document],
    markdown: Callable[[], Document],
    reports: Sequence[BenchReport],
) -> list[Output]:
    def html() -> Document:
        from hrm_edge.report.html import page

        return page(reports)

    return [Output(name, content) for name, content in zip(files, (document, markdown, html), strict=True)]


def _command(context: click.Context) -> str:
    return shlex.join(["hrm-edge", *context.obj])


def _given(context: click.Context) -> list[str]:
    """Return the parameters that stand on the command line."""
    return [name for name in context.params if context.get_parameter_source(name) is _ON_COMMAND_LINE]


def _passed_on(context: click.Context, own: set[str]) -> list[str]:
    """Return the options that were given on the command line, for a point of the sweep, without its ``own``."""
    words: list[str] = []
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in _given(context):
        if name not in own:
            value = context.params[name]
            text = f"{value}s" if name in ("duration_s", "idle_s") else str(value)
            words += [flags[name]] if value is True else [flags[name], text]
    return words
