"""An artifact in one call, for tests: prepared, then written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm_edge.export.artifact import prepare_export, write_artifact
from hrm_edge.manifest import Manifest, Precision
from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Limits


def export(
    model: HRM,
    info: Any,
    out: Path,
    *,
    precision: Precision,
    limits: Limits | None = None,
    plugin: bool = False,
    **calibrated: Any,
) -> Manifest:
    """Write the artifact of ``model`` and return its manifest; ``calibrated``: see ``prepare_export``."""
    prepared = prepare_export(model, info.task, precision=precision, limits=limits, **calibrated)
    return write_artifact(model, info, prepared, out, limits=limits, plugin=plugin)
