"""Parity of a GPU engine with its artifact, which ONNX Runtime runs on the CPU of the same machine.

A plan built for a GPU is a different program from its graph: it has other kernels, sums in another order and fuses
operations. Its outputs are therefore measured once on the GPU that runs it, when it is built there or else when it is
first benchmarked, and the result is kept in its sidecar file.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hrm_edge import __version__
from hrm_edge.api.answers import sample_puzzles
from hrm_edge.callbacks import OnMessage
from hrm_edge.device.identity import package_version
from hrm_edge.errors import GateError, UserError
from hrm_edge.manifest import Manifest
from hrm_edge.parity import judge, measure
from hrm_edge.recipe import Limits
from hrm_edge.runtime import open_artifact, open_step
from hrm_edge.runtime.choose import step_seconds
from hrm_edge.runtime.trt.identity import Engine, EngineParity, known_parity, opened_by, record_parity
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles

FEWEST_PUZZLES = 64
# Time for ONNX Runtime: a large model on a small board is checked on fewer puzzles.
REFERENCE_S = 60.0
_BATCH = 8


def engine_limits(manifest: Manifest, puzzles: int) -> Limits:
    """Return the limits of the artifact's own parity gate, but allow at least one lost answer among ``puzzles``."""
    held, standard = manifest.gate.limits, Limits()
    sqnr = held.get("logits_sqnr_db")
    drop = max(held.get("accuracy_drop_points", standard.accuracy_drop_points), 100.0 / puzzles)
    return Limits(
        logits_median_abs_fp32=held.get("logits_median_abs", standard.logits_median_abs_fp32),
        same_answers_fp32=held.get("same_answers", standard.same_answers_fp32),
        sqnr_db_fp16=standard.sqnr_db_fp16 if sqnr is None else sqnr,
        sqnr_db_int8=standard.sqnr_db_int8 if sqnr is None else sqnr,
        carry_cosine=held.get("carry_cosine_mean", standard.carry_cosine),
        accuracy_drop_points=drop,
        accuracy_drop_points_fp16=drop,
        puzzles=puzzles,
    )


def measure_engine(session: Any, manifest: Manifest, check: Puzzles, on_message: OnMessage) -> EngineParity:
    """Compare a session's engine with ONNX Runtime on ``check`` and judge the result.

    Both run all steps without halting, on as many puzzles as ONNX Runtime answers in a minute, but at least 64. The
    result is also written to the engine's sidecar file; where that cannot be written, ``on_message`` says so.
    """
    opened = opened_by(session)
    assert opened is not None
    reference, steps = open_step(opened.artifact, manifest, None, "onnxruntime"), manifest.spec.max_steps
    per_puzzle = steps * statistics.median(step_seconds(reference, _BATCH)) / _BATCH
    check = check.head(max(FEWEST_PUZZLES, int(REFERENCE_S / per_puzzle)))
    on_message(f"comparing the engine with ONNX Runtime on {len(check)} puzzles, {steps} steps each")
    measured = measure(reference, session, check, steps)
    parity = EngineParity(
        device=opened.device,
        backend=session.backend,
        reference=f"{reference.backend} {package_version('onnxruntime')}",
        puzzles_from=check.source.path,
        after=measured.everywhere,
        held=measured.gate_row(),
        accuracy_lost_points=None if measured.drop is None else measured.drop.points,
        accuracy_lost_interval_95=None if measured.drop is None else measured.drop.interval_95,
        gate=judge(measured, manifest.precision, engine_limits(manifest, len(check)), "ONNX Runtime"),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        hrm_edge=__version__,
    )
    try:
        record_parity(opened, parity)
    # The folder is read-only.
    except UserError as error:
        on_message(f"the engine's parity is measured, but not kept: {error.problem}")
    return parity


def parity_text(parity: EngineParity) -> str:
    """Return a one-line summary for people."""
    row, points = parity.held, parity.accuracy_lost_points
    answers = "" if points is None else f", {points:+.2f} points lost"
    cosine = row.carry_cosine if row.carry_cosine_mean is None else row.carry_cosine_mean
    settled = " that both settle" * (row.over != "all")
    return (
        f"SQNR {row.logits_sqnr_db:.1f} dB, carry cosine {cosine:.4f}, {row.same_answers:.1%} same answers after "
        f"{row.steps} steps on {row.puzzles} puzzles{settled}{answers} ({parity.device})"
    )


def check_set(task_name: str, data: str | None) -> Puzzles:
    """Return puzzles to compare on: ``data``, else the package's own; ``UserError`` where it has none."""
    from hrm_edge.data.puzzles import load_puzzles

    puzzles = load_puzzles(data or sample_puzzles(task_name), get_task(task_name))
    return replace(puzzles, source=replace(puzzles.source, path=data or "the package's own puzzles"))


def check_built(out: Path, engine: Engine, on_message: OnMessage) -> tuple[EngineParity | None, str]:
    """Compare a new engine with its artifact, or say why it cannot be compared here."""
    from hrm_edge.runtime.trt.device import find_gpu

    try:
        gpu = find_gpu()
    except UserError:
        return None, "there is no GPU here"
    if gpu.sm not in engine.identity.sm:
        return None, f"it is not for the GPU here (SM{gpu.sm})"
    try:
        session, manifest = open_artifact(out, backend="tensorrt")
        puzzles = check_set(manifest.task, None)
    except UserError as error:
        return None, error.problem
    return measure_engine(session, manifest, puzzles, on_message), ""


def check_first(
    session: Any, manifest: Manifest | None, data: str | None, on_message: OnMessage
) -> EngineParity | None:
    """Return the engine's parity on this GPU, measured now where it has not been; None of a session without an engine.

    Raises ``GateError`` where a measurement of now misses the limits.
    """
    opened = opened_by(session)
    if opened is None or manifest is None:
        return None
    known = known_parity(session)
    if known is not None:
        return known
    puzzles = check_set(manifest.task, data)
    parity = measure_engine(session, manifest, puzzles, on_message)
    on_message(f"Engine beside ONNX Runtime: {parity_text(parity)}")
    refuse_failed(parity, opened.folder)
    return parity


def refuse_failed(parity: EngineParity, folder: Path) -> None:
    """Raise ``GateError`` where the gate was missed."""
    if not parity.gate.passed:
        raise GateError(
            f"the engine misses its artifact's limits on {parity.device}: {'; '.join(parity.gate.failures)}",
            f"{folder} is marked; see its engine.json. ONNX Runtime runs the artifact: --backend onnxruntime",
        )
