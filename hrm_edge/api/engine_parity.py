"""An engine is compared with its artifact when it is built where it can run, or else when it is first measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_edge.api.answers import sample_puzzles
from hrm_edge.api.callbacks import OnMessage
from hrm_edge.errors import GateError, UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles

if TYPE_CHECKING:
    from hrm_edge.manifest import Manifest
    from hrm_edge.runtime.trt.identity import Engine, EngineParity


def check_set(task_name: str, data: str | None) -> Puzzles:
    """Return puzzles to compare on: ``data``, else the package's own; ``UserError`` where it has none."""
    from hrm_edge.data.puzzles import load_puzzles

    puzzles = load_puzzles(data or sample_puzzles(task_name), get_task(task_name))
    return replace(puzzles, source=replace(puzzles.source, path=data or "the package's own puzzles"))


def check_built(out: Path, engine: Engine, on_message: OnMessage) -> tuple[EngineParity | None, str]:
    """Compare a new engine with its artifact, or say why it cannot be compared here."""
    from hrm_edge.bench.engine_parity import measure_engine
    from hrm_edge.runtime import open_artifact
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
    from hrm_edge.bench.engine_parity import measure_engine, said_of
    from hrm_edge.runtime.trt.identity import known_parity, opened_by

    opened = opened_by(session)
    if opened is None or manifest is None:
        return None
    known = known_parity(session)
    if known is not None:
        return known
    puzzles = check_set(manifest.task, data)
    parity = measure_engine(session, manifest, puzzles, on_message)
    on_message(f"Engine beside ONNX Runtime: {said_of(parity)}")
    refuse_failed(parity, opened.folder)
    return parity


def refuse_failed(parity: EngineParity, folder: Path) -> None:
    """Raise ``GateError`` where the gate was missed."""
    if not parity.gate.passed:
        raise GateError(
            f"the engine misses its artifact's limits on {parity.device}: {'; '.join(parity.gate.failures)}",
            f"{folder} is marked; see its engine.json. ONNX Runtime runs the artifact: --backend onnxruntime",
        )
