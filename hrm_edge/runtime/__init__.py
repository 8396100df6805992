"""Artifacts become sessions here, by ONNX Runtime or TensorRT. No torch: this is what a device runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Manifest, read_manifest
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE
from hrm_edge.session import Session

Backend = Literal["onnxruntime", "tensorrt"]


def open_artifact(
    path: Path | str, threads: int | None = None, backend: Backend | None = None
) -> tuple[Session, Manifest]:
    """Verify an artifact folder, hash by hash, and load its step.

    ``backend``: by default TensorRT where the folder holds an engine, else ONNX Runtime on the CPU, which ``threads``
    is for. Raises ``UserError`` naming what is missing, torn, or not valid on this machine.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name in (STEP_FILE, STATE_FILE):
        if name not in manifest.files:
            raise UserError(f"{folder}: the manifest lists no {name}", "run 'hrm-edge export' again")
    holds_engine = any((folder / name).exists() for name in (PLAN_FILE, SIDECAR_FILE))
    if backend == "onnxruntime" or (backend is None and not holds_engine):
        return OrtSession(folder, manifest, threads=threads), manifest
    if threads is not None:
        raise UserError("--threads is for ONNX Runtime", "leave it out, or add --backend onnxruntime")
    from hrm_edge.runtime.trt.open import open_engine

    return open_engine(folder, manifest), manifest
