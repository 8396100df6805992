"""Plots of reports as SVG text, drawn by matplotlib; the text contains all that is needed to show them.

A figure is as wide as a phone, so that its letters stay readable there; on a desktop, a page puts several in a row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from hrm_edge.device.boards import boards
from hrm_edge.report.schema import BenchReport

SIZE = (4.6, 3.1)  # inches; at 72 points each, a phone shows them nearly 1:1
COLOURS = ("#1f6feb", "#d1480f", "#2da44e", "#8250df", "#bf8700", "#57606a")
_PREDICTED = ("orin-nano-8gb", "orin-nano-super", "agx-orin-64gb", "thor-t5000")  # roofs that differ enough to draw
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
}

_HOLLOW: dict[str, Any] = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markeredgecolor": COLOURS[5]}

Draw = Callable[[Any], None]


def _svg(title: str, draw: Draw) -> str:
    """Return a figure as an ``<svg>`` element, with axes that ``draw`` fills; the same input gives the same text."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.set_title(title)
        draw(axes)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _short(report: BenchReport) -> str:
    """Return a legend's entry."""
    slots = f", {report.engine.slots} slots" if report.scenario == "offline" else ""
    mode = f", {report.device_before.power_mode}" if report.device_before.power_mode else ""
    return f"{report.model.precision}, {report.engine.backend}{slots}{mode}"


def latency_distribution(reports: Sequence[BenchReport]) -> str:
    """Plot the share of the queries answered within a time, with the p90 marked."""

    def draw(axes: Any) -> None:
        spread = [report.latency_ms_quantiles[index] for report in reports for index in (0, 99)]
        for index, (report, colour) in enumerate(zip(reports, _colours(reports), strict=True)):
            axes.plot(report.latency_ms_quantiles, range(101), color=colour, label=_short(report))
            p90 = report.latency_ms.p90
            axes.plot([p90], [90], "o", color=colour, markersize=5)
            # The labels go one below the other: the reports' p90 may lie close together.
            axes.annotate(
                f"p90 {p90:.3g} ms",
                (p90, 90),
                (6, -11 * (index + 1)),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
        if max(spread) > 20 * max(min(spread), 1e-9):
            axes.set_xscale("log")
        else:
            axes.set_xlim(0, 1.25 * max(spread))
        axes.set_xlabel("ms per puzzle")
        axes.set_ylabel("% answered within")
        if len(reports) > 1:
            axes.legend(loc="lower right")

    return _svg("Latency distribution", draw)


def latency_over_time(reports: Sequence[BenchReport]) -> str:
    """Plot the median latency over the window, in which throttling shows as a rise."""

    def draw(axes: Any) -> None:
        for report, colour in zip(reports, _colours(reports), strict=True):
            axes.plot(*zip(*report.latency_trace, strict=True), color=colour, label=_short(report))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the window began")
        axes.set_ylabel("median ms per puzzle")
        if len(reports) > 1:
            axes.legend()

    return _svg("Latency over time", draw)


def steps(report: BenchReport) -> str:
    """Plot a histogram of the ACT steps per puzzle."""

    def draw(axes: Any) -> None:
        axes.bar(list(report.steps_histogram), list(report.steps_histogram.values()), color=COLOURS[0], width=0.8)
        axes.set_xlabel("ACT steps, all views together")
        axes.set_ylabel("puzzles")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="x", visible=False)

    return _svg("Steps per puzzle", draw)


def stages(report: BenchReport) -> str:
    """Plot the time of each stage of a puzzle."""

    def draw(axes: Any) -> None:
        names = list(report.stage_ms)[::-1]
        values = [report.stage_ms[name] for name in names]
        bars = axes.barh(names, values, color=COLOURS[0], height=0.6)
        axes.bar_label(bars, [f" {value:.3g}" for value in values], fontsize=8)
        axes.set_xlim(0, 1.2 * max(values))
        axes.set_xlabel("mean ms per puzzle")
        axes.grid(axis="y", visible=False)

    return _svg("Stages of a puzzle", draw)


