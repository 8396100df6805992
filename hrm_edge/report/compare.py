"""Comparison of reports of one protocol, of which the first is the baseline: its gate, table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from hrm_edge.errors import UserError
from hrm_edge.report.schema import BenchReport
from hrm_edge.report.text import markdown_table, number
from hrm_edge.terminal import table_of

# Settings that two reports must share for a comparison; all others may differ, to be compared.
_PROTOCOL: dict[str, Callable[[BenchReport], object]] = {
    "scenario": lambda report: report.scenario,
    "task": lambda report: report.data.task,
    "puzzles": lambda report: report.data.sha256 or report.data.path,
    "halting": lambda report: report.halt,
    "steps per view": lambda report: report.max_steps,
    "views": lambda report: report.views,
    "frames per second": lambda report: report.pace.frames_per_s if report.pace else None,
    "protocol": lambda report: report.protocol.name if report.protocol else None,
    "changes of the protocol": lambda report: report.protocol.changed if report.protocol else None,
}
COLUMNS = (
    "report", "p50 ms", "p90 ms", "p99 ms", "ms per step", "puzzles/s", "against the first", "exactly right (95 %)",
    "SQNR dB", "J per puzzle", "W",
)  # fmt: skip


def require_one_protocol(named: Sequence[tuple[str, BenchReport]]) -> None:
    """Raise ``UserError`` that names every setting in which a report differs from the first."""
    if len(named) < 2:
        raise UserError("--compare needs two reports or more", "hrm-edge bench --compare A.json B.json")
    first_name, first = named[0]
    for name, report in named[1:]:
        different = [
            f"{what} ({value(first)} and {value(report)})"
            for what, value in _PROTOCOL.items()
            if value(first) != value(report)
        ]
        if different:
            raise UserError(
                f"{first_name} and {name} were not measured alike: {'; '.join(different)}",
                "measure both with the same options, best with one --protocol",
            )


def label(report: BenchReport) -> str:
    """Return a short description: which model on which engine and machine."""
    mode = f", {report.device_before.power_mode}" if report.device_before.power_mode else ""
    machine = report.device.module or report.device.machine or report.device.cpu
    slots = f", {report.engine.slots} slots" if report.scenario == "offline" else ""
    threads = f", {report.engine.threads} threads" if report.engine.threads else ""
    engine = f"{report.engine.backend} {report.engine.version}"
    return f"{report.model.name} {report.model.precision}, {engine}{slots}{threads}, {machine}{mode}"


def _same_machine(a: BenchReport, b: BenchReport) -> bool:
    """Return whether both reports are of one machine in one power mode, so that their times can be compared."""

    def key(report: BenchReport) -> tuple[object, ...]:
        device = report.device
        return device.machine, device.module, device.cpu, device.cores, device.gpus, report.device_before.power_mode

    return key(a) == key(b)


def _speed(report: BenchReport) -> float:
    """Return the headline as a rate, larger is better: 1 / p90 latency, or the throughput offline; per second."""
    return report.throughput_per_s if report.scenario == "offline" else 1e3 / report.latency_ms.p90


def comparison_rows(reports: Sequence[BenchReport]) -> list[tuple[str, ...]]:
    """Return the cells of :data:`COLUMNS`, a row for each report; "–" stands for values that were not measured."""
    lines: list[tuple[str, ...]] = []
    for report in reports:
        low, high = report.exact_accuracy_interval_95
        ms, watts = report.latency_ms, report.power.power_w_mean
        sqnr = f"{report.reference.at[-1].logits_sqnr_db:.1f}" if report.reference else "–"
        joules = report.energy_j_per_puzzle
        lines.append(
            (
                label(report),
                number(ms.p50),
                number(ms.p90),
                number(ms.p99),
                number(report.step_latency_ms.p50),
                number(report.throughput_per_s, 4),
                f"{_speed(report) / _speed(reports[0]):.2f}x",
                f"{report.exact_accuracy:.1%} ({low:.1%} to {high:.1%}) of {report.count}",
                sqnr,
                "–" if joules is None else number(joules),
                "–" if watts is None else number(watts),
            )
        )
    return lines


def judge(reports: Sequence[BenchReport], share: float) -> tuple[list[str], list[str]]:
    """Return the regressions against the first report, and what could not be judged; each is a sentence.

    ``share``: the largest allowed loss of speed (p90 latency or, offline, throughput), of energy per puzzle, and of
    exact accuracy in hundreds of points.
    """
    first, failures, unjudged = reports[0], [], []
    for report in reports[1:]:
        name = label(report)
        lost = first.exact_accuracy - report.exact_accuracy
        if lost > share:
            failures.append(f"{name}: exact accuracy is {100 * lost:.2f} points lower, the limit is {100 * share:g}")
        if not _same_machine(first, report):
            unjudged.append(f"{name}: another machine or power mode, so its times and energy are not judged")
            continue
        slower = _speed(first) / _speed(report) - 1
        if slower > share:
            failures.append(f"{name}: {slower:.1%} slower, the limit is {share:.0%}")
        if first.power.scope != report.power.scope:
            unjudged.append(f"{name}: its power is that of other rails, so its energy is not judged")
        elif first.energy_j_per_puzzle and report.energy_j_per_puzzle:
            more = report.energy_j_per_puzzle / first.energy_j_per_puzzle - 1
            if more > share:
                failures.append(f"{name}: {more:.1%} more energy per puzzle, the limit is {share:.0%}")
        elif first.energy_j_per_puzzle:
            unjudged.append(f"{name}: no energy figure ({report.energy_reason})")
    return failures, unjudged


@dataclass(frozen=True)
class Comparison:
    """Reports side by side, the first being the baseline, and what a limit on their regression found."""

    reports: Sequence[BenchReport]
    failures: Sequence[str] = ()
    unjudged: Sequence[str] = ()

    @classmethod
    def under_limit(cls, reports: Sequence[BenchReport], percent: float | None) -> Comparison:
        """Compare and judge by :func:`judge`, or only compare where no limit is given."""
        return cls(reports) if percent is None else cls(reports, *judge(reports, percent / 100))

    def table(self) -> Table:
        """Return the comparison as a table for a terminal, with the gate's verdict below it."""
        first = self.reports[0]
        title = f"{first.scenario}, {first.data.path}: {first.halt}, {first.views} views, the first is the baseline"
        notes = [*(f"REGRESSION {text}" for text in self.failures), *(f"not judged: {text}" for text in self.unjudged)]
        caption = "\n".join(notes) or None
        rows = comparison_rows(self.reports)
        return table_of(COLUMNS, rows, words=None, title=title, caption=caption, caption_justify="left")

    def markdown(self) -> str:
        """Return the comparison as Markdown, with each report's warnings and the gate's verdict."""
        lines = ["# hrm-edge bench --compare", "", *markdown_table(COLUMNS, comparison_rows(self.reports)), ""]
        lines += [f"- Warning, {label(report)}: {text}" for report in self.reports for text in report.warnings]
        lines += [f"- **Regression**: {text}" for text in self.failures]
        lines += [f"- Not judged: {text}" for text in self.unjudged]
        return "\n".join(lines) + "\n"

    def document(self) -> dict[str, Any]:
        """Return the comparison as a JSON document for programs."""
        first = self.reports[0]
        return {
            "kind": "hrm-edge comparison",
            "schema_version": first.schema_version,
            "regressions": list(self.failures),
            "not_judged": list(self.unjudged),
            "reports": [
                {
                    "label": label(report),
                    "scenario": report.scenario,
                    "latency_ms": report.latency_ms.model_dump(),
                    "throughput_per_s": report.throughput_per_s,
                    "speed_against_first": _speed(report) / _speed(first),
                    "exact_accuracy": report.exact_accuracy,
                    "exact_accuracy_interval_95": report.exact_accuracy_interval_95,
                    "energy_j_per_puzzle": report.energy_j_per_puzzle,
                    "power_w_mean": report.power.power_w_mean,
                    "warnings": report.warnings,
                }
                for report in self.reports
            ],
        }
