"""Artifacts become sessions here: ONNX Runtime, OpenVINO, TensorRT, our own code. No torch: a device runs this."""

from __future__ import annotations

from pathlib import Path

from hrm_edge.backends import DeviceBackend
from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Manifest, read_manifest
from hrm_edge.runtime.arithmetic import Arithmetic
from hrm_edge.runtime.host import HostSession
from hrm_edge.runtime.native.session import NativeSession, available
from hrm_edge.runtime.ort import OrtSession, int8_arithmetic
from hrm_edge.runtime.step import open_step as open_step
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE
from hrm_edge.session import Session


def open_artifact(
    path: Path | str, threads: int | None = None, backend: DeviceBackend | None = None, *, slots: int = 1
) -> tuple[Session, Manifest]:
    """Verify an artifact folder, hash by hash, and load its step.

    ``backend``: by default TensorRT where the folder holds an engine, else ONNX Runtime on the CPU, or our own step
    where ONNX Runtime's 8-bit products are not exact on this processor; "auto" is the fastest of the CPU's by
    measurement (``hrm_edge.runtime.choose``) for ``slots`` puzzles at a time. ``threads`` of one step, on the CPU.
    Raises ``UserError`` naming what is missing, torn, or not valid on this machine.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name in (STEP_FILE, STATE_FILE):
        if name not in manifest.files:
            raise UserError(f"{folder}: the manifest lists no {name}", "run 'hrm-edge export' again")
    if backend is None:
        holds_engine = any((folder / name).exists() for name in (PLAN_FILE, SIDECAR_FILE))
        if not holds_engine:
            return _open_on_cpu(folder, manifest, threads), manifest
        backend = "tensorrt"
    if backend == "auto":
        from hrm_edge.runtime.choose import fastest

        return fastest(folder, manifest, threads, slots=slots), manifest
    if backend == "tensorrt":
        refuse_threads(threads)
        from hrm_edge.runtime.trt.open import open_engine

        return open_engine(folder, manifest), manifest
    return open_step(folder, manifest, threads, backend), manifest


def refuse_threads(threads: int | None) -> None:
    """Raise ``UserError`` where a number of threads is given for a GPU."""
    if threads is not None:
        raise UserError("--threads is for the CPU's backends", "leave it out, or add --backend onnxruntime")


def _open_on_cpu(folder: Path, manifest: Manifest, threads: int | None) -> HostSession:
    """Open a verified artifact by ONNX Runtime, or by our own step where it serves and ONNX Runtime is not exact."""
    known = int8_arithmetic() if manifest.precision == "int8" else None
    if known is not None and known.products != "int8" and available(manifest):
        session = NativeSession(folder, manifest, threads=threads)
        session.arithmetic = Arithmetic("int8", known.why)
        return session
    return OrtSession(folder, manifest, threads=threads)
