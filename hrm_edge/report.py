"""What ``eval`` and ``bench`` report: a closed, versioned schema with the unit in every name, and its renderings.

Times are seconds or milliseconds of the host's monotonic clock, sizes bytes, shares between 0 and 1. What was not
measured is null and stands beside the reason; it is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from hrm_edge.device.identity import Device

SCHEMA_VERSION = 1
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Closed):
    """Percentiles by nearest rank: p90 is the time within which 90 % of the queries were answered."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float


class Model(_Closed):
    """Which model was measured."""

    name: str
    path: str
    kind: Literal["artifact", "checkpoint"]
    task: str
    variant: str
    precision: str
    parameters: int
    size_bytes: int = Field(description="all files of the artifact, or the weights of the checkpoint")
    sha256: str | None = Field(description="of the step's graph; null for a checkpoint")
    gate_passed: bool | None = Field(description="of the export; null for a checkpoint")


class Engine(_Closed):
    """What ran the step."""

    backend: str
    version: str
    threads: int | None = Field(description="of one step; null: the backend's default")
    slots: int = Field(description="puzzles in the batch at most")


class Data(_Closed):
    """Which puzzles were answered."""

    path: str
    task: str
    puzzles: int = Field(description="in the set, after --limit")
    answers: Literal["data", "solver"] = Field(description="where the right answers are from")


class Answers(_Closed):
    """What came of the puzzles; every different puzzle counts once."""

    count: int
    exact_accuracy: float = Field(description="share whose whole answer is the right one")
    exact_accuracy_interval_95: tuple[float, float] = Field(description="Wilson score interval")
    verified: int = Field(description="puzzles whose answer obeys the rules and keeps the givens")
    false_verified: int = Field(description="verified puzzles whose answer is not right; of mazes: no shortest path")
    mean_steps: float = Field(description="ACT steps per puzzle, all views together")
    optimal: int | None = Field(default=None, description="mazes whose path is right and a shortest one; else null")


class AtViews(Answers):
    """The same, had the solver stopped after so many views."""

    views: int


class _Report(Answers):
    schema_version: int = SCHEMA_VERSION
    created: str = Field(description="UTC, ISO 8601")
    model: Model
    engine: Engine
    device: Device
    data: Data
    halt: str
    max_steps: int = Field(description="of one view")
    views: int = Field(description="tried per puzzle at most")
    seed: int
    steps_histogram: dict[int, int] = Field(description="ACT steps → puzzles")


class ArcAtViews(_Closed):
    """ARC Prize's measure after voting over so many augmentations of every task."""

    views: int
    pass_at_1: float = Field(description="share of a task's questions answered at the first attempt, mean over tasks")
    pass_at_2: float
    solved_at_1: int = Field(description="tasks with all their questions answered")
    solved_at_2: int


class ArcVotes(_Closed):
    """What voting made of the answers to augmented questions."""

    tasks: int = Field(description="whose answers are known")
    questions: int
    asked: int = Field(description="questions, those without a known answer included")
    by_views: list[ArcAtViews] = Field(description="empty where no answer is known")


class EvalReport(_Report):
    """``hrm-edge eval``; of ARC the counts are of augmented questions with known answers, ``arc`` tells the score."""

    kind: Literal["hrm-edge eval"] = "hrm-edge eval"
    arc: ArcVotes | None = None
    mean_views: float
    by_views: list[AtViews]
    duration_s: float
    throughput_per_s: float = Field(description="puzzles per second, accuracy run: no warm-up")


class Power(_Closed):
    """Reading of a power meter over the measured window."""

    meter: str | None
    power_w_mean: float | None
    reason: str | None = Field(description="why there is no reading")


class WarmUp(_Closed):
    """Steps before the clock started."""

    steps: int
    seconds: float
    stable: bool = Field(description="the last two windows' medians agreed")


class BenchReport(_Report):
    """``hrm-edge bench``."""

    kind: Literal["hrm-edge bench"] = "hrm-edge bench"
    scenario: Literal["single-stream", "offline"]
    queries: int = Field(description="puzzles answered in the window; more than count when the set was gone round")
    duration_s: float
    warm_up: WarmUp
    latency_ms: Latency = Field(description="per puzzle: single-stream end to end, offline from slot to answer")
    step_latency_ms: Latency = Field(description="per ACT step of the whole batch")
    mean_batch: float
    throughput_per_s: float = Field(description="puzzles answered per second")
    solved_per_s: float = Field(description="verified puzzles per second")
    power: Power
    energy_j_per_puzzle: float | None
    energy_reason: str | None = Field(description="why there is no energy figure")
    parity: list[dict[str, Any]] = Field(description="of the artifact against the torch model, as its manifest says")


Report = EvalReport | BenchReport


def latency_ms(seconds: Sequence[float]) -> Latency:
    """Percentiles of at least one duration, in milliseconds."""
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return 1e3 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    mean = 1e3 * math.fsum(ordered) / len(ordered)
    return Latency(p50=rank(0.5), p90=rank(0.9), p99=rank(0.99), mean=mean, min=1e3 * ordered[0])


def wilson_95(successes: int, count: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927); it stays within 0 and 1 and is not empty at 0 or 100 %."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, Z_95 * Z_95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == count else centre + half)


# -- renderings -------------------------------------------------------------------------------------------------

