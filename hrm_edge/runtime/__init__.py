"""Artifacts become sessions here. Numpy and ONNX Runtime only: this is what a device runs."""

from __future__ import annotations

from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Manifest, read_manifest
from hrm_edge.runtime.ort import OrtSession


def open_artifact(path: Path | str, threads: int | None = None) -> tuple[OrtSession, Manifest]:
    """Verify an artifact folder, hash by hash, and load its step; ``threads``: see :class:`OrtSession`.

    Raises ``UserError`` naming the file that is missing, torn or changed.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name in (STEP_FILE, STATE_FILE):
        if name not in manifest.files:
            raise UserError(f"{folder}: the manifest lists no {name}", "run 'hrm-edge export' again")
    return OrtSession(folder, manifest, threads=threads), manifest
