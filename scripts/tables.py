"""Render the tables of the documents from benchmarks/results: figures are never typed.

python scripts/tables.py            # rewrite them
python scripts/tables.py --check    # exit code 1 where one is out of date (tests/test_docs.py does this)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hrm_edge import zoo
from hrm_edge.files import read_json, write_text
from hrm_edge.manifest import MANIFEST, read_manifest
from hrm_edge.record.archive import read_archives
from hrm_edge.record.table import boards_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SITE = ROOT / "docs"
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md", SITE / "how-to" / "cpu.md", SITE / "index.md",
             SITE / "how-to" / "record.md", SITE / "explain" / "levers.md")  # fmt: skip
VIEWS = (1, 4, 16, 64)
MOST_POINTS = 6  # of a run in the table of curves
BEGIN, END = "<!-- {}: scripts/tables.py -->", "<!-- end -->"


def reports(kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Every report of a kind with its file, ordered by file."""
    found = [(path, read_json(path)) for path in sorted(RESULTS.glob("*/*.json"))]
    return [(path, report) for path, report in found if report.get("kind") == kind]


def evals() -> list[tuple[Path, dict[str, Any]]]:
    """Every accuracy report, without those in which another model answered the same puzzles too."""
    return [
        (path, report) for path, report in reports("hrm-edge eval")
        if report.get("paired") is None or report["paired"]["model"]["variant"] == report["model"]["variant"]
    ]  # fmt: skip


def link(path: Path) -> str:
    """A Markdown link to a results file: the source of the row."""
    report = read_json(path)
    created = report.get("created") or report["provenance"]["created"]
    return f"[{path.parent.name}, {created[:10]}]({path.relative_to(ROOT)})"


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*names: object) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(*names), "|" + "---|" * len(names)]


def accuracy() -> str:
    """Exact accuracy of shipped and quick-start models per set, by the number of views."""
    lines = header(
        "model", "puzzles of", "count", *(f"{views} view{'s'[: views > 1]}" for views in VIEWS),
        "wrong, called solved", "machine, date",
    )  # fmt: skip
    for path, report in evals():
        if report.get("arc"):
            continue
        found = {at["views"]: at for at in report["by_views"]}
        wrong = max(at["false_verified"] for at in found.values())
        cells = (f"{report['model']['name']} {report['model']['precision']}", Path(report["data"]["path"]).stem,
                 report["count"], *(share(found[views]) if views in found else "" for views in VIEWS),
                 wrong, link(path))  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def arc() -> str:
    """Tasks and cells right of ARC, the cells with what takes no model side by side."""
    lines = header(
        "answer", "tasks right in two attempts", "cells of the grids right", "with padding counted", "machine, date"
    )
    for path, report in evals():
        if not (found := report.get("arc")):
            continue
        tasks = f"{found['by_views'][-1]['pass_at_2']:.1%} of {found['tasks']}"
        answers = {
            "model": report["model"]["name"], "copied_input": "the input, copied", "commonest_colour": "one colour"
        }  # fmt: skip
        for key, name in answers.items():
            cells = found["cells"][key]
            right = tasks if key == "model" else ""
            lines.append(row(name, right, f"{cells['grid']:.2%}", f"{cells['canvas']:.2%}", link(path)))
    return "\n".join(lines)


def share(at: dict[str, Any]) -> str:
    """A share of puzzles with its 95 % interval."""
    low, high = at["exact_accuracy_interval_95"]
    return f"{at['exact_accuracy']:.1%} ({low:.1%} to {high:.1%})"


