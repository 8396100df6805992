"""Schema of the reports. Times are in s or ms of the host's monotonic clock, sizes in bytes, shares from 0 to 1."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hrm_edge.device.identity import Device
from hrm_edge.device.state import DeviceState
from hrm_edge.records import Record

EVAL_SCHEMA: Literal[1] = 1
BENCH_SCHEMA: Literal[2] = 2

Scenario = Literal["single-stream", "offline", "camera"]


def _publishable(path: str) -> str:
    return PurePath(path).name if PurePath(path).is_absolute() else path


PublishedPath = Annotated[str, AfterValidator(_publishable)]
"""Path as it was given; of an absolute path only the last part, because folders of a machine mean nothing elsewhere."""


def _publishable_words(command: str) -> str:
    words = (word.partition("=") if word.startswith("--") else ("", "", word) for word in shlex.split(command))
    return shlex.join(name + equals + _publishable(value) for name, equals, value in words)


PublishedCommand = Annotated[str, AfterValidator(_publishable_words)]
"""Shell command; only the last part of each absolute path in it."""


class Latency(Record):
    """Percentiles by nearest rank: p90 is the time within which 90 % of the queries were answered."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float


class ModelInfo(Record):
    """Model that was measured."""

    name: str
    path: PublishedPath
    kind: Literal["artifact", "checkpoint"]
    task: str
    variant: str
    precision: str
    parameters: int
    size_bytes: int = Field(description="all files of the artifact, or the weights of the checkpoint")
    sha256: str | None = Field(description="of the step's graph; null for a checkpoint")
    gate_passed: bool | None = Field(description="of the export; null for a checkpoint")


class Engine(Record):
    """Engine that ran the step."""

    backend: str
    version: str
    threads: int | None = Field(description="of one step; null: the backend's default")
    slots: int = Field(description="puzzles in the batch at most")
    chosen: str | None = Field(default=None, description="by which trial, where the backend was chosen by measurement")
    arithmetic: str | None = Field(
        default=None, description="how INT8 products are computed; null for other precisions"
    )


class Data(Record):
    """Puzzles that were answered."""

    path: PublishedPath
    task: str
    puzzles: int = Field(description="in the set, after --limit")
    answers: Literal["data", "solver", "data and solver"] = Field(description="where the right answers are from")
    read_as: str | None = Field(default=None, description="what the file was taken for")
    sha256: str | None = Field(default=None, description="of the givens, row by row: the same for the same puzzles")


class Answers(Record):
    """Accuracy of the answers; every distinct puzzle counts once."""

    count: int
    exact_accuracy: float = Field(description="share whose whole answer is the right one")
    exact_accuracy_interval_95: tuple[float, float] = Field(description="Wilson score interval")
    verified: int = Field(description="puzzles whose answer obeys the rules and keeps the givens")
    false_verified: int = Field(description="verified puzzles whose answer is not right; of mazes: no shortest path")
    mean_steps: float = Field(description="ACT steps per puzzle, all views together")
    optimal: int | None = Field(default=None, description="mazes whose path is right and a shortest one; else null")


class AtViews(Answers):
    """Accuracy if the solver had stopped after so many views."""

    views: int


class Setup(Record):
    """What was measured, on what, and how."""

    created: str = Field(description="UTC, ISO 8601")
    model: ModelInfo
    engine: Engine
    device: Device
    data: Data
    halt: str
    max_steps: int = Field(description="of one view")
    views: int = Field(description="tried per puzzle at most")
    guesses: int = Field(default=0, description="cells guessed in each view after the first")
    seed: int


# A report is flat in its file: a section is a base class here, made as a value by what measures it. The fields stand in
# the file in the order of the last base to the first, then the class's own.
class _Report(Setup, Answers):
    steps_histogram: dict[int, int] = Field(description="ACT steps → puzzles")


class ArcAtViews(Record):
    """ARC Prize's score after votes from so many augmentations of every task."""

    views: int
    pass_at_1: float = Field(description="share of a task's questions answered at the first attempt, mean over tasks")
    pass_at_2: float
    solved_at_1: int = Field(description="tasks with all their questions answered")
    solved_at_2: int


class CellAccuracy(Record):
    """Share of single cells answered rightly, whether or not the rest of the grid is right."""

    grid: float = Field(description="of the cells of the right answers' grids")
    canvas: float = Field(description="of all 900 cells of the canvas, end markers and padding included")


