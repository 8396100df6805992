"""One report of ``hrm-edge bench``: from the options of the command line to the files and the table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.api.measure import BenchOptions, bench, first_answer
from hrm_edge.api.open import load
from hrm_edge.cli.options import STDOUT, Output, progress_bars, report_outputs, say, show_report
from hrm_edge.errors import GateError

if TYPE_CHECKING:
    from hrm_edge.backends import Backend
    from hrm_edge.report import BenchReport
    from hrm_edge.report.schema import Protocol


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """Options of the command line; see its help."""

    task_name: str | None
    protocol: str | None
    backend: Backend | None
    threads: int | None
    lock_clocks: bool
    power_mode: str | None
    json_file: str | None
    markdown_file: str | None
    html_file: str | None


def measure_and_show(context: click.Context, model: str, options: Options) -> None:
    """Measure ``model``, write the files, print the table; ``GateError`` where ``--strict`` is not met."""
    from hrm_edge.bench.hold import hold

    with hold(lock_clocks=options.lock_clocks, power_mode=options.power_mode):
        report, example = _measure(context, model, options)
    follow = f"hrm-edge solve {example} --model {shlex.quote(model)}"
    if options.json_file is not None and options.json_file != STDOUT:
        follow = f"hrm-edge bench --compare {shlex.quote(options.json_file)} OTHER.json"
    from hrm_edge.report.html import page  # after the cold start: its import belongs to no model

    outputs = report_outputs(report, options.json_file, options.markdown_file)
    show_report(report, [*outputs, Output(options.html_file, lambda: page([report]))], follow)
    if options.strict and report.warnings:
        raise GateError("--strict: " + "; ".join(report.warnings), "fix that and measure again")


def _measure(context: click.Context, name: str, options: Options) -> tuple[BenchReport, str]:
    """Load, answer once cold, then measure; the report, and a puzzle of the set as text."""
    from hrm_edge.bench.timing import process_age_s

    process_s = process_age_s()
    options, protocol = _under_protocol(context, options)
    options.check()
    model = load(
        name,
        threads=options.threads,
        task=options.task_name,
        backend=options.backend,
        slots=options.batch,
        on_message=say,
    )
    cold = first_answer(model, options, process_s, process_age_s())
    command = shlex.join(["hrm-edge", *context.obj])
    with progress_bars() as on_progress:
        return bench(
            model,
            options,
            cold_start=cold,
            protocol=protocol,
            command=command,
            on_message=say,
            on_progress=on_progress,
        )


def _under_protocol(context: click.Context, options: Options) -> tuple[Options, Protocol | None]:
    """The protocol's settings, except those that the command line changes; these are kept in the report."""
    if options.protocol is None:
        return options, None
    from hrm_edge.bench.protocol import read_protocol
    from hrm_edge.report.schema import Protocol

    file, digest = read_protocol(options.protocol)
    changed: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in file.settings().items():
        field = name if hasattr(options, name) else f"{name}_s"
        given = context.get_parameter_source(field) is click.core.ParameterSource.COMMANDLINE
        if given and getattr(options, field) != value:
            changed[name] = getattr(options, field)
        else:
            settings[field] = value
    return replace(options, **settings), Protocol(name=file.name, sha256=digest, changed=changed)
