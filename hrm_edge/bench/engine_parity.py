"""Parity of a GPU engine with its artifact, which ONNX Runtime runs on the CPU of the same machine.

A plan built for a GPU is a different program from its graph: it has other kernels, sums in another order and fuses
operations. Its outputs are therefore measured once on the GPU that runs it, and the result is kept in its sidecar file.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from hrm_edge import __version__
from hrm_edge.device.identity import package_version
from hrm_edge.errors import UserError
from hrm_edge.manifest import Manifest
from hrm_edge.parity import judge, measure
from hrm_edge.recipe import Limits
from hrm_edge.runtime import open_step
from hrm_edge.runtime.choose import step_seconds
from hrm_edge.runtime.trt.identity import EngineParity, opened_by, record_parity
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


def measure_engine(session: Any, manifest: Manifest, check: Puzzles, on_message: Callable[[str], None]) -> EngineParity:
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
    found = measure(reference, session, check, steps)
    parity = EngineParity(
        device=opened.device,
        backend=session.backend,
        reference=f"{reference.backend} {package_version('onnxruntime')}",
        puzzles_from=check.source.path,
        after=found.everywhere,
        held=found.gate_row(),
        accuracy_lost_points=None if found.drop is None else found.drop.points,
        accuracy_lost_interval_95=None if found.drop is None else found.drop.interval_95,
        gate=judge(found, manifest.precision, engine_limits(manifest, len(check)), "ONNX Runtime"),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        hrm_edge=__version__,
    )
    try:
        record_parity(opened, parity)
    # The folder is read-only.
    except UserError as error:
        on_message(f"the engine's parity is measured, but not kept: {error.problem}")
    return parity


def said_of(parity: EngineParity) -> str:
    """Return a one-line summary for people."""
    row, points = parity.held, parity.accuracy_lost_points
    answers = "" if points is None else f", {points:+.2f} points lost"
    cosine = row.carry_cosine if row.carry_cosine_mean is None else row.carry_cosine_mean
    settled = " that both settle" * (row.over != "all")
    return (
        f"SQNR {row.logits_sqnr_db:.1f} dB, carry cosine {cosine:.4f}, {row.same_answers:.1%} same answers after "
        f"{row.steps} steps on {row.puzzles} puzzles{settled}{answers} ({parity.device})"
    )
