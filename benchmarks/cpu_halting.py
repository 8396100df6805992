"""What halting saves on this CPU: milliseconds per solved puzzle, and puzzles per second with slots that are refilled.

    python benchmarks/cpu_halting.py --machine NAME [--model sudoku-nano] [--int8 ARTIFACT] [--rounds N]

The model runs in the way that `hrm_edge.runtime.choose` finds fastest here, of the precisions that pass their gate. One
puzzle at a time it is held against the published loop in eager torch, float32: all the steps, nothing looked at before
the end. In 64 slots it is held against the same session taking all the steps for every puzzle. Both have a turn in
every round, and a ratio is taken within the round. "right" is the share of whole boards without an error: a saving
counts only where that is as high.

Writes benchmarks/results/NAME/cpu-halting-MODEL.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from program import command_line, program
from rich.console import Console
from rich.table import Table
from turns import ratios, summary

from hrm_edge import zoo
from hrm_edge.child import python_command
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.device.state import read_state, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.sets import shipped_set
from hrm_edge.runtime.choose import Candidate, candidates
from hrm_edge.solution import Solutions
from hrm_edge.solve import Halt, solve
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))
SLOTS = 64
COLD_STARTS = 6
LIMIT_SOLVED, LIMIT_REFILL = 0.05, 3.0

Tokens = NDArray[np.uint8]


def fixed_in_torch(model: HRM, puzzles: Tokens) -> Tokens:
    """Answers [N, S] of the published loop, one puzzle at a time."""
    answers = []
    with torch.inference_mode():
        for puzzle in torch.from_numpy(puzzles.astype(np.int32)):
            z_h, z_l = model.initial_state(1, torch.float32)
            for _ in range(model.spec.max_steps):
                z_h, z_l, logits, _ = model(puzzle[None], None, z_h, z_l)
            answers.append(logits.numpy().argmax(-1)[0].astype(np.uint8))
    return np.stack(answers)


def right(answers: Tokens, puzzles: Puzzles) -> float:
    assert puzzles.labels is not None
    return float((answers == puzzles.labels).all(axis=1).mean())


def require_some(share: float, who: str) -> None:
    """``UserError`` where nothing is solved: there is no time per solved puzzle."""
    if not share:
        raise UserError(f"{who} solves none of the puzzles", "measure a trained model, or more --puzzles")


def timed(way: Candidate, task: Task, puzzles: Puzzles, halt: Halt, slots: int) -> tuple[float, Solutions]:
    """Seconds of the whole set, and what came of it."""
    began = time.perf_counter()
    found = solve(way.session, task, puzzles.givens, halt=halt, slots=slots)
    return time.perf_counter() - began, found


def one_at_a_time(way: Candidate, model: HRM, task: Task, puzzles: Puzzles, rounds: int) -> dict[str, Any]:
    """Halting by the rules against all the steps in eager torch."""
    torch.set_num_threads(CORES)
    ours_ms, eager_ms, solved_ms, eager_each = [], [], [], []
    for _ in range(rounds):
        seconds, found = timed(way, task, puzzles, "rules", 1)
        ours_right = right(found.answers, puzzles)
        require_some(ours_right, "hrm-edge")
        began = time.perf_counter()
        eager_right = right(fixed_in_torch(model, puzzles.givens), puzzles)
        require_some(eager_right, "eager torch")
        eager_each.append(1e3 * (time.perf_counter() - began) / len(puzzles))
        ours_ms.append(1e3 * seconds / (ours_right * len(puzzles)))
        eager_ms.append(eager_each[-1] / eager_right)
        solved_ms.append(1e3 * float(found.latency_s[found.verified].mean()))
    return {
        "right": ours_right, "eager_right": eager_right, "mean_steps": float(found.steps.mean()),
        "mean_steps_of_solved": float(found.steps[found.verified].mean()),
        "ms_per_solved": summary(ours_ms), "eager_ms_per_solved": summary(eager_ms), "ratio": ratios(ours_ms, eager_ms),
        "solved_ms": summary(solved_ms), "eager_ms": summary(eager_each), "ratio_solved": ratios(solved_ms, eager_each),
    }  # fmt: skip


def refilled(way: Candidate, task: Task, puzzles: Puzzles, rounds: int) -> dict[str, Any]:
    """Refilled slots against all the steps for every puzzle, by the same session."""
    refill_per_s, fixed_per_s = [], []
    for _ in range(rounds):
        seconds, found = timed(way, task, puzzles, "rules", SLOTS)
        refill_per_s.append(len(puzzles) / seconds)
        seconds, fixed = timed(way, task, puzzles, "fixed", SLOTS)
        fixed_per_s.append(len(puzzles) / seconds)
    return {
        "right": right(found.answers, puzzles), "fixed_right": right(fixed.answers, puzzles),
        "mean_steps": float(found.steps.mean()), "refill_per_s": summary(refill_per_s),
        "fixed_per_s": summary(fixed_per_s), "ratio": ratios(refill_per_s, fixed_per_s),
    }  # fmt: skip


def solved_easily(way: Candidate, task: Task) -> str:
    """The first puzzle of the package's that one view solves, as a user would type it."""
    path = sample_file(task.name)
    if path is None:
        raise UserError(f"the package has no puzzles of {task.name}", "measure a model of Sudoku")
    puzzles = load_puzzles(path, task, SLOTS)
    found = solve(way.session, task, puzzles.givens)
    return task.format(puzzles.givens[int(found.verified.argmax())])


