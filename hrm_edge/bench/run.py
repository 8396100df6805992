"""Benchmark and evaluation: measure and score the answers, and put both into one report. Axes: N puzzles, S cells."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from hrm_edge.backends import package_of
from hrm_edge.bench.accuracy import paired, score, score_by_views, steps_histogram
from hrm_edge.bench.roofline import roofline
from hrm_edge.bench.scenarios import MIN_QUERIES, SCENARIOS, BenchOptions, Measured, Progress, Solver
from hrm_edge.bench.timing import warm_up
from hrm_edge.callbacks import OnMessage
from hrm_edge.device.identity import Device, describe_device, package_version
from hrm_edge.device.state import read_state, warnings_after, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.parity import measure as measure_parity
from hrm_edge.power import Chosen, open_meter
from hrm_edge.power.energy import idle_power, measure
from hrm_edge.power.sampler import Sampler
from hrm_edge.report.figures import latency_ms, quantile
from hrm_edge.report.schema import (
    Agreement,
    BenchReport,
    ColdStart,
    Data,
    Energy,
    Engine,
    EvalReport,
    IdlePower,
    ModelInfo,
    Power,
    Protocol,
    Reference,
    ReferenceAt,
    Roofline,
    Setup,
    Speed,
    WarmUp,
)
from hrm_edge.runtime.trt.identity import EngineParity
from hrm_edge.session import Session
from hrm_edge.solve import Progress as SolveProgress
from hrm_edge.tasks.puzzles import Puzzles

_COMPARED = 64  # puzzles that the reference answers too, at most
_LATENCY_POINTS = 60


@dataclass(frozen=True)
class Subject:
    """What is measured, as the report describes it; all below ``threads`` is a benchmark's."""

    model: ModelInfo
    data: Data
    threads: int | None = None
    parity: list[dict[str, Any]] = field(default_factory=list)
    engine_parity: EngineParity | None = None
    reference: tuple[ModelInfo, Session] | None = None
    """Float32 model to compare with in this run."""
    reference_reason: str = "no float32 artifact was named (--reference)"
    cold_start: ColdStart | None = None
    protocol: Protocol | None = None
    command: str = ""


def evaluate(
    solver: Solver,
    puzzles: Puzzles,
    subject: Subject,
    *,
    on_progress: SolveProgress | None = None,
    other: tuple[ModelInfo, Session] | None = None,
) -> EvalReport:
    """Answer ``puzzles``, N > 0, and compare with their labels.

    ``other``: a model that answers the same puzzles afterwards, to be compared puzzle by puzzle.
    """
    labels = puzzles.labels
    assert labels is not None
    began = time.perf_counter()
    solutions = solver(puzzles, on_progress=on_progress)
    duration = time.perf_counter() - began
    beside = None
    if other is not None:
        their_model, session = other
        theirs = solver(puzzles, session=session, on_progress=on_progress)
        beside = paired(solutions, theirs, labels, model=their_model, backend=session.backend, task=solver.task)
    return EvalReport(
        **dict(describe_setup(solver, subject)),
        **dict(score(solutions, labels, solver.task)),
        steps_histogram=steps_histogram(solutions),
        mean_views=float(solutions.views.mean()),
        by_views=score_by_views(solutions, labels, solver.options.views, solver.task),
        paired=beside,
        duration_s=duration,
        throughput_per_s=len(solutions) / duration,
    )