Row = tuple[str, str]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _accuracy(answers: Answers) -> str:
    low, high = answers.exact_accuracy_interval_95
    return f"{_percent(answers.exact_accuracy)} (95 %: {100 * low:.2f} to {100 * high:.2f})"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _latency(latency: Latency) -> str:
    named = ((name, getattr(latency, name)) for name in ("p50", "p90", "p99", "mean", "min"))
    return ", ".join(f"{name} {value:.3g}" for name, value in named)


def rows(report: Report) -> list[Row]:
    """The report for people: (what, value with its unit), most important first."""
    model, engine, data = report.model, report.engine, report.data
    about = f"{model.variant}, {model.precision}, {model.parameters:,} parameters, {_size(model.size_bytes)}"
    found: list[Row] = [
        ("model", f"{model.name}: {about}"),
        ("data", f"{data.path}: {report.count} {data.task} puzzles, answers from the {data.answers}"),
        ("halting", f"{report.halt}, steps per view at most {report.max_steps}, views at most {report.views}"),
        *_answer_rows(report),
        ("steps per puzzle", f"mean {report.mean_steps:.2f}"),
    ]
    if isinstance(report, BenchReport):
        found += _bench_rows(report)
    else:
        found.append(("duration", f"{report.duration_s:.2f} s, {report.throughput_per_s:.4g} puzzles/s"))
    threads = "default" if engine.threads is None else engine.threads
    found.append(("engine", f"{engine.backend} {engine.version}, threads {threads}, slots {engine.slots}"))
    device = report.device
    found.append(("device", f"{device.machine or device.cpu}, {device.cores} cores, {_size(device.memory_bytes)}"))
    return found


def _answer_rows(report: Report) -> list[Row]:
    arc = report.arc if isinstance(report, EvalReport) else None
    if arc is not None:
        found = [("pass@1, pass@2", f"{_percent(at.pass_at_1)}, {_percent(at.pass_at_2)}") for at in arc.by_views[-1:]]
        known = f"{arc.questions} questions of {arc.tasks} tasks" if arc.questions else "not known"
        found.append(("answers", f"{known}, {arc.asked} asked"))
        return [*found, ("augmented, exact", f"{_accuracy(report)} of {report.count} before voting")]
    wrong = f"{report.false_verified} of them wrong"
    found = [("exact accuracy", _accuracy(report))]
    if report.optimal is not None:
        found.append(("valid and optimal", f"{report.optimal} of {report.count}"))
        wrong = f"{report.false_verified} of them longer than the shortest path"
    return [*found, ("verified", f"{report.verified} of {report.count}, {wrong}")]


def _bench_rows(report: BenchReport) -> list[Row]:
    stable = "" if report.warm_up.stable else " (never became stable)"
    found = [
        ("scenario", f"{report.scenario}, {report.queries} queries in {report.duration_s:.2f} s"),
        ("latency per puzzle, ms", _latency(report.latency_ms)),
        ("latency per step, ms", f"{_latency(report.step_latency_ms)}, mean batch {report.mean_batch:.3g}"),
        ("throughput", f"{report.throughput_per_s:.4g} puzzles/s, {report.solved_per_s:.4g} solved/s"),
        ("warm-up", f"{report.warm_up.steps} steps, {report.warm_up.seconds:.2f} s{stable}"),
    ]
    for parity in report.parity[-1:]:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in parity.items())
        found.append(("parity with torch", figures))
    power, energy = report.power.power_w_mean, report.energy_j_per_puzzle
    found.append(
        ("power", f"{power:.3g} W by {report.power.meter}" if power is not None else f"– {report.power.reason}")
    )
    found.append(("energy", f"{energy:.3g} J per puzzle" if energy is not None else f"– {report.energy_reason}"))
    return found


def _view_rows(report: Report) -> list[tuple[str, ...]]:
    """A heading and a row for each number of views; empty where there was one."""
    if not isinstance(report, EvalReport):
        return []
    if report.arc is not None:
        shares = [(at, _percent(at.pass_at_1), _percent(at.pass_at_2)) for at in report.arc.by_views]
        cells = [(f"{at.views}", *two, f"{at.solved_at_1}", f"{at.solved_at_2}") for at, *two in shares]
        return [("views", "pass@1", "pass@2", "tasks solved at 1", "at 2"), *cells] if len(cells) > 1 else []
    if len(report.by_views) < 2:
        return []
    return [
        ("views", "exact accuracy", "verified", "of them wrong", "mean steps"),
        *(
            (str(at.views), _accuracy(at), str(at.verified), str(at.false_verified), f"{at.mean_steps:.2f}")
            for at in report.by_views
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Rich tables for a terminal."""
    main = Table(title=report.kind, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    main.add_column(style="bold", no_wrap=True)
    main.add_column(overflow="fold")
    for row in rows(report):
        main.add_row(*row)
    found = [main]
    if view_rows := _view_rows(report):
        views = Table(*view_rows[0], title="by views", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for cells in view_rows[1:]:
            views.add_row(*cells)
        found.append(views)
    return found


def markdown(report: Report) -> str:
    """The same as Markdown, ending in a newline."""
    lines = [f"# {report.kind}: {report.model.name}", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(what)} | {_cell(value)} |" for what, value in rows(report)]
    if view_rows := _view_rows(report):
        rendered = ["| " + " | ".join(map(_cell, cells)) + " |" for cells in view_rows]
        lines += ["", rendered[0], "|" + "---|" * len(view_rows[0]), *rendered[1:]]
    return "\n".join([*lines, "", f"Made {report.created}, schema {report.schema_version}."]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