class ArcCells(Record):
    """Cell accuracy on the questions without augmentation, and that of two baselines without a model."""

    questions: int = Field(description="whose answers are known")
    model: CellAccuracy = Field(description="answers without augmentation and votes, laid on an empty canvas")
    copied_input: CellAccuracy = Field(description="the question's own grid as its answer")
    commonest_colour: CellAccuracy = Field(description="a grid of the question's size in its most frequent colour")


class ArcVotes(Record):
    """Score after voting over the answers to augmented questions."""

    tasks: int = Field(description="whose answers are known")
    questions: int
    asked: int = Field(description="questions, those without a known answer included")
    by_views: list[ArcAtViews] = Field(description="empty where no answer is known")
    cells: ArcCells | None = Field(default=None, description="none where no answer is known")


class Paired(Record):
    """Comparison with another model on the same puzzles, each halting by itself: the difference in exact accuracy."""

    model: ModelInfo
    backend: str
    exact_accuracy: float
    exact_accuracy_interval_95: tuple[float, float]
    false_verified: int
    mean_steps: float
    only_other: int = Field(description="puzzles that the other model answers rightly and this one does not")
    only_this: int
    lost_points: float = Field(description="exact accuracy of the other model minus that of this one, in points")
    lost_points_interval_95: tuple[float, float] = Field(description="of paired shares (Agresti and Min 2005)")


class EvalReport(_Report):
    """Report of ``hrm-edge eval``. For ARC, ``arc`` has the score; the counts are of augmented
    questions with labels.
    """

    schema_version: Literal[1] = EVAL_SCHEMA
    kind: Literal["hrm-edge eval"] = "hrm-edge eval"
    arc: ArcVotes | None = None
    paired: Paired | None = None
    mean_views: float
    by_views: list[AtViews]
    duration_s: float
    throughput_per_s: float = Field(description="puzzles per second, accuracy run: no warm-up")


class WarmUp(Record):
    """Steps before the measurement."""

    steps: int
    seconds: float
    stable: bool = Field(description="the last windows' medians agreed")


class ColdStart(Record):
    """Times from the start of the process to its first answer, which a user waits for."""

    process_ms: float = Field(description="start of the process to the first line of the command")
    load_ms: float = Field(description="model verified and opened")
    first_answer_ms: float = Field(description="the first puzzle, nothing warm")
    total_ms: float = Field(description="start of the process to the first answer, reading the puzzles included")


class Pace(Record):
    """Frames of the camera scenario: each brings a puzzle, and only the newest is taken."""

    frames_per_s: float
    frames: int = Field(description="that came within the window")
    dropped: int = Field(description="for which the solver had no time")


class ReferenceAt(Record):
    """Agreement with the reference after so many steps, each engine continuing from its own carry."""

    steps: int
    logits_sqnr_db: float
    same_answers: float = Field(description="share of the puzzles whose decoded answer is the reference's")


class Reference(Record):
    """Comparison of the measured engine with a float32 one, on puzzles of this run."""

    name: str
    path: PublishedPath
    precision: str
    sha256: str | None
    puzzles: int
    at: list[ReferenceAt]


class Prediction(Record):
    """Shortest possible step on a board that was not measured, by its peak rates: a bound, not a measurement."""

    board: str
    name: str
    step_ms_least: float
    bound: Literal["compute", "memory"]


class Roofline(Record):
    """Rates of one step of the measured batch against the machine's compute and memory rates."""

    batch: float
    flop_per_step: float
    bytes_per_step: float = Field(description="weights, carry in and out, logits: each moved once")
    measured_flop_per_s: float
    peak_flop_per_s: float | None = Field(description="null where neither a table nor a trial gives it")
    peak_bytes_per_s: float | None
    peaks_from: str
    predictions: list[Prediction]


class Protocol(Record):
    """Named protocol that this run followed."""

    name: str
    sha256: str
    changed: dict[str, Any] = Field(description="settings that the command line changed; a citable run has none")


class Gap(Record):
    """Time in which the sensor gave no reading for longer than a few of its periods."""

    begin_s: float = Field(description="since the window began")
    seconds: float


class RailPower(Record):
    """Power of one rail within the window; a rail outside the total is a part of one in it, or separate from it."""

    name: str
    in_total: bool
    power_w_mean: float | None
    power_w_min: float
    power_w_max: float
    negative_readings: int = Field(description="kept as they are: a sensor's offset when the rail is idle")


class IdlePower(Record):
    """Power of the machine at rest, before the warm-up, with the model loaded."""

    seconds: float
    samples: int
    power_w_mean: float
    noise_w: float = Field(description="standard deviation of single readings at rest: the noise floor")


