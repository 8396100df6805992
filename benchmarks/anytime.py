"""Share of puzzles solved against the milliseconds spent on each: models, runtimes and retry policies side by side.

    python benchmarks/anytime.py --data PUZZLES --machine NAME [--puzzles 200] [--budget 2] [--plot FILE.png]
                                 --way sudoku-lattice --way sudoku-lattice,steps=8 --way sudoku-nano-int8,backend=native

A way is a model, then after commas: backend=NAME, threads=N (default 1), steps=N (ACT steps of one view; default: the
model's own), guesses=N. Each way solves the puzzles one at a time, tries further views of a puzzle until the rules
are kept, and gives it up after --budget seconds. The time of a puzzle is what its own steps took, on a machine that
should do nothing else. Puzzles are counted as solved only where the answer is the right one; answers that kept the
rules and were wrong are counted apart, and must be 0.

Writes benchmarks/results/NAME/anytime-PUZZLES.json.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from program import command_line, program
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hrm_edge import zoo
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.device.identity import describe_device
from hrm_edge.device.state import read_state, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.report.figures import wilson_95
from hrm_edge.runtime import open_artifact
from hrm_edge.solve import solve
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import exact
from hrm_edge.tasks.puzzles import Puzzles

ROOT = Path(__file__).resolve().parent.parent
MARKS_MS = (10, 50, 200, 1000, 5000)
MOST_VIEWS = 10_000
"""More than a budget allows: the budget ends the views, not their number."""


def parse_way(text: str) -> tuple[str, dict[str, Any]]:
    """Return the model and the options of ``NAME[,backend=NAME][,threads=N][,steps=N][,guesses=N]``."""
    model, *pairs = text.split(",")
    options: dict[str, Any] = {"backend": None, "threads": 1, "steps": None, "guesses": None}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in options or not value or (key != "backend" and not value.isdecimal()):
            raise UserError(
                f"--way {text}: '{pair}' is no option of a way",
                "write backend=NAME, threads=N, steps=N or guesses=N, such as sudoku-lattice,steps=8",
            )
        options[key] = value if key == "backend" else int(value)
    return model, options


def measure(way: str, puzzles: Puzzles, budget_s: float) -> dict[str, Any]:
    """Solve every puzzle alone in one way; the times are those of the puzzles solved rightly, in order."""
    model, options = parse_way(way)
    session, manifest = open_artifact(zoo.path_of(model), options["threads"], options["backend"])
    task = get_task(manifest.task)
    assert puzzles.labels is not None
    solve(session, task, puzzles.givens[:1], max_steps=2)  # caches and memory of the first step are no puzzle's
    solved_ms, wrong, steps = [], 0, 0
    for row in track(range(len(puzzles)), way, console=Console(stderr=True), transient=True):
        solutions = solve(
            session, task, puzzles.givens[row : row + 1], max_steps=options["steps"], guesses=options["guesses"],
            views=MOST_VIEWS, budget_s=budget_s, slots=1, seed=row,
        )  # fmt: skip
        steps += int(solutions.steps[0])
        if solutions.verified[0]:
            if exact(solutions.answers, puzzles.labels[row : row + 1])[0]:
                solved_ms.append(1e3 * float(solutions.latency_s[0]))
            else:
                wrong += 1
    solved_ms.sort()
    return {
        "way": way, "model": model, **options, "precision": manifest.precision, "engine": session.backend,
        "puzzles": len(puzzles), "solved": len(solved_ms), "interval_95": wilson_95(len(solved_ms), len(puzzles)),
        "wrong": wrong, "steps": steps, "solved_ms": [round(ms, 3) for ms in solved_ms],
        "solved_by_ms": {str(mark): int(np.searchsorted(solved_ms, mark, "right")) for mark in marks(budget_s)},
    }  # fmt: skip


def marks(budget_s: float) -> list[int]:
    """Milliseconds that the table tells the share of, up to the budget."""
    return [mark for mark in MARKS_MS if mark <= 1e3 * budget_s]


def plot(report: dict[str, Any], path: Path) -> None:
    """One curve a way: milliseconds, logarithmic, against the share solved."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib", "pip install 'hrm-edge[report]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    end = 1e3 * report["budget_s"]
    for line in report["ways"]:
        times = np.array([*line["solved_ms"], end])
        share = np.append(np.arange(1, line["solved"] + 1), line["solved"]) / line["puzzles"]
        axes.step(times, share, where="post", label=line["way"])
    axes.set(xlabel="milliseconds per puzzle", ylabel="solved", xscale="log", ylim=(0, 1), xlim=(None, end))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    axes.set_title(f"{report['puzzles']} puzzles of {report['data']}, one at a time", fontsize=10)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['puzzles']} puzzles of {report['data']}, one at a time")
    for column in ("way", *(f"{mark} ms" for mark in marks(report["budget_s"])), "wrong"):
        left = column == "way"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for line in report["ways"]:
        shares = (f"{count / line['puzzles']:.0%}" for count in line["solved_by_ms"].values())
        table.add_row(line["way"], *shares, str(line["wrong"]))
    Console().print(table)


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="file of puzzles with their answers")
    parser.add_argument("--machine", required=True, help="folder in benchmarks/results")
    parser.add_argument("--way", action="append", required=True, metavar="MODEL[,KEY=VALUE...]", dest="ways")
    parser.add_argument("--puzzles", type=int, default=200)
    parser.add_argument("--budget", type=float, default=2.0, metavar="SECONDS", help="of one puzzle (default: 2)")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    names = [parse_way(way)[0] for way in options.ways]
    task = get_task(read_manifest(zoo.path_of(names[0])).task)
    puzzles = load_puzzles(options.data, task, options.puzzles)
    if not puzzles.answered().all():
        raise UserError(f"{options.data}: a puzzle has no answer to compare with", "give a set with answers")
    before = read_state()
    report = {
        "kind": "hrm-edge anytime", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(), "data": options.data.name, "puzzles": len(puzzles),
        "budget_s": options.budget, "device": describe_device().model_dump(mode="json"),
        "ways": [measure(way, puzzles, options.budget) for way in options.ways],
        "warnings": warnings_before(before, System()),
    }  # fmt: skip
    show(report)
    out = ROOT / "benchmarks" / "results" / options.machine / f"anytime-{options.data.name.split('.')[0]}.json"
    write_json(out, report)
    print(out.relative_to(ROOT))
    if options.plot:
        plot(report, options.plot)
    return int(any(line["wrong"] for line in report["ways"]))


if __name__ == "__main__":
    sys.exit(main())