def shipped() -> str:
    """What every shipped model reaches, from its largest measurement on each kind of set, and its latency."""
    lines = header("model", "size", "random minimal puzzles right", "Sudoku-Extreme right", "ms a puzzle, p50 / p90")
    answered, benches = evals(), reports("hrm-edge bench")
    for name in sorted(path.parent.name for path in zoo.ZOO.glob(f"*/{MANIFEST}")):
        ms = [
            f"[{report['latency_ms']['p50']:.0f} / {report['latency_ms']['p90']:.0f}]({path.relative_to(ROOT)})"
            for path, report in benches if report["model"]["name"] == name
        ]  # fmt: skip
        own = [(path, report) for path, report in answered if report["model"]["name"] == name]
        cells = [
            _best(own, kind) for kind in (("random-minimal-heldout", "random-minimal-unseen"), ("sudoku-extreme",))
        ]
        size = f"{read_manifest(zoo.ZOO / name).size_bytes / 1e6:.2f} MB"
        lines.append(row(f"`{name}`", size, *cells, *(ms or ["not measured"])))
    return "\n".join(lines)


def _best(evals: list[tuple[Path, dict[str, Any]]], sets: tuple[str, ...]) -> str:
    """The report with most views on one of ``sets``: its accuracy at one view and at the most, with its file."""
    of_sets = [item for item in evals if Path(item[1]["data"]["path"]).stem.startswith(sets)]
    if not of_sets:
        return "not measured"
    path, report = max(of_sets, key=lambda item: item[1]["by_views"][-1]["views"])
    first, last = report["by_views"][0], report["by_views"][-1]
    more = f"; {last['exact_accuracy']:.1%} with {last['views']} views" if last["views"] > 1 else ""
    return f"[{first['exact_accuracy']:.1%}{more}]({path.relative_to(ROOT)}) (of {report['count']:,})"


def precisions() -> str:
    """What a precision costs in exact accuracy: the same puzzles answered by the float32 model too."""
    lines = header(
        "model", "puzzles of", "count", "views", "exactly right", "float32", "lost, points (95 %, paired)",
        "right only in float32 / only here", "machine, date",
    )  # fmt: skip
    for path, report in evals():
        if (paired := report.get("paired")) is None:
            continue
        low, high = paired["lost_points_interval_95"]
        cells = (
            f"{report['model']['name']}", Path(report["data"]["path"]).stem, report["count"], report["views"],
            f"{report['exact_accuracy']:.2%}", f"{paired['exact_accuracy']:.2%}",
            f"{paired['lost_points']:+.2f} ({low:+.2f} to {high:+.2f})",
            f"{paired['only_other']} / {paired['only_this']}", link(path),
        )  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def latency() -> str:
    """Single-stream latency, power and accuracy per model."""
    lines = header(
        "model", "precision", "size", "ms per puzzle p50 / p90 / p99", "per step p50", "exactly right (95 %)",
        "SQNR, dB", "energy", "machine, date",
    )  # fmt: skip
    for path, report in reports("hrm-edge bench"):
        ms, model = report["latency_ms"], report["model"]
        joules, reference = report["energy_j_per_puzzle"], report["reference"]
        cells = (
            model["name"], model["precision"], f"{model['size_bytes'] / 1e6:.2f} MB",
            f"{ms['p50']:.2f} / {ms['p90']:.2f} / {ms['p99']:.2f}", f"{report['step_latency_ms']['p50']:.2f}",
            f"{share(report)} of {report['count']}",
            "–" if reference is None else f"{reference['at'][-1]['logits_sqnr_db']:.1f}",
            "no sensor" if joules is None else f"{1e3 * joules:.3g} mJ", link(path),
        )  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def peers() -> str:
    """hrm-edge beside other ways to run the same weights."""
    lines = []
    for path, report in reports("hrm-edge peers"):
        about = f"{report['model']}, {report['steps']} steps, {report['threads']} threads"
        lines += [
            f"{about}, {report['rounds']} rounds of {report['puzzles']} puzzles, {link(path)}:",
            "",
            "| | ms per puzzle | ms per step | time against the first (spread) | same answers |",
            "|---|---|---|---|---|",
        ]
        for line in report["rows"]:
            puzzle, step = line["ms_per_puzzle"]["median"], line["ms_per_step"]["median"]
            spread, same = _spread(line["time_against_base"], ".2f"), f"{line['same_answers_as_base']:.0%}"
            lines.append(row(line["name"], f"{puzzle:.1f}", f"{step:.2f}", spread, same))
        lines.append("")
    return "\n".join(lines).rstrip()