class Power(Record):
    """Power and energy over the measured window, by one meter.

    A value that was not measured is null, with a reason; it is never 0.
    """

    meter: str | None = None
    sensor: str | None = Field(default=None, description="what was read")
    scope: str | None = Field(default=None, description="which rails are added, and what that covers")
    power_w_mean: float | None = Field(default=None, description="gross, of the part of the window that was covered")
    power_w_standard_error: float | None = Field(default=None, description="of the mean, from blocks of the window")
    blocks: int = 0
    power_w_net: float | None = Field(default=None, description="mean less the mean at rest")
    energy_j: float | None = Field(default=None, description="gross, of the window; null where a gap is in it")
    energy_from: Literal["integrated power", "counter"] | None = None
    energy_j_integrated: float | None = Field(default=None, description="where there is a counter too: the check of it")
    window_s: float = 0.0
    covered_share: float = Field(default=0.0, description="of the window, between readings close enough together")
    samples: int = Field(default=0, description="within the window")
    largest_gap_s: float | None = Field(default=None, description="between readings in or around the window")
    gaps: list[Gap] = Field(default=[])
    failures: int = Field(default=0, description="reads that failed within the window")
    idle: IdlePower | None = None
    rails: list[RailPower] = Field(default=[])
    trace: list[tuple[float, float]] = Field(
        default=[], description="(s since the window began, W) from the first reading on, thinned out"
    )
    notes: list[str] = Field(default=[])
    passed_over: list[str] = Field(default=[], description="meters that were not taken, and why")
    reason: str | None = Field(default=None, description="why there is no energy figure")


class Speed(Record):
    """Times and rates of a scenario."""

    queries: int = Field(description="puzzles answered in the window; more than count when the set was gone round")
    duration_s: float
    cold_start: ColdStart | None = Field(default=None, description="null where the process had done something before")
    warm_up: WarmUp
    latency_ms: Latency = Field(
        description="per puzzle: single-stream end to end, offline from slot to answer, "
        "camera from the frame to the answer"
    )
    latency_ms_quantiles: list[float] = Field(description="0 %, 1 % … 100 % of the queries")
    latency_trace: list[tuple[float, float]] = Field(description="(s since the window began, median ms around then)")
    step_latency_ms: Latency = Field(description="per ACT step of the whole batch")
    device_step_latency_ms: Latency | None = Field(default=None, description="the same by the GPU's events")
    stage_ms: dict[str, float] = Field(description="mean per puzzle: encode, step, halt check, decode, the rest")
    mean_batch: float
    throughput_per_s: float = Field(description="puzzles answered per second")
    solved_per_s: float = Field(description="verified puzzles per second")
    pace: Pace | None = None


class Energy(Record):
    """Power over the window, and the energy of a puzzle."""

    power: Power
    energy_j_per_puzzle: float | None = Field(description="gross, per attempted puzzle")
    energy_j_per_puzzle_net: float | None = Field(description="less what the machine at rest draws")
    energy_j_per_solved: float | None = Field(description="gross, per puzzle with a verified answer")
    energy_j_per_solved_net: float | None
    energy_reason: str | None = Field(description="why one of the energy figures is missing")


class Agreement(Record):
    """How near the measured step is to other ones of the same model."""

    parity: list[dict[str, Any]] = Field(description="of the artifact against the torch model, as its manifest says")
    engine_parity: dict[str, Any] | None = Field(
        default=None, description="of a GPU's engine against the artifact in ONNX Runtime, as its sidecar says"
    )
    reference: Reference | None = None
    reference_reason: str | None = Field(default=None, description="why nothing was compared in this run")


class _BenchHead(_Report):
    schema_version: Literal[2] = BENCH_SCHEMA
    kind: Literal["hrm-edge bench"] = "hrm-edge bench"
    command: PublishedCommand = Field(description="that made this report")
    scenario: Scenario
    protocol: Protocol | None = None
    warnings: list[str] = Field(description="what makes these figures worth less; empty in a clean run")


class BenchReport(Agreement, Energy, Speed, _BenchHead):
    """Report of ``hrm-edge bench``."""

    roofline: Roofline | None = None
    device_before: DeviceState
    device_after: DeviceState


class Sweep(Record):
    """Reports of ``hrm-edge bench --sweep``, one for every point."""

    schema_version: Literal[2] = BENCH_SCHEMA
    kind: Literal["hrm-edge sweep"] = "hrm-edge sweep"
    created: str
    command: PublishedCommand
    axes: list[str]
    points: list[BenchReport]
    failed: dict[str, str] = Field(description="point → why it could not be measured")


Report = EvalReport | BenchReport
