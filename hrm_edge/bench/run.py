"""Measure, score, and put both into one report. Axes: N puzzles, S cells."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Literal

from hrm_edge.bench.accuracy import answer_fields, score_by_views
from hrm_edge.bench.scenarios import SCENARIOS, Ids, Progress, Scenario, Solver
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.report import BenchReport, Data, Engine, EvalReport, Model, Power, latency_ms
from hrm_edge.solve import Progress as SolveProgress
from hrm_edge.tasks.base import Tokens

PowerChoice = Literal["auto", "none"]
_NO_POWER: dict[PowerChoice, str] = {
    "none": "not asked for (--power none)",
    "auto": "this version of hrm-edge reads no power meter yet",
}


def evaluate(
    solver: Solver, givens: Tokens, labels: Tokens, *, model: Model, data: Data, threads: int | None,
    puzzle_ids: Ids | None = None, on_progress: SolveProgress | None = None,
) -> EvalReport:  # fmt: skip
    """Answer ``givens`` [N, S], N > 0, of the puzzles [N], and compare with ``labels`` [N, S]."""
    began = time.perf_counter()
    found = solver(givens, puzzle_ids, on_progress=on_progress)
    duration = time.perf_counter() - began
    return EvalReport(
        **common_fields(solver, model, data, threads),
        **answer_fields(found, labels, solver.task),
        mean_views=float(found.views.mean()),
        by_views=score_by_views(found, labels, solver.views, solver.task),
        duration_s=duration,
        throughput_per_s=len(found) / duration,
    )


def bench(
    solver: Solver, givens: Tokens, labels: Tokens, *, model: Model, data: Data, threads: int | None,
    scenario: Scenario, duration_s: float, power: PowerChoice, parity: list[dict[str, Any]], progress: Progress,
    puzzle_ids: Ids | None = None,
) -> BenchReport:  # fmt: skip
    """Measure one scenario on ``givens`` [N, S], N > 0, of the puzzles [N]; the same answers are scored against
    ``labels`` [N, S]."""
    measured = SCENARIOS[scenario](solver, givens, duration_s, progress, puzzle_ids)
    queries = len(measured.latency_s)
    return BenchReport(
        **common_fields(solver, model, data, threads),
        **answer_fields(measured.solutions, labels[: len(measured.solutions)], solver.task),
        scenario=scenario,
        queries=queries,
        duration_s=measured.duration_s,
        warm_up=measured.warm_up,
        latency_ms=latency_ms(measured.latency_s),
        step_latency_ms=latency_ms(measured.step_s),
        mean_batch=sum(measured.batches) / len(measured.batches),
        throughput_per_s=queries / measured.duration_s,
        solved_per_s=measured.verified / measured.duration_s,
        power=Power(meter=None, power_w_mean=None, reason=_NO_POWER[power]),
        energy_j_per_puzzle=None,
        energy_reason=_NO_POWER[power],
        parity=parity,
    )


def common_fields(solver: Solver, model: Model, data: Data, threads: int | None) -> dict[str, Any]:
    """The fields that every report has besides what came of the puzzles."""
    backend = solver.session.backend
    package = backend.partition("-")[0]
    engine = Engine(
        backend=backend, version=package_version(package) or "unknown",
        threads=getattr(solver.session, "threads", threads),
        slots=min(solver.slots, solver.session.max_batch),
    )  # fmt: skip
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": model,
        "engine": engine,
        "device": describe_device(),
        "data": data,
        "halt": solver.halt,
        "max_steps": solver.max_steps,
        "views": solver.views,
        "seed": solver.seed,
    }
