"""``hrm-edge bench``: latency, throughput, power and accuracy in one report; reports side by side; sweeps."""

from __future__ import annotations

from typing import Any

import click

from hrm_edge.cli.options import (
    Duration,
    JsonCommand,
    OutputFile,
    backend_option,
    complete_models,
    halt_option,
    json_option,
    markdown_option,
    max_steps_option,
    seed_option,
    task_option,
    threads_option,
    views_option,
)


@click.command(cls=JsonCommand)
@click.argument("models", metavar="MODEL", nargs=-1, required=True, type=click.Path(), shell_complete=complete_models)
@click.option(
    "--data",
    type=click.Path(),
    help="Built data folder, or a file of puzzles as solve reads them.  [default: 256 puzzles of the package]",
)
@task_option
@click.option("--limit", type=click.IntRange(1), help="Only the first so many puzzles.")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline", "camera"]),
    default="single-stream",
    show_default=True,
    help="One puzzle after another, all at hand at once, or one with every frame.",
)
@click.option(
    "--duration",
    "duration_s",
    type=Duration(),
    default="10s",
    show_default=True,
    help="At least so long; 600s to cite.",
)
@click.option("--protocol", type=click.Path(exists=True, dir_okay=False), help="YAML file that sets these options.")
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, help="Camera: frames/s."
)
@views_option(1)
@halt_option()
@max_steps_option
@click.option("--slots", type=click.IntRange(1), help="Offline: puzzles in the batch at most.  [default: 64]")
@backend_option
@threads_option
@seed_option
@click.option(
    "--power",
    default="auto",
    show_default=True,
    help="Meter: auto, none, ina238, ina3221, tegrastats, jtop, nvml, rapl; METER:RAIL for one rail.",
)
@click.option(
    "--idle",
    "idle_s",
    type=Duration(),
    default="10s",
    show_default=True,
    help="With a meter: at rest first, for the net energy.",
)
@click.option(
    "--reference",
    type=click.Path(),
    shell_complete=complete_models,
    help="float32 artifact to compare with in the same run.  [default: a shipped one's own]",
)
@click.option("--strict", is_flag=True, help="Refuse a machine that is not ready, fail a run that was disturbed.")
@click.option("--power-mode", help="Jetson: hold this mode, by name, while measuring (needs root).")
@click.option("--lock-clocks", is_flag=True, help="Jetson: hold the highest clocks while measuring (needs root).")
@click.option("--compare", is_flag=True, help="MODEL are reports: one table, the first being the baseline.")
@click.option("--max-regression", type=click.FloatRange(0), help="With --compare: fail if so many % worse.")
@click.option("--sweep", help="One report per point of precision, batch, power-mode (a list with commas).")
@click.option(
    "--calibration", type=click.Path(), help="With --sweep precision of one model: puzzles for INT8, as for export."
)
@json_option("the report")
@markdown_option
@click.option(
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
    from hrm_edge.cli.bench_compare import compare_reports
    from hrm_edge.cli.bench_one import Options, measure_and_show
    from hrm_edge.cli.bench_sweep import run_sweep
    from hrm_edge.errors import UserError

    options = Options(**chosen)
    for flag, given, needs, present in (
        ("--max-regression", max_regression is not None, "--compare", compare),
        ("--calibration", calibration is not None, "--sweep", sweep is not None),
    ):
        if given and not present:
            raise UserError(f"{flag} is for {needs}", "leave it out")
    if compare:
        compare_reports(models, options, max_regression)
    elif sweep is not None:
        run_sweep(context, models, options, sweep, calibration)
    elif len(models) > 1:
        raise UserError(
            f"bench measures one model at a time, not {len(models)}",
            "several in one table: measure each with --json, then --compare; or --sweep precision",
        )
    else:
        measure_and_show(context, models[0], options)
