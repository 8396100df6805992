"""``hrm-edge bench --compare``: reports of one protocol in one table, and the regression gate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hrm_edge.cli.options import Output, show
from hrm_edge.errors import GateError

if TYPE_CHECKING:
    from hrm_edge.cli.bench_one import Options


def compare_reports(files: Sequence[str], options: Options, max_regression: float | None) -> None:
    """Print the table of ``files``, write what was asked for, then hold them to ``max_regression`` percent.

    Raises ``UserError`` for reports of different protocols, ``GateError`` for a regression.
    """
    from hrm_edge.report.compare import Limits, judge, require_one_protocol
    from hrm_edge.report.html import page
    from hrm_edge.report.read import read_bench
    from hrm_edge.report.several import comparison, comparison_markdown, comparison_table

    named = [(file, report) for file in files for report in read_bench(file)]
    require_one_protocol(named)
    reports = [report for _, report in named]
    share = (max_regression or 0.0) / 100
    failures, unjudged = judge(reports, Limits(slower=share, more_energy=share, accuracy_points=100 * share))
    verdict = (failures, unjudged) if max_regression is not None else ([], [])
    show(
        [comparison_table(reports, *verdict)],
        [
            Output(options.json_file, lambda: comparison(reports, *verdict)),
            Output(options.markdown_file, lambda: comparison_markdown(reports, *verdict)),
            Output(options.html_file, lambda: page(reports)),
        ],
        f"hrm-edge bench --compare {shlex.join(files)} --max-regression 10"
        if max_regression is None
        else f"hrm-edge bench --compare {shlex.join(files)} --html compare.html",
    )
    if max_regression is not None and failures:
        raise GateError("; ".join(failures), "find what changed, or allow more with --max-regression")