def fastest(folders: list[Path], batch: int) -> tuple[Candidate, str]:
    """The fastest way at a batch, of those whose gate passed, and its precision."""
    ways = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest.gate.passed:
            ways += [(way, manifest.precision) for way in candidates(folder, manifest, batch=batch)]
        else:
            print(f"{folder.name} fails its gate: left out", file=sys.stderr)
    if not ways:
        raise UserError(f"no artifact passes its gate: {', '.join(map(str, folders))}", "export the model again")
    return min(ways, key=lambda pair: pair[0].step_ms)


def cold_start(model: str, puzzle: str) -> dict[str, Any]:
    """Seconds of ``hrm-edge solve`` as a process: with an empty cache, and after that."""
    taken = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(COLD_STARTS):
            began = time.perf_counter()
            subprocess.run(
                python_command("-m", "hrm_edge", "solve", puzzle, "--model", model),
                env={**os.environ, "XDG_CACHE_HOME": cache}, stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            taken.append(time.perf_counter() - began)
    return {"first": taken[0], "next": summary(taken[1:])}


def sets_of(task: Task) -> dict[str, Puzzles]:
    """What ships for the task: minimal puzzles, and the calibration set, easy to extreme in equal parts."""
    files = {
        "the package's own, minimal": sample_file(task.name),
        "calibration set, easy to extreme": shipped_set(task.name),
    }
    return {title: load_puzzles(file, task) for title, file in files.items() if file is not None}


def run(options: argparse.Namespace) -> dict[str, Any]:
    folder = zoo.folder_of(options.model) or Path(options.model)
    model, info = recover(folder)
    task = get_task(info.task)
    int8 = Path(options.int8) if options.int8 else zoo.folder_of(f"{options.model}-int8")
    folders = [folder, *([int8] if int8 else [])]
    before = read_state()
    single, at_once = fastest(folders, 1), fastest(folders, SLOTS)
    rows = []
    for title, puzzles in sets_of(task).items():
        if puzzles.labels is None:
            raise UserError(f"{title}: the puzzles have no answers", "name a set that has them")
        print(title, file=sys.stderr)
        head, many = puzzles.head(options.puzzles), puzzles.head(options.in_slots)
        rows.append({
            "set": title,
            "one_at_a_time": {"puzzles": len(head), **one_at_a_time(single[0], model, task, head, options.rounds)},
            "slots": {"puzzles": len(many), **refilled(at_once[0], task, many, options.rounds)},
        })  # fmt: skip
    return {
        "kind": "hrm-edge cpu halting", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(), "model": folder.name,
        "device": describe_device().model_dump(mode="json"), "warnings": warnings_before(before, System()),
        "cores": CORES, "slots": SLOTS, "steps": model.spec.max_steps, "rounds": options.rounds,
        "way_one_at_a_time": f"{single[1]}, {single[0]}", "way_slots": f"{at_once[1]}, {at_once[0]}",
        "versions": {name: package_version(name) for name in ("torch", "onnxruntime", "openvino")},
        "cold_start_s": cold_start(options.model, solved_easily(single[0], task)),
        "sets": rows,
    }  # fmt: skip


def show(report: dict[str, Any]) -> None:
    table = Table(
        title=f"{report['model']}: one at a time by {report['way_one_at_a_time']}; slots by {report['way_slots']}"
    )
    for column in (
        "",
        "right / torch",
        "ms per solved / torch",
        "ratio",
        "of those solved",
        "puzzles/s / fixed",
        "ratio",
    ):
        table.add_column(column)
    for row in report["sets"]:
        one, many = row["one_at_a_time"], row["slots"]
        table.add_row(
            row["set"], f"{one['right']:.1%} / {one['eager_right']:.1%}",
            f"{one['ms_per_solved']['median']:.2f} / {one['eager_ms_per_solved']['median']:.1f}",
            f"{one['ratio']['median']:.3f}", f"{one['ratio_solved']['median']:.3f}",
            f"{many['refill_per_s']['median']:.0f} / {many['fixed_per_s']['median']:.0f}",
            f"{many['ratio']['median']:.2f}",
        )  # fmt: skip
    Console().print(table)
    cold = report["cold_start_s"]
    print(f"hrm-edge solve: {cold['first']:.2f} s with an empty cache, then {cold['next']['median']:.2f} s")


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="sudoku-nano", help="float32 artifact or shipped model")
    parser.add_argument("--int8", help="INT8 artifact of the same model; default: the shipped one, if there is one")
    parser.add_argument("--machine", required=True, help="folder in benchmarks/results")
    parser.add_argument("--puzzles", type=int, default=32, help="of each set, one at a time")
    parser.add_argument("--in-slots", type=int, default=128, help="puzzles of each set, in slots")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = run(options)
    out = ROOT / "benchmarks" / "results" / options.machine / f"cpu-halting-{report['model']}.json"
    write_json(out, report)
    show(report)
    print(out.relative_to(ROOT))
    kept = all(
        row["one_at_a_time"]["ratio"]["median"] <= LIMIT_SOLVED and row["slots"]["ratio"]["median"] >= LIMIT_REFILL
        for row in report["sets"]
    )
    if not kept:
        print(f"missed: wanted at most {LIMIT_SOLVED} per solved puzzle and at least {LIMIT_REFILL}x", file=sys.stderr)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