def bench(
    solver: Solver,
    puzzles: Puzzles,
    *,
    subject: Subject,
    options: BenchOptions,
    system: System | None = None,
    on_progress: Progress,
    on_message: OnMessage = lambda message: None,
) -> BenchReport:
    """Measure one scenario on ``puzzles``, N > 0, and score its answers against their labels.

    Raises ``UserError`` where the requested power meter is missing or, with ``options.strict``, where the machine is
    not ready: clocks not locked, hot, busy.
    """
    assert puzzles.labels is not None
    system = system or System()
    on_cpu = solver.session.backend.endswith("-cpu")
    chosen = open_meter(options.power, system, on_cpu=on_cpu)
    before = read_state(system)
    warnings = warnings_before(before, system)
    if options.strict and warnings:
        if chosen.meter is not None:
            chosen.meter.close()
        raise UserError("--strict: " + "; ".join(warnings), "fix that, or leave --strict out to measure all the same")
    with contextlib.nullcontext() if chosen.meter is None else Sampler(chosen.meter) as sampler:
        idle = _rest(sampler, options.idle_s, on_message)
        warm = warm_up(solver.session, puzzles.givens[: min(solver.options.slots, solver.session.max_batch)])
        measured = SCENARIOS[options.scenario](solver, puzzles, options, on_progress)
    after = read_state(system)
    power = _power(chosen, sampler, measured, idle)
    warnings += [*warnings_after(before, after), *_doubts(measured, warm, power)]
    device = describe_device(system)
    return BenchReport(
        **dict(describe_setup(solver, subject, device)),
        **dict(score(measured.solutions, puzzles.labels[: len(measured.solutions)], solver.task)),
        **dict(_speed(measured, warm, subject.cold_start)),
        **dict(_energy(power, measured)),
        **dict(_agreement(solver, puzzles.head(_COMPARED), subject)),
        steps_histogram=steps_histogram(measured.solutions),
        command=subject.command,
        scenario=options.scenario,
        protocol=subject.protocol,
        warnings=warnings,
        roofline=_roofline(solver, subject.model, measured, device, on_cpu),
        device_before=before,
        device_after=after,
    )


def _rest(sampler: Sampler | None, seconds: float, on_message: OnMessage) -> IdlePower | None:
    """Measure the machine's power at rest; None without a meter, or for 0 ``seconds``."""
    if sampler is None or seconds <= 0:
        return None
    on_message(f"measuring the machine at rest for {seconds:g} s ({sampler.meter.name})")
    began = time.monotonic()
    time.sleep(seconds)
    return idle_power(sampler, began, time.monotonic())


def _power(chosen: Chosen, sampler: Sampler | None, measured: Measured, idle: IdlePower | None) -> Power:
    if sampler is None:
        return Power(reason=chosen.reason, passed_over=chosen.passed_over, window_s=measured.duration_s)
    return measure(sampler, measured.began_s, measured.ended_s, idle, chosen.passed_over)


def _speed(measured: Measured, warm: WarmUp, cold_start: ColdStart | None) -> Speed:
    queries, timed = len(measured.latency_s), measured.timed
    ordered = sorted(measured.latency_s)
    stages = {stage: 1e3 * seconds / queries for stage, seconds in measured.stage_s.items()}
    overlap = sum(timed.batches) / len(timed.batches)
    stages["the rest"] = max(0.0, 1e3 * measured.duration_s / queries - sum(stages.values())) if overlap == 1 else 0.0
    return Speed(
        queries=queries,
        duration_s=measured.duration_s,
        cold_start=cold_start,
        warm_up=warm,
        latency_ms=latency_ms(measured.latency_s),
        latency_ms_quantiles=[round(1e3 * quantile(ordered, share / 100), 4) for share in range(101)],
        latency_trace=_latency_trace(measured),
        step_latency_ms=latency_ms(timed.step_s),
        device_step_latency_ms=latency_ms(timed.device_s) if timed.device_s else None,
        stage_ms=stages,
        mean_batch=overlap,
        throughput_per_s=queries / measured.duration_s,
        solved_per_s=measured.verified / measured.duration_s,
        pace=measured.pace,
    )


def _latency_trace(measured: Measured) -> list[tuple[float, float]]:
    """Return (s, ms): the median latency in equal parts of the window, at their middles."""
    stretch = measured.duration_s / _LATENCY_POINTS
    groups: dict[int, list[float]] = {}
    for at, seconds in zip(measured.answered_at_s, measured.latency_s, strict=True):
        groups.setdefault(min(int(at / stretch), _LATENCY_POINTS - 1), []).append(seconds)
    return [
        (round((index + 0.5) * stretch, 3), round(1e3 * quantile(sorted(group), 0.5), 4))
        for index, group in sorted(groups.items())
    ]


