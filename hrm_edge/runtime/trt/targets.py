"""Precisions that run on each GPU architecture, by runtime: ``targets.json``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from hrm_edge.manifest import Precision
from hrm_edge.runtime.trt.api import Api

_TABLE = Path(__file__).with_name("targets.json")


@functools.cache
def _table() -> dict[str, Any]:
    return dict(read_json(_TABLE))


def check_targets(api: Api, sms: tuple[int, ...], precision: Precision) -> None:
    """Raise ``UserError`` where an engine of ``precision`` for architectures ``sms`` cannot be built or run."""
    rows = _table()[api.name]
    for sm in sms:
        called = f"SM{sm}"
        if api.targets and sm not in api.targets:
            known = ", ".join(f"SM{target}" for target in api.targets)
            raise UserError(
                f"{api.name} {api.version} builds for {known}, not for {called}",
                "an engine for a Jetson or a data centre GPU is built on that machine, by tensorrt: leave out --sm",
            )
        row = rows.get(str(sm))
        if row is None:
            if sm > max(map(int, rows)):
                continue  # newer than the table: TensorRT itself will say
            raise UserError(f"{api.name} has no support for {called}", "see targets.json for what it supports")
        if precision not in row["precisions"]:
            able = " and ".join(row["precisions"])
            offer = f"it runs {able}: export the model with --{row['precisions'][0]}" if able else "use ONNX Runtime"
            raise UserError(f"{api.name} does not run {precision} on {called} ({row['chips']})", offer)
