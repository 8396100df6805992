"""Measuring an opened model: exact accuracy, speed, energy. Axes: N puzzles, S cells."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any

from hrm_edge import zoo
from hrm_edge.api.answers import answered_puzzles, sample_puzzles
from hrm_edge.api.engine_parity import check_first
from hrm_edge.api.open import Opened, open_model
from hrm_edge.callbacks import OnMessage, OnProgress
from hrm_edge.errors import UserError
from hrm_edge.manifest import Manifest, read_manifest
from hrm_edge.report.schema import BenchReport, ColdStart, Data, EvalReport, ModelInfo, Protocol
from hrm_edge.solve import SolveOptions

if TYPE_CHECKING:
    from hrm_edge.bench.scenarios import BenchOptions, Solver
    from hrm_edge.session import Session


def evaluate(
    model: Opened,
    data: str,
    options: SolveOptions,
    *,
    limit: int | None = None,
    views: int | None = None,
    paired: Opened | None = None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> tuple[EvalReport, dict[str, Any]]:
    """Answer the puzzles of ``data`` and score them: (report, answers in ARC Prize's format, empty of other tasks).

    ``limit``: only the first so many puzzles (of ARC: tasks). ``views``: tried per puzzle, whatever ``options`` say
    (None: 1, of ARC all that the folder has). ``paired``: a model that answers the same puzzles too. Raises
    ``UserError`` for data that the model is not for.
    """
    from hrm_edge.bench.run import Subject
    from hrm_edge.bench.run import evaluate as run
    from hrm_edge.bench.scenarios import Solver

    is_arc = model.task.family == "arc"
    if paired is not None and is_arc:
        raise UserError("--paired is not for arc, whose answers vote", "leave it out: compare the two pass@2")
    if is_arc:
        options = replace(options, views=1, halt="fixed" if options.halt == "rules" else options.halt)
        return _evaluate_arc(model, Solver(model.session, model.task, options), data, limit, views, on_progress)
    solver = Solver(model.session, model.task, replace(options, views=views or 1))
    puzzles, about = answered_puzzles(data, model.task, limit, on_message, on_progress)
    report = run(
        solver,
        puzzles,
        Subject(model.about, about, model.threads),
        on_progress=lambda done, verified: on_progress("solving", done, len(puzzles)),
        other=None if paired is None else (paired.about, paired.session),
    )
    return report, {}


def _evaluate_arc(
    model: Opened, solver: Solver, data: str, limit: int | None, views: int | None, on_progress: OnProgress
) -> tuple[EvalReport, dict[str, Any]]:
    """Score ARC by votes; the answers are in ARC Prize's format."""
    from hrm_edge.bench.arc import evaluate_arc
    from hrm_edge.bench.run import Subject
    from hrm_edge.data.arc import read_questions
    from hrm_edge.data.layout import identifiers_hash, is_data_folder

    if not is_data_folder(data):
        raise UserError(
            f"{data} is no built data folder: a model of arc answers the tasks of the folder that it was trained on",
            f"build one with: hrm-edge data build arc --out DATA --source {quote(data)}",
        )
    questions = read_questions(data, limit)
    trained_on = model.origin.get("identifiers")
    if trained_on is not None and trained_on != identifiers_hash(data):
        raise UserError(
            f"{data} is not the data folder that {model.called} was trained on: its identifiers.json differs, "
            "and a row of the model's puzzle table stands for another task there",
            "give that folder, or one built with the same sources, options and seed",
        )
    most = int(questions.view.max()) + 1
    chosen = min(views or most, most)
    total = int((questions.view < chosen).sum())
    about = Data(path=data, task=model.task.name, puzzles=total, answers="data")
    return evaluate_arc(
        solver,
        questions,
        chosen,
        Subject(model.about, about, model.threads),
        on_progress=lambda done, verified: on_progress("answering", done, total),
    )


def _solver_for(model: Opened, options: BenchOptions) -> Solver:
    """Make what a benchmark calls to answer puzzles."""
    from hrm_edge.bench.scenarios import Solver

    how = SolveOptions(
        halt=options.halt, max_steps=options.max_steps, views=options.views, slots=options.batch, seed=options.seed
    )
    return Solver(model.session, model.task, how)


def first_answer(
    model: Opened, options: BenchOptions, process_s: float | None, loaded_s: float | None
) -> ColdStart | None:
    """Answer one puzzle right after loading: what a user who starts the program waits for.

    ``process_s``, ``loaded_s``: the process's age in seconds before and after the model was loaded; None where the
    system does not tell.
    """
    from hrm_edge.bench.timing import process_age_s
    from hrm_edge.data.puzzles import load_puzzles

    if process_s is None or loaded_s is None:
        return None
    solver = _solver_for(model, options)
    first = load_puzzles(options.data or sample_puzzles(model.task.name), model.task, 1)
    began_s = process_age_s()
    solver(first)
    done_s = process_age_s()
    assert began_s is not None
    assert done_s is not None
    return ColdStart(
        process_ms=1e3 * process_s,
        load_ms=1e3 * (loaded_s - process_s),
        first_answer_ms=1e3 * (done_s - began_s),
        total_ms=1e3 * done_s,
    )


def bench(
    model: Opened,
    options: BenchOptions,
    *,
    cold_start: ColdStart | None = None,
    protocol: Protocol | None = None,
    command: str = "",
    on_message: OnMessage,
    on_progress: OnProgress,
) -> tuple[BenchReport, str]:
    """Measure one scenario: (report, a puzzle of the set as text).

    An engine that was never compared with its artifact on this GPU is compared first. Raises ``UserError`` for a meter
    that is not there, a reference that is another model, or with ``options.strict`` a machine that is not ready;
    ``GateError`` where the engine misses its limits.
    """
    from hrm_edge.bench.run import Subject
    from hrm_edge.bench.run import bench as run

    options.check()
    parity = check_first(model.session, model.manifest, options.data, on_message)
    puzzles, about = answered_puzzles(
        options.data or sample_puzzles(model.task.name), model.task, options.limit, on_message, on_progress
    )
    digest = hashlib.sha256(puzzles.givens.tobytes()).hexdigest()
    path = options.data or f"the package's own {model.task.name} puzzles"
    data = Data(**{**about.model_dump(), "sha256": digest, "path": path})
    reference, reason = _reference(model, options.reference)
    subject = Subject(
        model=model.about,
        data=data,
        threads=model.threads,
        parity=model.parity,
        engine_parity=parity,
        reference=reference,
        reference_reason=reason,
        cold_start=cold_start,
        protocol=protocol,
        command=command,
    )
    report = run(
        _solver_for(model, options),
        puzzles,
        subject=subject,
        options=options,
        on_progress=lambda share: on_progress(options.scenario, share, 1.0),
        on_message=on_message,
    )
    return report, model.task.format(puzzles.givens[0])


def _reference(model: Opened, named: str | None) -> tuple[tuple[ModelInfo, Session] | None, str]:
    """Open the float32 artifact that the answers are compared with; None and the reason where there is none."""
    name = named or _own_float32(model)
    if name is None:
        is_float32 = model.about.precision == "fp32"
        return None, "this is the float32 artifact" if is_float32 else "no float32 artifact was named (--reference)"
    opened = open_model(name)
    if opened.about.precision != "fp32":
        raise UserError(f"--reference {name} is {opened.about.precision}", "give the same model in fp32")
    if opened.session.spec != model.session.spec:
        raise UserError(f"--reference {name} is another model than {model.called}", "give the same one in fp32")
    return (opened.about, opened.session), ""


def _own_float32(model: Opened) -> str | None:
    """Find the shipped float32 artifact of the same checkpoint; None where the model is float32 itself."""
    if model.manifest is None or model.about.precision == "fp32":
        return None
    origin = _weights(model.manifest)
    for name in zoo.names():
        folder = zoo.folder_of(name)
        assert folder is not None
        manifest = read_manifest(folder)
        if manifest.precision == "fp32" and origin and _weights(manifest) == origin:
            return name
    return None


def _weights(manifest: Manifest) -> dict[str, Any]:
    """Return what identifies an artifact's weights, whether it was exported from them or from another artifact."""
    checkpoint = manifest.provenance.get("checkpoint") or {}
    return {key: value for key, value in checkpoint.items() if key != "artifact"}
