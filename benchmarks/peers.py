"""hrm-edge beside other ways to run the same weights on this CPU: one run, taking turns, ratios with their spread.

    python benchmarks/peers.py --fp32 sudoku-nano [--int8 MODEL] --machine NAME [--threads N] [--rounds N]

Everyone solves the same puzzles one at a time. A peer does what its users do: the model's step in a loop for all the
steps, as the published evaluation does. hrm-edge is measured twice: for all the steps too ("fixed", the same work), and
as it is meant to be used, stopping when the rules are kept ("rules"). In each round everyone has a turn, in an order
that moves on by one; a ratio is taken within a round, so a change of the machine's clock meets both sides.

Writes benchmarks/results/NAME/peers-MODEL.json. The naive exports need onnxscript.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from naive import Step, naive_export, require_exporter
from numpy.typing import NDArray
from program import command_line, program
from turns import ratios, summary

from hrm_edge import zoo
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.device.state import read_state, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.quiet import import_onnxruntime, import_openvino
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.native.session import available
from hrm_edge.solve import Halt, solve
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.samples import sample_file

Tokens = NDArray[np.uint8]
Answer = Callable[[Tokens], tuple[Tokens, int]]
"""One puzzle [1, S] → its answer [S] and the steps it took."""
BASE = "hrm-edge, onnxruntime fp32, fixed"
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnxscript")


@dataclass(frozen=True)
class Given:
    """What everyone starts from."""

    model: HRM
    fp32: Path
    int8: Path | None
    task: Task
    steps: int
    threads: int
    scratch: Path


def looped(
    step: Callable[[Any, Any, Any], Any], given: Given, to: Callable[[Any], Any], back: Callable[[Any], Any]
) -> Answer:
    """A loop over all the steps, as the published evaluation has it; ``to`` and ``back``: from and to numpy."""
    start = [to(level.numpy()) for level in given.model.initial_state(1, torch.float32)]

    def answer(puzzle: Tokens) -> tuple[Tokens, int]:
        cells, (z_h, z_l) = to(puzzle.astype(np.int32)), start
        for _ in range(given.steps):
            z_h, z_l, logits, _ = step(cells, z_h, z_l)
        return back(logits).argmax(-1)[0].astype(np.uint8), given.steps

    return answer


def eager(given: Given) -> Answer:
    def step(cells: Any, z_h: Any, z_l: Any) -> Any:
        with torch.inference_mode():
            return given.model(cells, None, z_h, z_l)

    return looped(step, given, torch.from_numpy, lambda logits: logits.numpy())


def compiled(given: Given) -> Answer:
    module = torch.compile(Step(given.model), fullgraph=True)

    def step(cells: Any, z_h: Any, z_l: Any) -> Any:
        with torch.no_grad():
            return module(cells, z_h, z_l)

    return looped(step, given, torch.from_numpy, lambda logits: logits.numpy())


def naive_file(given: Given) -> Path:
    """torch.onnx.export of the step with its defaults."""
    path = given.scratch / "naive.onnx"
    if not path.exists():
        z_h, z_l = (level.numpy() for level in given.model.initial_state(1, torch.float32))
        naive_export(given.model, {"tokens": np.ones((1, given.task.seq_len), np.int32), "z_h": z_h, "z_l": z_l}, path)
    return path


def naive_onnxruntime(given: Given) -> Answer:
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    session = onnxruntime.InferenceSession(str(naive_file(given)), options, providers=["CPUExecutionProvider"])

    def step(cells: Any, z_h: Any, z_l: Any) -> Any:
        return session.run(None, {"tokens": cells, "z_h": z_h, "z_l": z_l})

    return looped(step, given, np.asarray, np.asarray)


def naive_openvino(given: Given) -> Answer:
    """Defaults: on a processor with AMX these compute in bfloat16."""
    openvino = import_openvino()

    request = (
        openvino.Core()
        .compile_model(
            str(naive_file(given)), "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": given.threads}
        )
        .create_infer_request()
    )

    def step(cells: Any, z_h: Any, z_l: Any) -> Any:
        found = request.infer({"tokens": cells, "z_h": z_h, "z_l": z_l})
        return [found[index] for index in range(4)]

    return looped(step, given, np.asarray, np.asarray)


def ours(folder: Path | None, backend: Any, halt: Halt) -> Callable[[Given], Answer]:
    def build(given: Given) -> Answer:
        assert folder is not None
        session, _ = open_artifact(folder, given.threads, backend)

        def answer(puzzle: Tokens) -> tuple[Tokens, int]:
            found = solve(session, given.task, puzzle, halt=halt, max_steps=given.steps, slots=1)
            return found.answers[0], int(found.steps[0])

        return answer

    return build


def contestants(given: Given) -> dict[str, Callable[[Given], Answer]]:
    found = {
        BASE: ours(given.fp32, "onnxruntime", "fixed"),
        "hrm-edge, onnxruntime fp32, rules": ours(given.fp32, "onnxruntime", "rules"),
        "hrm-edge, openvino fp32, fixed": ours(given.fp32, "openvino", "fixed"),
        "hrm-edge, openvino fp32, rules": ours(given.fp32, "openvino", "rules"),
    }
    if given.int8 is not None:
        own = ("native",) if available(read_manifest(given.int8)) else ()
        for backend in ("onnxruntime", "openvino", *own):
            for halt in ("fixed", "rules"):
                found[f"hrm-edge, {backend} int8, {halt}"] = ours(given.int8, backend, halt)  # type: ignore[arg-type]
    found["torch eager, published loop"] = eager
    found["torch.compile, published loop"] = compiled
    found["torch.onnx.export + onnxruntime, defaults"] = naive_onnxruntime
    found["torch.onnx.export + openvino, defaults (bf16)"] = naive_openvino
    return found


@dataclass
class Times:
    """One contestant's rounds."""

    ms_per_puzzle: list[float]
    ms_per_step: list[float]
    answers: list[Tokens]