def power_over_time(report: BenchReport) -> str | None:
    """Plot the total power before, in and after the window, which is marked; None where there are no readings."""
    power = report.power
    if not power.trace:
        return None

    def draw(axes: Any) -> None:
        axes.plot(*zip(*power.trace, strict=True), color=COLOURS[0], linewidth=1.0)
        axes.axvspan(0, power.window_s, color=COLOURS[0], alpha=0.10, linewidth=0)
        axes.annotate("window", (0, 1), (4, -10), xycoords=("data", "axes fraction"), textcoords="offset points")
        for gap in power.gaps:
            axes.axvspan(gap.begin_s, gap.begin_s + gap.seconds, color=COLOURS[1], alpha=0.3, linewidth=0)
        if power.idle is not None:
            axes.axhline(power.idle.power_w_mean, color=COLOURS[5], linestyle="--", linewidth=0.9)
            axes.annotate(
                "at rest",
                (1, power.idle.power_w_mean),
                (-34, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the window began")
        axes.set_ylabel(f"W by {power.meter}")

    return _svg("Power over time", draw)


def accuracy_against_cost(reports: Sequence[BenchReport]) -> str:
    """Plot the exact accuracy against the energy per puzzle or, where that was not measured, the mean latency."""
    energies = [report.energy_j_per_puzzle for report in reports]
    measured = all(joules is not None for joules in energies)

    def draw(axes: Any) -> None:
        for report, joules, colour in zip(reports, energies, _colours(reports), strict=True):
            x = 1e3 * joules if measured and joules is not None else report.latency_ms.mean
            low, high = report.exact_accuracy_interval_95
            y = 100 * report.exact_accuracy
            axes.errorbar(
                [x],
                [y],
                yerr=[[y - 100 * low], [100 * high - y]],
                fmt="o",
                color=colour,
                capsize=3,
                label=_short(report),
            )
        axes.set_xlim(left=0)
        axes.margins(x=0.2)
        axes.set_ylabel("exact accuracy, % (95 %)")
        axes.set_xlabel("mJ per puzzle" if measured else "mean ms per puzzle (energy was not measured)")
        axes.legend(fontsize=7)

    return _svg("Accuracy against energy" if measured else "Accuracy against time", draw)


def roofline(reports: Sequence[BenchReport]) -> str | None:
    """Plot the measured steps under the roofline of their machine, and predictions for other boards as hollow points.

    Returns None where no report has a roofline.
    """
    known = [report for report in reports if report.roofline is not None]
    if not known:
        return None

    def draw(axes: Any) -> None:
        lines = [report.roofline for report in known if report.roofline is not None]
        intensities = [line.flop_per_step / line.bytes_per_step for line in lines]
        low, high = min(intensities) / 30, max(intensities) * 30
        for report, line, x, colour in zip(known, lines, intensities, _colours(known), strict=True):
            axes.plot([x], [line.measured_flop_per_s], "o", color=colour, label=f"measured: {_short(report)}")
        first = lines[0]
        if first.peak_flop_per_s and first.peak_bytes_per_s:
            name = "this machine" + (", float32" if first.peaks_from.startswith("float32") else "")
            _roof(axes, low, high, first.peak_flop_per_s, first.peak_bytes_per_s, COLOURS[0], "-", name)
        precision = known[0].model.precision
        for key in _PREDICTED:
            board = boards()[key]
            peak, moved = board.peak_ops(precision), board.dram_gb_s * 1e9
            name = board.name.removeprefix("Jetson ")
            _roof(axes, low, high, peak, moved, COLOURS[5], ":", name, above=key != _PREDICTED[0])
            x = intensities[0]
            axes.plot([x], [min(peak, x * moved)], **_HOLLOW)
        axes.plot([], [], **_HOLLOW, label="prediction, not measured")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_xlabel("operations per byte moved")
        axes.set_ylabel("operations per second")
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=7)  # the roofs take every corner

    return _svg("Roofline", draw)


def _roof(
    axes: Any,
    low: float,
    high: float,
    flops: float,
    moved: float,
    colour: str,
    style: str,
    name: str,
    above: bool = True,
) -> None:
    ridge = flops / moved
    xs = [low, ridge, high] if low < ridge < high else [low, high]
    axes.plot(xs, [min(flops, x * moved) for x in xs], style, color=colour, linewidth=1.1)
    axes.annotate(
        name,
        (high, min(flops, high * moved)),
        (-2, 3 if above else -9),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color=colour,
    )


def _colours(reports: Sequence[BenchReport]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(reports))]
