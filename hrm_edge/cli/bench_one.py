"""One report of ``hrm-edge bench``: from the options of the command line to the files and the table."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from hrm_edge import zoo
from hrm_edge.cli.answered import answered_puzzles, sample_of
from hrm_edge.cli.engine_parity import check_first
from hrm_edge.cli.options import STDOUT, progress_bar, report_outputs, show_report
from hrm_edge.cli.resolve import Resolved, resolve_model
from hrm_edge.errors import GateError, UserError
from hrm_edge.manifest import read_manifest
from hrm_edge.tasks.base import Tokens
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.bench.run import Subject
    from hrm_edge.report import BenchReport, ColdStart, Data
    from hrm_edge.report.schema import Protocol, Scenario
    from hrm_edge.runtime import Backend
    from hrm_edge.solve import Halt


@dataclass(frozen=True)
class Options:
    """What the command line says; see its help."""

    data: str | None
    task_name: str | None
    limit: int | None
    scenario: Scenario
    duration: float
    protocol: str | None
    fps: float
    views: int
    halt: Halt
    max_steps: int | None
    slots: int | None
    backend: Backend | None
    threads: int | None
    seed: int
    power: str
    idle: float
    reference: str | None
    strict: bool
    lock_clocks: bool
    power_mode: str | None
    json_file: str | None
    markdown_file: str | None
    html_file: str | None


def measure_and_show(context: click.Context, model: str, options: Options) -> None:
    """Measure ``model``, write the files, print the table; ``GateError`` where ``--strict`` is not met."""
    from hrm_edge.bench.hold import hold

    with hold(lock_clocks=options.lock_clocks, power_mode=options.power_mode):
        report, example = measure(context, model, options)
    follow = f"hrm-edge solve {example} --model {shlex.quote(model)}"
    if options.json_file is not None and options.json_file != STDOUT:
        follow = f"hrm-edge bench --compare {shlex.quote(options.json_file)} OTHER.json"
    from hrm_edge.report.html import page  # after the cold start: its import belongs to no model

    outputs = report_outputs(report, options.json_file, options.markdown_file)
    show_report(report, [*outputs, (options.html_file, lambda: page([report]))], follow)
    if options.strict and report.warnings:
        raise GateError("--strict: " + "; ".join(report.warnings), "fix that and measure again")


def measure(context: click.Context, model: str, options: Options) -> tuple[BenchReport, str]:
    """Load, answer once cold, then measure; the report, and a puzzle of the set as text."""
    from hrm_edge.bench.run import Ask, bench
    from hrm_edge.bench.scenarios import Plan, Solver
    from hrm_edge.bench.timing import process_age_s

    process_s = process_age_s()
    options, protocol = _under_protocol(context, options)
    if options.scenario != "offline" and options.slots is not None:
        raise UserError(
            "--slots is for --scenario offline", f"{options.scenario} has one puzzle at a time: leave it out"
        )
    batch = options.slots or 64 if options.scenario == "offline" else 1
    resolved = resolve_model(model, options.threads, options.task_name, options.backend, slots=batch)
    loaded_s = process_age_s()
    session, task = resolved.session, resolved.task
    solver = Solver(
        session, task, options.halt, options.max_steps or session.spec.max_steps, options.views, batch, options.seed
    )
    cold = _cold_start(solver, options, process_s, loaded_s)
    engine_parity = check_first(session, resolved.manifest, options.data)
    puzzles, about = answered_puzzles(options.data or sample_of(task), task, options.limit)
    assert puzzles.labels is not None
    digest = hashlib.sha256(puzzles.givens.tobytes()).hexdigest()
    path = options.data or f"the package's own {task.name} puzzles"
    from hrm_edge.report import Data  # after the cold start: its import belongs to no model

    data = Data(**{**about.model_dump(), "sha256": digest, "path": path})
    command = shlex.join(["hrm-edge", *context.obj])
    subject = replace(
        _subject(resolved, options, data), cold_start=cold, protocol=protocol, command=command,
        engine_parity=engine_parity,
    )  # fmt: skip
    ask = Ask(options.scenario, Plan(options.duration, options.fps), options.power, options.idle, options.strict)
    with progress_bar(options.scenario, 1.0) as progress:
        report = bench(
            solver, puzzles.givens, puzzles.labels, subject=subject, ask=ask, on_progress=progress,
            puzzle_ids=puzzles.ids, on_message=lambda message: echo(message, err=True),
        )  # fmt: skip
    return report, task.format(puzzles.givens[0])


def _under_protocol(context: click.Context, options: Options) -> tuple[Options, Protocol | None]:
    """The protocol's settings, except those that the command line changes; these are kept in the report."""
    if options.protocol is None:
        return options, None
    from hrm_edge.bench.protocol import read_protocol
    from hrm_edge.report.schema import Protocol

    file, digest = read_protocol(options.protocol)
    changed: dict[str, Any] = {}
    settings = file.settings()
    for name, value in settings.items():
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and getattr(options, name) != value:
            changed[name] = settings[name] = getattr(options, name)
    return replace(options, **settings), Protocol(name=file.name, sha256=digest, changed=changed)


def _cold_start(solver: Any, options: Options, process_s: float | None, loaded_s: float | None) -> ColdStart | None:
    """Answer one puzzle at once after loading: what a user who starts the program waits for."""
    from hrm_edge.bench.timing import process_age_s
    from hrm_edge.report import ColdStart

    if process_s is None or loaded_s is None:
        return None
    givens = _one_puzzle(solver.task, options)
    began_s = process_age_s()
    solver(givens)
    done_s = process_age_s()
    assert began_s is not None
    assert done_s is not None
    return ColdStart(
        process_ms=1e3 * process_s, load_ms=1e3 * (loaded_s - process_s), first_answer_ms=1e3 * (done_s - began_s),
        total_ms=1e3 * done_s,
    )  # fmt: skip


def _one_puzzle(task: Any, options: Options) -> Tokens:
    from hrm_edge.data.puzzles import load_puzzles

    return load_puzzles(options.data or sample_of(task), task, 1).givens


def _subject(resolved: Resolved, options: Options, data: Data) -> Subject:
    from hrm_edge.bench.run import Subject

    name = options.reference or _own_float32(resolved)
    reference, reason = None, "no float32 artifact was named (--reference)"
    if name is not None:
        other = resolve_model(name)
        if other.model.precision != "fp32":
            raise UserError(f"--reference {name} is {other.model.precision}", "give the same model in fp32")
        if other.session.spec != resolved.session.spec:
            raise UserError(
                f"--reference {name} is another model than {resolved.model.path}", "give the same one in fp32"
            )
        reference = other.model, other.session
    elif resolved.model.precision == "fp32":
        reason = "this is the float32 artifact"
    return Subject(
        model=resolved.model, data=data, threads=options.threads, parity=resolved.parity, reference=reference,
        reference_reason=reason,
    )  # fmt: skip


def _own_float32(resolved: Resolved) -> str | None:
    """The shipped float32 artifact of the same checkpoint, if there is one and the model is not float32 itself."""
    if resolved.manifest is None or resolved.model.precision == "fp32":
        return None
    origin = resolved.manifest.provenance.get("checkpoint")
    for name in zoo.names():
        folder = zoo.folder_of(name)
        assert folder is not None
        manifest = read_manifest(folder)
        if manifest.precision == "fp32" and origin and manifest.provenance.get("checkpoint") == origin:
            return name
    return None