def measure(given: Given, puzzles: Tokens, rounds: int) -> dict[str, Times]:
    built: dict[str, Answer] = {}
    for name, build in contestants(given).items():
        print(f"building {name}", file=sys.stderr)
        built[name] = build(given)
        for puzzle in puzzles[:2]:  # warm: compile, allocate, learn the threads
            built[name](puzzle[None])
    times = {name: Times([], [], []) for name in built}
    order = list(built)
    for round_ in range(rounds):
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
        for name in order[round_ % len(order) :] + order[: round_ % len(order)]:
            began, steps, answers = time.monotonic(), 0, []
            for puzzle in puzzles:
                answer, taken = built[name](puzzle[None])
                steps += taken
                answers.append(answer)
            ms = 1e3 * (time.monotonic() - began)
            times[name].ms_per_puzzle.append(ms / len(puzzles))
            times[name].ms_per_step.append(ms / steps)
            times[name].answers = answers
    return times


def rows(times: dict[str, Times], labels: Tokens) -> list[dict[str, Any]]:
    base = times[BASE]
    found = []
    for name, own in times.items():
        same = [bool((a == b).all()) for a, b in zip(own.answers, base.answers, strict=True)]
        right = [bool((a == b).all()) for a, b in zip(own.answers, labels, strict=True)]
        found.append({
            "name": name, "ms_per_puzzle": summary(own.ms_per_puzzle), "ms_per_step": summary(own.ms_per_step),
            "time_against_base": ratios(own.ms_per_puzzle, base.ms_per_puzzle),
            "same_answers_as_base": sum(same) / len(same), "exact_accuracy": sum(right) / len(right),
        })  # fmt: skip
    return found


def folder_of(name: str) -> Path:
    return zoo.folder_of(name) or Path(name)


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from hrm_edge.data.puzzles import load_puzzles

    require_exporter()
    torch.set_num_threads(options.threads)
    fp32 = folder_of(options.fp32)
    model, info = recover(fp32)
    task = get_task(info.task)
    source = options.data or sample_file(task.name)
    if source is None:
        raise UserError(f"the package has no puzzles of {task.name}", "name a set: --data PATH")
    puzzles = load_puzzles(source, task, options.puzzles)
    if puzzles.labels is None:
        raise UserError(f"{source} has no answers", "name a set that has them")
    int8 = folder_of(options.int8) if options.int8 else None
    given = Given(model, fp32, int8, task, model.spec.max_steps, options.threads, scratch)
    before = read_state()
    times = measure(given, puzzles.givens, options.rounds)
    return {
        "kind": "hrm-edge peers", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(), "model": options.fp32,
        "device": describe_device().model_dump(mode="json"), "warnings": warnings_before(before, System()),
        "threads": options.threads, "puzzles": len(puzzles), "steps": given.steps, "rounds": options.rounds,
        "base": BASE,
        "versions": {name: package_version(name) for name in PACKAGES},
        "rows": rows(times, puzzles.labels),
    }  # fmt: skip


def show(report: dict[str, Any]) -> None:
    print(f"{'':47} {'ms/puzzle':>10} {'ms/step':>8} {'time / base':>22} {'same':>6} {'right':>6}")
    for row in report["rows"]:
        ratio = row["time_against_base"]
        spread = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        print(f"{row['name']:47} {row['ms_per_puzzle']['median']:>10.2f} {row['ms_per_step']['median']:>8.3f} "
              f"{spread:>22} {row['same_answers_as_base']:>6.0%} {row['exact_accuracy']:>6.0%}")  # fmt: skip


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--fp32", default="sudoku-nano", help="float32 artifact or shipped model")
    parser.add_argument("--int8", help="the same model in INT8: a shipped name or an artifact")
    parser.add_argument("--machine", required=True, help="folder in benchmarks/results")
    parser.add_argument("--data", help="puzzles with answers; default: the package's own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--puzzles", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report = run(options, Path(scratch))
    name = Path(options.fp32).name
    out = Path(__file__).parent / "results" / options.machine / f"peers-{name}.json"
    write_json(out, report)
    show(report)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
