"""Accuracy against core-hours of a training run, as JSON and a plot: where it still climbs, training on pays.

    python benchmarks/curve.py RUN [RUN ...] [--cores 1] --json FILE [--plot FILE.png] [--against FILE]

The RUNs continue each other: each began with the last weights of the one before (``--set init=RUN``). Every point is
an evaluation of the run's own log, on held-out puzzles with the averaged weights. Core-hours are wall time times
--cores, waiting included, so they are an upper bound. --against draws the curves of other results files of this
program too. The plot needs matplotlib (pip install 'hrm-edge[report]').
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from program import program

from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, read_json, write_json
from hrm_edge.report.figures import wilson_95


def points_of(runs: list[Path], cores: float) -> list[dict[str, Any]]:
    """One point for every evaluation, samples and core-hours summed over the runs before it."""
    found: list[dict[str, Any]] = []
    samples, seconds = 0, 0.0
    for run in runs:
        log = run / "metrics.jsonl"
        try:
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise UserError(f"no training log {log.name} in {run.name}", "name the folder of a run") from error
        evaluations = [line for line in lines if line["kind"] == "eval"]
        if not evaluations:
            raise UserError(f"{run.name} was never evaluated", "let it run for longer, or set evaluate.every lower")
        for line in evaluations:
            right = round(line["exact_accuracy"] * line["puzzles"])
            found.append({
                "run": run.name, "samples": samples + line["samples"], "puzzles": round(line["puzzles"]),
                "core_hours": (seconds + line["seconds"]) * cores / 3600, "exact_accuracy": line["exact_accuracy"],
                "interval_95": wilson_95(right, round(line["puzzles"])),
            })  # fmt: skip
        samples, seconds = samples + evaluations[-1]["samples"], seconds + evaluations[-1]["seconds"]
    return found


def plot(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Accuracy with its 95 % band; where a run ends and the next begins, a dotted line."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib", "pip install 'hrm-edge[report]'") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        hours = [point["core_hours"] for point in points]
        low, high = zip(*(point["interval_95"] for point in points), strict=True)
        axes.fill_between(hours, low, high, alpha=0.2, linewidth=0)
        right = [point["exact_accuracy"] for point in points]
        axes.plot(hours, right, marker=".", label=f"{name}, {points[-1]['puzzles']} puzzles")
        for before, after in itertools.pairwise(points):
            if before["run"] != after["run"]:
                axes.axvline(before["core_hours"], linestyle=":", color="grey", linewidth=1)
    axes.set(xlabel="core-hours", ylabel="exactly right, one view", xlim=(0, None), ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    axes.set_title("held-out puzzles, band: 95 %", fontsize=10)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--cores", type=float, default=1, help="that the runs had (default: 1)")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="FILE", help="results of other curves")
    arguments = parser.parse_args()
    points = points_of(arguments.runs, arguments.cores)
    write_json(arguments.json, {
        "kind": "training curve", "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": describe_device().model_dump(mode="json"), "cores": arguments.cores, "points": points,
    })  # fmt: skip
    if arguments.plot:
        others = {file.stem.removeprefix("curve-"): read_json(file)["points"] for file in arguments.against}
        plot({arguments.json.stem.removeprefix("curve-"): points, **others}, arguments.plot)
    last = points[-1]
    print(f"{last['core_hours']:.2f} core-hours, {last['samples']:,} samples: {last['exact_accuracy']:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
