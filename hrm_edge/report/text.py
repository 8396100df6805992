"""Reports for people: tables for a terminal, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from hrm_edge.report.schema import Answers, BenchReport, CellAccuracy, EvalReport, Latency, Paired, Report
from hrm_edge.terminal import table_of

Row = tuple[str, str]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _accuracy(answers: Answers) -> str:
    low, high = answers.exact_accuracy_interval_95
    return f"{_percent(answers.exact_accuracy)} (95 %: {100 * low:.2f} to {100 * high:.2f})"


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with so many significant digits, all of them before the point, and never an exponent."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{number(count, 4)} {unit}"
        count /= 1000
    return f"{number(count, 4)} GB"


def _latency(latency: Latency) -> str:
    named = ((name, getattr(latency, name)) for name in ("p50", "p90", "p99", "mean", "min"))
    return ", ".join(f"{name} {number(value)}" for name, value in named)


def rows(report: Report) -> list[Row]:
    """Return the report's rows, most important first: (name, value with its unit)."""
    model, engine, data = report.model, report.engine, report.data
    about = f"{model.variant}, {model.precision}, {model.parameters:,} parameters, {_size(model.size_bytes)}"
    lines: list[Row] = [
        ("model", f"{model.name}: {about}"),
        ("data", f"{data.path}: {report.count} {data.task} puzzles, answers from the {data.answers}"),
        ("halting", f"{report.halt}, steps per view at most {report.max_steps}, views at most {report.views}"),
        *_answer_rows(report),
        ("steps per puzzle", f"mean {report.mean_steps:.2f}"),
    ]
    if isinstance(report, BenchReport):
        lines += _bench_rows(report)
    else:
        if report.paired is not None:
            lines += _paired_rows(report.paired)
        lines.append(("duration", f"{report.duration_s:.2f} s, {number(report.throughput_per_s, 4)} puzzles/s"))
    threads = "default" if engine.threads is None else engine.threads
    lines.append(("engine", f"{engine.backend} {engine.version}, threads {threads}, slots {engine.slots}"))
    if engine.chosen is not None:
        lines.append(("chosen by trial", engine.chosen))
    if engine.arithmetic is not None:
        lines.append(("arithmetic", engine.arithmetic))
    device = report.device
    name, cores = device.module or device.machine or device.cpu, f"{device.cores} core{'s'[: device.cores != 1]}"
    lines.append(("device", f"{name}, {cores}, {_size(device.memory_bytes)}"))
    return lines


def _cells(share: CellAccuracy) -> str:
    return f"{_percent(share.grid)} of the grids' cells, {_percent(share.canvas)} with the padding counted"


def _answer_rows(report: Report) -> list[Row]:
    arc = report.arc if isinstance(report, EvalReport) else None
    if arc is not None:
        lines = [("pass@1, pass@2", f"{_percent(at.pass_at_1)}, {_percent(at.pass_at_2)}") for at in arc.by_views[-1:]]
        known = f"{arc.questions} questions of {arc.tasks} tasks" if arc.questions else "not known"
        lines.append(("answers", f"{known}, {arc.asked} asked"))
        if arc.cells is not None:
            lines += [
                ("cells right, model", _cells(arc.cells.model)),
                ("input copied", _cells(arc.cells.copied_input)),
                ("one colour", _cells(arc.cells.commonest_colour)),
            ]
        return [*lines, ("augmented, exact", f"{_accuracy(report)} of {report.count} before voting")]
    wrong = f"{report.false_verified} of them wrong"
    lines = [("exact accuracy", _accuracy(report))]
    if report.optimal is not None:
        lines.append(("valid and optimal", f"{report.optimal} of {report.count}"))
        wrong = f"{report.false_verified} of them longer than the shortest path"
    return [*lines, ("verified", f"{report.verified} of {report.count}, {wrong}")]


def _paired_rows(paired: Paired) -> list[Row]:
    other, (low, high) = f"{paired.model.name} {paired.model.precision}", paired.lost_points_interval_95
    share = f"{_percent(paired.exact_accuracy)}, {paired.only_other} only by it, {paired.only_this} only by this one"
    return [
        (f"the same by {other}", share),
        ("exact accuracy lost", f"{paired.lost_points:+.2f} points (paired, 95 %: {low:+.2f} to {high:+.2f})"),
    ]


