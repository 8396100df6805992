"""Artifacts become sessions here. Numpy and the runtimes only: this is what a device runs."""

from __future__ import annotations

from pathlib import Path

from hrm_edge.errors import UserError, nearest
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Manifest, read_manifest
from hrm_edge.runtime.host import HostSession
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.runtime.ov import OpenVinoSession

AUTO = "auto"
DEFAULT_BACKEND = "onnxruntime"
BACKENDS = (DEFAULT_BACKEND, "openvino", "openvino-bf16")


def open_artifact(
    path: Path | str, threads: int | None = None, backend: str = DEFAULT_BACKEND
) -> tuple[HostSession, Manifest]:
    """Verify an artifact folder, hash by hash, and load its step.

    ``threads`` of one step (None: the backend's default). ``backend``: one of ``BACKENDS``; ``AUTO``: the fastest of
    those here that keep the artifact's precision, by measurement (``hrm_edge.runtime.choose``).
    Raises ``UserError`` naming the file that is missing, torn or changed, or what the backend lacks.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name in (STEP_FILE, STATE_FILE):
        if name not in manifest.files:
            raise UserError(f"{folder}: the manifest lists no {name}", "run 'hrm-edge export' again")
    if backend == AUTO:
        from hrm_edge.runtime.choose import fastest

        return fastest(folder, manifest, threads).session, manifest
    return open_step(folder, manifest, threads, backend), manifest


def open_step(folder: Path, manifest: Manifest, threads: int | None, backend: str) -> HostSession:
    """The step of a verified artifact on one backend."""
    if backend == "onnxruntime":
        return OrtSession(folder, manifest, threads=threads)
    if backend in ("openvino", "openvino-bf16"):
        return OpenVinoSession(folder, manifest, threads=threads, bf16=backend.endswith("bf16"))
    raise UserError(f"unknown backend '{backend}'", nearest(backend, (*BACKENDS, AUTO)))
