"""Reader of report files, which are checked against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from hrm_edge.report.schema import BENCH_SCHEMA, BenchReport, Sweep

KINDS: dict[str, type[BenchReport] | type[Sweep]] = {"hrm-edge bench": BenchReport, "hrm-edge sweep": Sweep}


def read_bench(path: Path | str) -> list[BenchReport]:
    """Return the report in a file of ``bench --json``, or all points of a sweep. Raises ``UserError`` for others."""
    return parse_bench(read_json(path), str(path))


def parse_bench(raw: Any, path: str) -> list[BenchReport]:
    """Return the report, or the points of a sweep, that was read from ``path`` as JSON."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    again = "give a file that 'hrm-edge bench --json' of this version wrote"
    if kind not in KINDS:
        raise UserError(f"{path} is no bench report" + (f" but a '{kind}'" if kind else ""), again)
    version = raw.get("schema_version")
    if version != BENCH_SCHEMA:
        raise UserError(f"{path}: schema_version is {version}, this hrm-edge reads {BENCH_SCHEMA}", again)
    try:
        found: BenchReport | Sweep = KINDS[kind].model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {where}: {first['msg']}", "the file was changed by hand or torn: measure again"
        ) from error
    return found.points if isinstance(found, Sweep) else [found]
