"""Comparison of several reports as a table, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from hrm_edge.report.compare import COLUMNS, comparison_rows, label, speed
from hrm_edge.report.schema import BenchReport
from hrm_edge.report.text import markdown_table


def comparison_table(reports: Sequence[BenchReport], failures: Sequence[str], unjudged: Sequence[str]) -> Table:
    """Return the comparison as a table for a terminal, with the gate's verdict below it."""
    first = reports[0]
    title = f"{first.scenario}, {first.data.path}: {first.halt}, {first.views} views, the first is the baseline"
    notes = "\n".join([*(f"REGRESSION {text}" for text in failures), *(f"not judged: {text}" for text in unjudged)])
    table = Table(*COLUMNS, title=title, title_justify="left", caption=notes or None, caption_justify="left")
    for cells in comparison_rows(reports):
        table.add_row(*cells)
    return table


def comparison_markdown(reports: Sequence[BenchReport], failures: Sequence[str], unjudged: Sequence[str]) -> str:
    """Return the comparison as Markdown, with each report's warnings and the gate's verdict."""
    lines = ["# hrm-edge bench --compare", "", *markdown_table(COLUMNS, comparison_rows(reports)), ""]
    lines += [f"- Warning, {label(report)}: {text}" for report in reports for text in report.warnings]
    lines += [f"- **Regression**: {text}" for text in failures] + [f"- Not judged: {text}" for text in unjudged]
    return "\n".join(lines) + "\n"


def comparison(reports: Sequence[BenchReport], failures: Sequence[str], unjudged: Sequence[str]) -> dict[str, Any]:
    """Return the comparison as a JSON document for programs."""
    return {
        "kind": "hrm-edge comparison",
        "schema_version": reports[0].schema_version,
        "regressions": list(failures),
        "not_judged": list(unjudged),
        "reports": [
            {
                "label": label(report),
                "scenario": report.scenario,
                "latency_ms": report.latency_ms.model_dump(),
                "throughput_per_s": report.throughput_per_s,
                "speed_against_first": speed(report) / speed(reports[0]),
                "exact_accuracy": report.exact_accuracy,
                "exact_accuracy_interval_95": report.exact_accuracy_interval_95,
                "energy_j_per_puzzle": report.energy_j_per_puzzle,
                "power_w_mean": report.power.power_w_mean,
                "warnings": report.warnings,
            }
            for report in reports
        ],
    }