def _energy(power: Power, measured: Measured) -> Energy:
    """Return the energy per puzzle, attempted and solved, gross and net of the machine at rest."""
    queries, solved = len(measured.latency_s), measured.verified
    gross = power.energy_j
    net = None if gross is None or power.power_w_net is None else power.power_w_net * power.window_s
    reason = power.reason
    if reason is None and not solved:
        reason = "no puzzle was solved: there is no energy per solved puzzle"
    elif reason is None and net is None:
        reason = "the machine at rest was not measured (--idle): gross only"

    def per(joules: float | None, count: int) -> float | None:
        return joules / count if joules is not None and count else None

    return Energy(
        power=power,
        energy_j_per_puzzle=per(gross, queries),
        energy_j_per_puzzle_net=per(net, queries),
        energy_j_per_solved=per(gross, solved),
        energy_j_per_solved_net=per(net, solved),
        energy_reason=reason,
    )


def _doubts(measured: Measured, warm: WarmUp, power: Power) -> list[str]:
    """Return warnings about the measurement itself that make its figures less reliable."""
    warnings = [] if warm.stable else [f"the step never became stable in {warm.seconds:.1f} s of warm-up"]
    if len(measured.latency_s) < MIN_QUERIES:
        warnings.append(
            f"only {len(measured.latency_s)} queries: a p90 needs {MIN_QUERIES}, ask for a longer --duration"
        )
    if power.meter is not None and power.reason is not None:
        warnings.append(f"no energy figure: {power.reason}")
    if power.idle is not None and power.power_w_net is not None and power.power_w_net < power.idle.noise_w:
        warnings.append(
            f"net power {power.power_w_net:.3g} W is below the meter's noise floor of {power.idle.noise_w:.3g} W"
        )
    return warnings


def _agreement(solver: Solver, puzzles: Puzzles, subject: Subject) -> Agreement:
    """Return what is known of the model's parity, and measure that with the reference on ``puzzles``."""
    engine = None if subject.engine_parity is None else subject.engine_parity.model_dump(mode="json")
    known = Agreement(parity=subject.parity, engine_parity=engine, reference_reason=subject.reference_reason)
    if subject.reference is None:
        return known
    model, session = subject.reference
    steps = solver.options.steps_of(solver.session)
    try:
        rows = measure_parity(session, solver.session, puzzles, steps).everywhere
    except Exception as error:  # noqa: BLE001 - the window is measured by now, and must not be lost
        reason = f"running {model.path} beside it failed: {type(error).__name__}: {error}"
        return known.model_copy(update={"reference_reason": reason})
    at = [ReferenceAt(steps=r.steps, logits_sqnr_db=r.logits_sqnr_db, same_answers=r.same_answers) for r in rows]
    same = model.model_dump(include={"name", "path", "precision", "sha256"})
    reference = Reference(**same, puzzles=len(puzzles), at=at)
    return known.model_copy(update={"reference": reference, "reference_reason": None})


def _roofline(solver: Solver, model: ModelInfo, measured: Measured, device: Device, on_cpu: bool) -> Roofline:
    """Return the roofline of the median step among those of the most common batch size."""
    batches = measured.timed.batches
    common = max(set(batches), key=batches.count)
    steps = sorted(s for s, batch in zip(measured.timed.step_s, batches, strict=True) if batch == common)
    return roofline(
        solver.session.spec, model.precision, common, quantile(steps, 0.5), None if on_cpu else device.board, on_cpu
    )


def describe_setup(solver: Solver, subject: Subject, device: Device | None = None) -> Setup:
    """Return the section that every report begins with; ``device``: this machine, where it is described already."""
    session, options = solver.session, solver.options
    backend = session.backend
    arithmetic = getattr(session, "arithmetic", None)
    engine = Engine(
        backend=backend,
        version=package_version(package_of(backend)) or "unknown",
        threads=getattr(session, "threads", subject.threads),
        slots=min(options.slots, session.max_batch),
        chosen=getattr(session, "chosen", None),
        arithmetic=None if arithmetic is None else str(arithmetic),
    )
    return Setup(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=subject.model,
        engine=engine,
        device=device or describe_device(),
        data=subject.data,
        halt=options.halt,
        max_steps=options.steps_of(session),
        views=options.views,
        guesses=options.guesses_of(session),
        seed=options.seed,
    )
