"""Records as tables: one machine's rows, and those of all machines."""

from __future__ import annotations

from collections.abc import Sequence

from hrm_edge.record.archive import MachineRecord
from hrm_edge.record.schema import OWN_PUZZLES, Row
from hrm_edge.report.schema import BenchReport
from hrm_edge.report.text import markdown_table, number
from hrm_edge.terminal import visible

COLUMNS = (
    "model",
    "backend",
    "power mode",
    "ms a puzzle p50 / p90",
    "exactly right (95 %)",
    "against float32",
    "J a puzzle",
    "°C",
    "warnings",
)
NOTHING = "No board or card was recorded yet."
_NOT_MEASURED = "not measured"


def _cells(row: Row, report: BenchReport) -> tuple[str, ...]:
    """Return the cells of :data:`COLUMNS` for a measured row."""
    low, high = report.exact_accuracy_interval_95
    joules = report.energy_j_per_puzzle
    return (
        row.model if row.model.endswith(row.precision) else f"{row.model} {row.precision}",
        report.engine.backend,
        row.power_mode or report.device_before.power_mode or "–",
        f"{number(report.latency_ms.p50)} / {number(report.latency_ms.p90)}",
        f"{report.exact_accuracy:.1%} ({low:.1%} to {high:.1%}) of {report.count}",
        _agreement(report),
        _NOT_MEASURED if joules is None else number(joules),
        _warmth(report),
        str(len(report.warnings)),
    )


def _agreement(report: BenchReport) -> str:
    """Return how near the row is to its reference: an engine to its artifact, another precision to float32."""
    if report.engine_parity is not None:
        held = report.engine_parity["held"]
        return f"{held['logits_sqnr_db']:.1f} dB, {held['same_answers']:.1%} same (engine)"
    if report.reference is not None:
        last = report.reference.at[-1]
        return f"{last.logits_sqnr_db:.1f} dB, {last.same_answers:.1%} same"
    return "it is float32" if report.model.precision == "fp32" else _NOT_MEASURED


def _warmth(report: BenchReport) -> str:
    """Return the hottest sensor before and after the row."""
    before, after = report.device_before.temperatures_c, report.device_after.temperatures_c
    return f"{max(before.values()):.0f} to {max(after.values()):.0f}" if before and after else _NOT_MEASURED


def rows_of(record: MachineRecord) -> list[tuple[str, ...]]:
    """Return the cells of every measured row."""
    return [_cells(row, record.reports[row.name]) for row in record.about.rows if row.name in record.reports]


def machine_of(record: MachineRecord) -> str:
    """Return the machine's name: a board by its module, a card by its GPU, else the product or processor."""
    device = record.about.device
    return device.module or ", ".join(device.gpus) or device.machine or device.cpu


def problems_of(record: MachineRecord) -> list[str]:
    """Return what is not in the table, and why."""
    failed = [f"{row.name}: {row.problem}" for row in record.about.rows if row.problem is not None]
    waiting = [row for row in record.about.rows if row.problem is None and row.name not in record.reports]
    return [*failed, *(f"{row.name}: not yet measured" for row in waiting), *record.about.notes]


def warnings_of(record: MachineRecord) -> list[str]:
    """Return what may have disturbed a row."""
    return [f"{name}: {'; '.join(report.warnings)}" for name, report in record.reports.items() if report.warnings]


def markdown(record: MachineRecord) -> str:
    """Return one record as a page: machine, settings, rows, and what could not be measured."""
    about = record.about
    device, settings = about.device, about.settings
    jetpack = f", JetPack {device.jetpack}" if device.jetpack else ""
    how = f"at least {settings.duration_s:g} s and 64 puzzles a row, one after another, {settings.puzzles}"
    cores = f"{device.cores} core" + "s" * (device.cores != 1)
    machine = f"{device.cpu}, {cores}, {device.os}{jetpack}"
    lines = [
        f"# {machine_of(record)}",
        "",
        f"hrm-edge {about.hrm_edge}, {about.created[:10]}; {machine}; {how}.",
        "",
        *markdown_table(COLUMNS, rows_of(record)),
        "",
    ]
    lists = {"Warnings": warnings_of(record), "Not measured": problems_of(record)}
    for title, texts in lists.items():
        lines += [f"{title}:", "", *(f"- {text}" for text in texts), ""] if texts else []
    return "\n".join(lines)


def boards_table(records: Sequence[MachineRecord]) -> str:
    """Return all records as one Markdown table; without a record, a sentence that says so."""
    lines = [
        (machine_of(record), *line, f"{record.about.hrm_edge}, {record.about.created[:10]}, {_how(record)}")
        for record in sorted(records, key=lambda record: (machine_of(record), record.about.created))
        for line in rows_of(record)
    ]
    if not lines:
        return NOTHING
    plain = [[_plain(cell) for cell in line] for line in lines]
    return "\n".join(markdown_table(("machine", *COLUMNS, "hrm-edge, date, window"), plain))


def _plain(cell: str) -> str:
    """Return a text of somebody else's machine without what Markdown or a browser would act on."""
    return visible(cell).replace("<", "&lt;").replace("[", "\\[")


def _how(record: MachineRecord) -> str:
    settings = record.about.settings
    return f"{settings.duration_s:g} s" + ("" if settings.puzzles == OWN_PUZZLES else f" of {settings.puzzles}")