def cpu_step() -> str:
    """One step of every model on a CPU: each runtime's best way in each precision, against eager torch."""
    lines = []
    for path, report in reports("hrm-edge cpu step"):
        for model in report["models"]:
            nodes = "; ".join(
                f"{graph} {n['file']} nodes, of which ONNX Runtime leaves {n['onnxruntime']}, OpenVINO {n['openvino']}"
                for graph, n in (("ours", model["graphs"]["ours"]), ("naive export", model["graphs"]["naive"]))
            )
            lines += [
                f"{model['model']}, {model['weights']} weights, {link(path)} ({nodes}):",
                "",
                "| | threads | ms per step | of eager torch (spread) |",
                "|---|---|---|---|",
            ]
            for line in _best_ways(model["rows"]):
                what = "torch eager fp32" if line["backend"] == "torch" else _way(line)
                spread = _spread(line["against_eager"], ".3f")
                lines.append(row(what, line["threads"], f"{line['ms']['median']:.2f}", spread))
            lines.append("")
    return "\n".join(lines).rstrip()


def _way(line: dict[str, Any]) -> str:
    failed = ", fails its gate" if line["gate_passed"] is False else ""
    return f"{line['graph']} {line['precision']}, {line['backend']}{failed}"


def _best_ways(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The faster thread count of every graph, precision and runtime; fastest first."""
    best: dict[str, dict[str, Any]] = {}
    for line in sorted(rows, key=lambda line: float(line["ms"]["median"])):
        best.setdefault(_way(line), line)
    return list(best.values())


def cpu_halting() -> str:
    """What halting saves, one puzzle at a time and in slots, and how long a first answer takes."""
    lines = []
    for path, report in reports("hrm-edge cpu halting"):
        cold = report["cold_start_s"]
        about = (
            f"{report['model']}, {report['steps']} steps, one at a time by {report['way_one_at_a_time']}, "
            f"{report['slots']} slots by {report['way_slots']}, {link(path)}. `hrm-edge solve PUZZLE` from start "
            f"to answer: {cold['first']:.2f} s the first time, then {cold['next']['median']:.2f} s."
        )
        lines += [
            about,
            "",
            row("puzzles", "right / in torch", "ms per solved puzzle / in torch", "ratio (spread)",
                "of the solved ones alone", "puzzles per s, refilled / all steps", "ratio (spread)"),
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for line in report["sets"]:
            one, many = line["one_at_a_time"], line["slots"]
            speed = f"{many['refill_per_s']['median']:.0f} / {many['fixed_per_s']['median']:.0f}"
            as_right = f"right {many['right']:.1%} / {many['fixed_right']:.1%} of {many['puzzles']}"
            cells = (
                line["set"], f"{one['right']:.1%} / {one['eager_right']:.1%} of {one['puzzles']}",
                f"{one['ms_per_solved']['median']:.2f} / {one['eager_ms_per_solved']['median']:.1f}",
                _spread(one["ratio"]), _spread(one["ratio_solved"]), f"{speed}, {as_right}", _spread(many["ratio"]),
            )  # fmt: skip
            lines.append(row(*cells))
        lines.append("")
    return "\n".join(lines).rstrip()


def anytime() -> str:
    """Share of puzzles solved within so many milliseconds each, by model, runtime and retry policy."""
    lines = []
    for path, report in reports("hrm-edge anytime"):
        marks = list(report["ways"][0]["solved_by_ms"])
        lines += [
            f"{report['puzzles']} puzzles of {report['data']}, one at a time, {link(path)}:",
            "",
            row("way", *(f"{mark} ms" for mark in marks), "wrong"),
            "|---" * (len(marks) + 2) + "|",
        ]
        for line in report["ways"]:
            shares = (f"{line['solved_by_ms'][mark] / line['puzzles']:.0%}" for mark in marks)
            lines.append(row(line["way"], *shares, line["wrong"]))
        lines.append("")
    return "\n".join(lines).rstrip()


def int8_parity() -> str:
    """INT8 logits of every CPU backend beside the float32 model's, per processor."""
    lines = header(
        "processor", "backend", "multiplies in", "exact", "used", "puzzles", "dB: 1 step", "4 steps",
        "machine, date",
    )  # fmt: skip
    for path, report in reports("hrm-edge int8 parity"):
        imitated = report["imitated"]
        processor = f"{imitated}, by qemu" if imitated else report["device"]["cpu"]
        if report["instructions"]:
            processor += f" ({', '.join(report['instructions'])})"
        for line in report["rows"]:
            said = ["yes" if line[key] else "**no**" if key == "exact" else "" for key in ("exact", "taken")]
            db = (f"{value:.1f}" for value in line["db"])
            where = f"{path.parent.name}, {report['created'][:10]}"  # no link: the site has no results files
            lines.append(row(processor, line["backend"], line["products"], *said, report["puzzles"], *db, where))
    return "\n".join(lines)


def _spread(ratio: dict[str, float], digits: str = ".3g") -> str:
    return f"{ratio['median']:{digits}} ({ratio['min']:{digits}} to {ratio['max']:{digits}})"


def photos() -> str:
    """Photos of puzzles: read, left alone, wrong, solved, and what it takes."""
    lines = header(
        "photos", "count", "located", "read exactly (95 %)", "right answer, digits left out", "refused", "wrong",
        "solved of exact", "ms p50 / p95: locate, read, solve", "machine, date",
    )  # fmt: skip
    for path, report in reports("photos"):
        low, high = report["right_interval_95"]
        ms = ", ".join(
            f"{report['ms'][s]['p50']:.0f} / {report['ms'][s]['p95']:.0f}" for s in ("locate", "read", "solve")
        )
        cells = (
            path.stem.removeprefix("photos-"), report["count"], report["located"],
            f"{report['right']}, {report['right_share']:.1%} ({low:.1%} to {high:.1%})",
            report.get("right_answer", "not measured"), _refused(report.get("refused", {}), report["abstained"]),
            report["wrong"], f"{report['solved_of_right']} of {report['right']}", ms, link(path),
        )  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def picture_time() -> str:
    """Processor time of reading a picture beside that of an older commit."""
    lines = header(
        "pictures", "this commit / older one", "all pictures together", "slowest picture", "above 1.2 times",
        "frame of a video, ms", "machine, date",
    )  # fmt: skip
    for path, report in reports("picture-time"):
        frame = report["video_frame_ms"]
        commits = " / ".join(f"`{commit[:7]}`" for commit in report["commits"].values())
        lines.append(row(
            report["pictures"], commits, f"{report['ratio_of_sums']:.2f}", f"{report['ratio_max']:.2f}",
            report["above_1.2"], f"{frame['new']:.1f} / {frame['old']:.1f}", link(path),
        ))  # fmt: skip
    return "\n".join(lines)


def _refused(by_reason: dict[str, int], count: int) -> str:
    """How many were refused, and why."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(by_reason.items(), key=lambda r: -r[1]))
    return f"{count}: {reasons}" if reasons else str(count)


def hard_pictures() -> str:
    """Pictures drawn by program under hard conditions: answered, refused, wrong."""
    lines = header(
        "condition", "puzzles", "read exactly", "of these with cells in doubt", "right answer, digits left out",
        "refused", "wrong (95 %)", "seed, machine, date",
    )  # fmt: skip
    for path, report in reports("reading"):
        for name, found in {"all": report, **report["conditions"]}.items():
            high = found["wrong_share_interval_95"][1]
            cells = (
                name, found["count"], found["exact"], found["exact_said_doubtful"], found["right_answer_not_exact"],
                _refused(found["refused_by_reason"], found["refused"]), f"{found['wrong']} (below {high:.1%})",
                f"{report['seed']}, {link(path)}",
            )  # fmt: skip
            lines.append(row(*cells))
    return "\n".join(lines)


def video() -> str:
    """The camera demo on an imitated hand-held video."""
    lines = header(
        "video", "located and read, frames/s", "locate, read: ms p50 / p95", "run", "camera lost and back",
        "first frame to drawn answer, s: median / max", "memory: after settling, at the end, MiB", "machine, date",
    )  # fmt: skip
    for path, report in reports("demo"):
        speed, run, answer = report["locate_and_read"], report["demo"], report["demo"]["first_frame_to_answer_ms"]
        memory, stages = run["memory_mib"], speed["stages_ms"]
        cells = (
            "{}x{}".format(*report["video"]["size"]), f"{speed['frames_per_s']:.0f}",
            ", ".join(f"{stages[s]['p50']:.0f} / {stages[s]['p95']:.0f}" for s in ("locate", "read")),
            f"{run['minutes']:g} min", f"{run['figures']['reconnects']} times",
            f"{answer['median'] / 1e3:.2f} / {answer['max'] / 1e3:.2f} ({answer['times']} times)",
            f"{memory['settled']:.0f}, {memory['end']:.0f}", link(path),
        )  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def training() -> str:
    """Training speed: the plain published loop and ours, and how ours grows with processes."""
    lines = header(
        "model", "batch", "precision", "processes", "plain loop, samples/s", "hrm-edge, samples/s",
        "ratio (quartiles)", "memory, plain / ours", "machine, date",
    )  # fmt: skip
    for path, report in reports("training throughput"):
        for line in sorted(report["rows"], key=lambda line: (line["variant"], line["batch"])):
            speed, memory = line["samples_per_s"], line["peak_memory_bytes"]
            low, high = line["ratio_quartiles"]
            cells = (
                line["variant"], line["batch"], line["precision"], 1, f"{speed['plain']:.1f}", f"{speed['ours']:.1f}",
                f"**{line['ratio']:.2f}** ({low:.2f} to {high:.2f})",
                " / ".join(f"{memory[name] / 1e9:.1f} GB" for name in ("plain", "ours")), link(path),
            )  # fmt: skip
            lines.append(row(*cells))
        for line in report["ranks"]:
            speed = f"{line['samples_per_s']:.1f}"
            cells = (line["variant"], line["batch"], line["precision"], line["ranks"], "", speed, "", "", link(path))
            lines.append(row(*cells))
    return "\n".join(lines)


def curves() -> str:
    """How the accuracy on unseen puzzles rose with the samples of each training run."""
    lines = header("curve, run", "puzzles", "thousands of samples: right", "core-hours", "machine, date")
    for path, report in reports("training curve"):
        for run in dict.fromkeys(point["run"] for point in report["points"]):
            points = [point for point in report["points"] if point["run"] == run]
            every = -(-len(points) // MOST_POINTS)
            shown = points[::-1][::every][::-1]  # the last one among them
            rise = ", ".join(f"{point['samples'] / 1e3:.0f}: {point['exact_accuracy']:.1%}" for point in shown)
            name = path.stem.removeprefix("curve-")
            lines.append(
                row(f"{name}, {run}", points[0]["puzzles"], rise, f"{points[-1]['core_hours']:.2f}", link(path))
            )
    return "\n".join(lines)


def lattice_step() -> str:
    """One step of the lattice on CPUs, by every way of computing it."""
    lines = header("way", "threads", "ms at batch 1", "ms at batch 4, a puzzle", "machine, date")
    for path, report in reports("hrm-edge lattice step"):
        ms = {
            (line["backend"], line.get("precision", "fp32"), line["threads"], line["batch"]):
                f"{line['ms_per_puzzle']['median']:.2f}" for line in report["rows"]
        }  # fmt: skip
        for backend, precision, threads in dict.fromkeys(way[:3] for way in ms):
            cells = (ms[backend, precision, threads, batch] for batch in (1, 4))
            lines.append(row(f"{backend} {precision}", threads, *cells, link(path)))
    return "\n".join(lines)


def int8_exports() -> str:
    """What the gate of INT8 and float16 exports measured: their manifests."""
    lines = header(
        "task, variant, precision", "cells, weights in INT8", "ACT steps", "puzzles", "SQNR, dB",
        "carry cosine: mean, least", "same answers",
        "exact accuracy lost, points (95 %, paired)", "gate", "machine, date",
    )  # fmt: skip
    for path, manifest in reports("hrm-edge artifact"):
        last, spec = manifest["parity"][-1], manifest["spec"]
        low, high = manifest["accuracy_lost_interval_95"]
        in_int8 = manifest["quantization"]["bytes"]["int8"] if manifest["quantization"] else 0
        cells = (
            f"{manifest['task']}, {spec['variant']}, {manifest['precision']}",
            f"{spec['seq_len']}, {in_int8:,}", last["steps"],
            f"{last['puzzles']:,}", f"{last['logits_sqnr_db']:.1f}",
            f"{last['carry_cosine_mean']:.5f}, {last['carry_cosine']:.5f}", f"{last['same_answers']:.2%}",
            f"{manifest['accuracy_lost_points']:+.2f} ({low:+.2f} to {high:+.2f})",
            "passed" if manifest["gate"]["passed"] else "missed", link(path),
        )  # fmt: skip
        lines.append(row(*cells))
    return "\n".join(lines)


def boards() -> str:
    """Boards and cards whose owners handed a record in."""
    found, refused = read_archives(RESULTS / "boards")
    if refused:
        raise refused[0]
    return boards_table(found)


def arrivals() -> str:
    """How many commands and minutes a new user needs."""
    lines = header("who", "commands", "minutes", "of them", "load", "machine, date")
    for path, report in reports("hrm-edge arrive"):
        longest = sorted(report["commands"], key=lambda command: -command["seconds"])[:2]
        parts = ", ".join(f"`{_few_words(command['printed'])}` {command['seconds']:.0f} s" for command in longest)
        lines.append(
            row(report["user"], report["count"], f"{report['minutes']:.1f}", parts, f"{report['load']:.0f}", link(path))
        )
    return "\n".join(lines)


def _few_words(command: str) -> str:
    """A command's first words: the verb of ours, or the program with its first words."""
    words = command.split(" && ")[0].split()
    return " ".join(words[: 2 if words[0] == "hrm-edge" else 3])


TABLES = {
    "arrivals": arrivals,
    "boards": boards,
    "cpu-step": cpu_step,
    "cpu-halting": cpu_halting,
    "int8-parity": int8_parity,
    "shipped": shipped,
    "accuracy": accuracy,
    "arc": arc,
    "precisions": precisions,
    "latency": latency,
    "peers": peers,
    "photos": photos,
    "picture-time": picture_time,
    "hard-pictures": hard_pictures,
    "anytime": anytime,
    "video": video,
    "training": training,
    "int8-exports": int8_exports,
    "curves": curves,
    "lattice-step": lattice_step,
}


def rendered(document: Path) -> str:
    """A document's text with its tables replaced; the links are from its own folder."""
    text = document.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin = BEGIN.format(name)
        before, found, rest = text.partition(begin)
        if found:
            _, _, after = rest.partition(END)
            lines = table().replace(f"]({document.parent.relative_to(ROOT)}/", "](")
            if SITE in document.parents:  # results files are in the checkout, not on the site
                lines = re.sub(r"\[([^\]]*)\]\(benchmarks/[^)]*\)", r"\1", lines)
            text = f"{before}{begin}\n{lines}\n{END}{after}"
    return text


def main() -> int:
    fresh = {document: rendered(document) for document in DOCUMENTS}
    if missing := [name for name in TABLES if not any(BEGIN.format(name) in text for text in fresh.values())]:
        sys.exit(f"no document has the place of: {', '.join(missing)}")
    if "--check" in sys.argv:
        return int(any(document.read_text(encoding="utf-8") != text for document, text in fresh.items()))
    for document, text in fresh.items():
        write_text(document, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