def _bench_rows(report: BenchReport) -> list[Row]:
    stable = "" if report.warm_up.stable else " (never became stable)"
    step = f"{_latency(report.step_latency_ms)}, mean batch {number(report.mean_batch)}"
    lines = [
        ("scenario", _scenario(report)),
        ("latency per puzzle, ms", _latency(report.latency_ms)),
        ("latency per step, ms", step),
    ]
    if report.device_step_latency_ms is not None:
        lines.append(("the same by the GPU's events, ms", _latency(report.device_step_latency_ms)))
    stages = ", ".join(f"{stage} {number(value)}" for stage, value in report.stage_ms.items())
    lines += [
        ("stages of a puzzle, mean ms", stages),
        ("throughput", f"{number(report.throughput_per_s, 4)} puzzles/s, {number(report.solved_per_s, 4)} solved/s"),
    ]
    if report.cold_start is not None:
        cold = report.cold_start
        parts = f"process {cold.process_ms:.0f}, load {cold.load_ms:.0f}, first answer {cold.first_answer_ms:.1f}"
        lines.append(("cold start, ms", f"{cold.total_ms:.0f} to the first answer ({parts})"))
    lines.append(("warm-up", f"{_counted(report.warm_up.steps, 'step')}, {report.warm_up.seconds:.2f} s{stable}"))
    for row in report.parity[-1:]:
        lines.append(("beside torch, at export", _parity(row, report.model.gate_passed, "the export")))
    if report.engine_parity is not None:
        engine = report.engine_parity
        passed = engine.get("gate", {}).get("passed")
        lines.append(("engine beside ONNX Runtime", _parity(engine["held"], passed, "the engine")))
    if report.reference is not None:
        last = report.reference.at[-1]
        said = f"SQNR {last.logits_sqnr_db:.1f} dB, {_percent(last.same_answers)} same answers"
        said += f" after {last.steps} steps on {report.reference.puzzles} puzzles"
        lines.append((f"against {report.reference.name} {report.reference.precision}", said))
    return lines + _power_rows(report) + _state_rows(report)


_PUZZLES = {
    "all": "",
    "both settle": " that both solve",
    "torch settles": " that torch solves",
    "unsettled": " that torch does not solve",
}


def _parity(row: dict[str, Any], passed: bool | None, what: str) -> str:
    """Return a parity row in words: how close two models are, on which puzzles, and the verdict of ``what``'s gate.

    On a puzzle that a model does not solve the recurrence does not converge and amplifies rounding, so over all puzzles
    the worst figures of INT8 and float16 are low even in a good export. The gate takes that into account.
    """
    said = [f"after {_counted(row['steps'], 'step')}"]
    if "puzzles" in row:
        said[0] += f" on {row['puzzles']:,} puzzles{_PUZZLES.get(row.get('over', 'all'), '')}"
    if "same_answers" in row:
        said.append(f"{row['same_answers']:.1%} give the same answer")
    if "logits_sqnr_db" in row:
        said.append(f"logits' SQNR {row['logits_sqnr_db']:.1f} dB")
    cosines = (("carry_cosine_mean", "in the mean"), ("carry_cosine", "for the worst puzzle"))
    if named := [f"{row[key]:.4f} {which}" for key, which in cosines if row.get(key) is not None]:
        said.append(f"states' cosine {' and '.join(named)}")
    if passed is not None:
        said.append(f"within the limits of {what}: " + ("yes" if passed else "NO"))
    return ", ".join(said)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _scenario(report: BenchReport) -> str:
    text = f"{report.scenario}, {report.queries} queries in {report.duration_s:.2f} s"
    if report.pace is not None:
        text += f", {report.pace.frames_per_s:g} frames/s, {report.pace.dropped} of {report.pace.frames} dropped"
    if report.protocol is not None:
        changed = ", ".join(f"{name} {value}" for name, value in report.protocol.changed.items())
        text += f", protocol {report.protocol.name}" + (f" CHANGED: {changed}" if changed else "")
    return text


