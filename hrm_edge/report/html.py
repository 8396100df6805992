"""Self-contained HTML page: style, plots and data are in it, and it fits a phone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from hrm_edge.report import plots
from hrm_edge.report.compare import COLUMNS, comparison_rows, label
from hrm_edge.report.schema import BenchReport
from hrm_edge.report.text import number, rows

_STYLE = Path(__file__).with_name("page.css")


def page(reports: Sequence[BenchReport]) -> str:
    """Return the page of one report, or of several: their comparison, then each one's own part."""
    if len(reports) == 1:
        title = f"{reports[0].model.name} {reports[0].model.precision}"
        body = _one(reports[0])
    else:
        title, body = f"{len(reports)} reports", _several(reports)
    # A name or path must not begin or end a script element; JSON has another way to write "<".
    data = json.dumps([report.model_dump(mode="json") for report in reports]).replace("<", "\\u003c")
    style = _STYLE.read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - hrm-edge bench</title><style>{style}</style></head><body>"
        f"<main>\n{body}\n"
        f'<script type="application/json" id="reports">{data}</script></main></body></html>\n'
    )


def _one(report: BenchReport) -> str:
    made = f"{label(report)}. Made {report.created}, schema {report.schema_version}: {report.command}"
    return (
        f"<h1>hrm-edge bench: {escape(report.model.name)} {escape(report.model.precision)}</h1>"
        f'<p class="about">{escape(made)}</p>{_part(report)}'
    )


def _part(report: BenchReport) -> str:
    """Return all of one report but its title."""
    warnings = "".join(f'<div class="warning"><b>Warning:</b> {escape(text)}</div>' for text in report.warnings)
    drawn = [
        plots.latency_distribution([report]),
        plots.latency_over_time([report]),
        plots.steps(report),
        plots.stages(report),
        plots.power_over_time(report),
        plots.roofline([report]),
    ]
    facts = "".join(f"<tr><th>{escape(what)}</th><td>{escape(value)}</td></tr>" for what, value in rows(report))
    return (
        f'{warnings}<div class="cards">{_cards(report)}</div>{_figures(drawn)}'
        f'<h2>All figures</h2><div class="scroll"><table class="facts">{facts}</table></div>{_predictions(report)}'
    )


def _cards(report: BenchReport) -> str:
    low, high = report.exact_accuracy_interval_95
    joules = report.energy_j_per_puzzle
    cards = [
        (f"{number(report.latency_ms.p90)} ms", "p90 latency per puzzle"),
        (f"{number(report.throughput_per_s, 4)} /s", "puzzles answered"),
        (f"{report.exact_accuracy:.1%}", f"exactly right ({low:.1%} to {high:.1%}) of {report.count}"),
        (
            "–" if joules is None else f"{number(1e3 * joules)} mJ",
            "energy per puzzle" + ("" if joules is not None else " was not measured"),
        ),
        (str(report.false_verified), "wrong, yet called solved"),
    ]
    return "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in cards
    )


def _figures(drawn: Sequence[str | None]) -> str:
    return '<div class="plots">' + "".join(f"<figure>{svg}</figure>" for svg in drawn if svg is not None) + "</div>"


def _predictions(report: BenchReport) -> str:
    line = report.roofline
    if line is None:
        return ""
    cells = "".join(
        f"<tr><td>{escape(p.name)}</td><td>{number(p.step_ms_least)}</td><td>{p.bound}</td></tr>"
        for p in line.predictions
    )
    return (
        "<h2>Boards that were not measured</h2><p>Predictions: the least time that a step of this model and batch "
        f"({line.batch:g}) can take at each board's peak rates (data sheets). Launching work and memory the caches "
        "do not hold come on top.</p>"
        '<div class="scroll"><table><tr><th>board</th><th>ms per step, at least</th><th>bound by</th></tr>'
        f"{cells}</table></div><p>Measured machine: {escape(line.peaks_from)}.</p>"
    )


def _several(reports: Sequence[BenchReport]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in comparison_rows(reports)
    )
    warnings = "".join(
        f'<div class="warning"><b>Warning, {escape(label(report))}:</b> {escape(text)}</div>'
        for report in reports
        for text in report.warnings
    )
    drawn = [
        plots.accuracy_against_cost(reports),
        plots.latency_distribution(reports),
        plots.latency_over_time(reports),
        plots.roofline(reports),
    ]
    parts = "".join(f"<details><summary>{escape(label(r))}</summary>{_part(r)}</details>" for r in reports)
    return (
        f"<h1>hrm-edge bench: {len(reports)} reports side by side</h1>{warnings}"
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>{_figures(drawn)}{parts}'
    )
