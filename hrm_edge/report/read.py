"""Reader of report files, which are checked against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from hrm_edge.records import check_version, parse_record
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
    check_version(path, raw, BENCH_SCHEMA, again)
    report: BenchReport | Sweep = parse_record(
        raw, KINDS[kind], path, "the file was changed by hand or torn: measure again"
    )
    return report.points if isinstance(report, Sweep) else [report]