def _power_rows(report: BenchReport) -> list[Row]:
    """Return the rows about power and energy, or the reason why there are none."""
    power = report.power
    if power.power_w_mean is None:
        same = report.energy_reason == power.reason
        return [("power", f"– {power.reason}"), ("energy", "– see power" if same else f"– {report.energy_reason}")]
    error = "" if power.power_w_standard_error is None else f" ± {power.power_w_standard_error:.2g} (standard error)"
    net = "" if power.power_w_net is None else f", net of rest {number(power.power_w_net, 4)} W"
    samples = f"{power.samples}, largest gap {number(power.largest_gap_s or 0)} s"
    samples += f", {_percent(power.covered_share)} of the window covered"
    lines = [
        ("power", f"{number(power.power_w_mean, 4)} W{error}{net} by {power.meter}"),
        ("power is that of", str(power.scope)),
        ("samples", samples),
    ]
    if power.idle is not None:
        idle = power.idle
        lines.append(
            ("at rest", f"{number(idle.power_w_mean, 4)} W over {idle.seconds:.1f} s, noise {idle.noise_w:.2g} W")
        )
    lines.append(("energy", _energy(report)))
    if power.energy_j is not None and power.energy_j_integrated is not None:
        off = power.energy_j_integrated / power.energy_j - 1
        lines.append(("counter against integral", f"integrated power is {off:+.1%} from the counter"))
    for rail in power.rails:
        mean = "–" if rail.power_w_mean is None else f"{number(rail.power_w_mean, 4)} W"
        negative = f", {rail.negative_readings} negative readings" if rail.negative_readings else ""
        place = "in the total" if rail.in_total else "not in the total"
        low_high = f"{number(rail.power_w_min, 4)} to {number(rail.power_w_max, 4)}"
        lines.append((f"rail {rail.name}", f"{mean} ({low_high}){negative}, {place}"))
    return lines + [("note", note) for note in power.notes]


def _energy(report: BenchReport) -> str:
    figures = (
        ("per puzzle", report.energy_j_per_puzzle),
        ("net", report.energy_j_per_puzzle_net),
        ("per solved puzzle", report.energy_j_per_solved),
        ("net", report.energy_j_per_solved_net),
    )
    known = [f"{number(joules, 4)} J {what}" for what, joules in figures if joules is not None]
    return (
        ", ".join(known) + (f" ({report.energy_reason})" if report.energy_reason else "")
        if known
        else "– " + str(report.energy_reason)
    )


def _state_rows(report: BenchReport) -> list[Row]:
    before, after = report.device_before, report.device_after
    lines = []
    if report.device.l4t is not None:
        lines.append(("L4T", f"{report.device.l4t}, JetPack {report.device.jetpack or 'unknown'}"))
    if before.power_mode is not None:
        lines.append(("power mode", before.power_mode))
    if before.clocks_locked is not None:
        lines.append(("clocks", "locked" if before.clocks_locked else "NOT LOCKED"))
    if hottest := max(before.temperatures_c.items(), key=lambda item: item[1], default=None):
        name, value = hottest
        lines.append(
            ("temperature", f"{name} {value:.1f} °C before, {after.temperatures_c.get(name, value):.1f} after")
        )
    return lines


def _view_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a heading and a row for each number of views; empty where there was only one."""
    if not isinstance(report, EvalReport):
        return []
    if report.arc is not None:
        shares = [(at, _percent(at.pass_at_1), _percent(at.pass_at_2)) for at in report.arc.by_views]
        cells = [(f"{at.views}", *two, f"{at.solved_at_1}", f"{at.solved_at_2}") for at, *two in shares]
        return [("views", "pass@1", "pass@2", "tasks solved at 1", "at 2"), *cells] if len(cells) > 1 else []
    if len(report.by_views) < 2:
        return []
    return [
        ("views", "exact accuracy", "verified", "of them wrong", "mean steps"),
        *(
            (str(at.views), _accuracy(at), str(at.verified), str(at.false_verified), f"{at.mean_steps:.2f}")
            for at in report.by_views
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Return the report as Rich tables for a terminal."""
    main = Table(title=report.kind, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    main.add_column(style="bold", no_wrap=True)
    main.add_column(overflow="fold")
    for row in rows(report):
        main.add_row(*row)
    shown = [main]
    if isinstance(report, BenchReport) and report.warnings:
        loud = Table(title="Warnings", title_style="bold red", title_justify="left", show_header=False, box=None)
        for warning in report.warnings:
            loud.add_row(warning, style="red")
        shown.append(loud)
    if view_rows := _view_rows(report):
        columns, *cells = view_rows
        shown.append(table_of(columns, cells, words=None, title="by views", box=None, padding=(0, 2, 0, 0)))
    return shown


def markdown(report: Report) -> str:
    """Return the report as Markdown that ends in a newline."""
    lines = [f"# {report.kind}: {report.model.name}", ""]
    if isinstance(report, BenchReport) and report.warnings:
        lines += [f"> **Warning:** {warning}" + "  " for warning in report.warnings] + [""]
    lines += markdown_table((" ", " "), rows(report))
    if view_rows := _view_rows(report):
        lines += ["", *markdown_table(view_rows[0], view_rows[1:])]
    return "\n".join([*lines, "", f"Made {report.created}, schema {report.schema_version}."]) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; a pipe in a cell is escaped."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    body = ["| " + " | ".join(row) + " |" for row in cells]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]
