"""One ACT step of a lattice on this CPU in float32: our own step, ONNX Runtime and eager torch, taking turns.

    python benchmarks/lattice_step.py --machine NAME       measures; the machine should do nothing else (1 minute)
    python benchmarks/lattice_step.py --machine NAME --int8 ARTIFACT      INT8 of the same model, and OpenVINO, too

A ratio is taken within a round, so a change of the machine's clock meets all of them. The base is eager torch on all
cores. Figures are per puzzle: the step of a batch, divided by its puzzles. Our own step and torch are compared first.

Writes benchmarks/results/NAME/lattice-step.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cpu_step import CORES, EAGER, ROOT, STEPS_A_TURN, samples, turn
from program import command_line, program
from rich.console import Console
from rich.table import Table
from turns import ratios, summary

from hrm_edge import zoo
from hrm_edge.costs import flops_per_step
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.device.state import read_state, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.model.session import TorchSession
from hrm_edge.runtime import open_step
from hrm_edge.session import Session

BATCHES = (1, 4)
PACKAGES = ("torch", "onnxruntime", "onnx")


def step_of(session: Session, batch: int) -> Callable[[], Any]:
    """A step from the carry that one step leaves."""
    tokens, ids = samples().givens[:batch], np.zeros(batch, np.int32)
    carry, _, _ = session.step(tokens, ids, session.initial_carry(batch))
    return lambda: session.step(tokens, ids, carry)


def eager(session: Session, threads: int, batch: int) -> Callable[[], Any]:
    step = step_of(session, batch)

    def with_threads() -> Any:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return step()

    return with_threads


def measure(name: str, rounds: int, int8: Path | None) -> dict[str, Any]:
    folder = zoo.folder_of(name)
    if folder is None or read_manifest(folder).spec.mixing != "groups":
        raise UserError(f"{name} is no lattice at hand", "see: hrm-edge models")
    before, manifest = read_state(), read_manifest(folder)
    others = [("onnxruntime", folder), ("native", folder)]
    if int8 is not None:
        others += [("openvino", folder), ("onnxruntime", int8), ("openvino", int8)]
    model = recover(folder)[0]
    plain, counts = TorchSession(model), sorted({1, CORES}, reverse=True)
    rows = []
    for batch in BATCHES:
        ways = {("torch", "fp32", threads): eager(plain, threads, batch) for threads in counts}
        for backend, path in others:
            about = read_manifest(path)
            for threads in counts:
                session = open_step(path, about, threads, backend)  # type: ignore[arg-type]
                ways[backend, about.precision, threads] = step_of(session, batch)
        ms: dict[tuple[str, str, int], list[float]] = {way: [] for way in ways}
        for round_ in range(rounds + 1):  # the first warms up
            print(f"batch {batch}: round {round_} of {rounds}", file=sys.stderr)
            for way, step in ways.items():
                ms[way].append(turn(step) / batch)
        base = ms["torch", "fp32", CORES][1:]
        rows += [
            {"batch": batch, "backend": backend, "precision": precision, "threads": threads,
             "ms_per_puzzle": summary(taken[1:]),
             "gflops": flops_per_step(model.spec) / (1e6 * min(taken[1:])), "against_eager": ratios(taken[1:], base)}
            for (backend, precision, threads), taken in ms.items()
        ]  # fmt: skip
    return {
        "kind": "hrm-edge lattice step", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(), "model": name, "flops_per_step": flops_per_step(model.spec),
        "device": describe_device().model_dump(mode="json"), "warnings": warnings_before(before, System()),
        "cores": CORES, "rounds": rounds, "steps_a_turn": STEPS_A_TURN, "base": f"{EAGER}, {CORES} threads",
        "versions": {package: package_version(package) for package in PACKAGES},
        "logits_off_torch": off(plain, open_step(folder, manifest, 1, "native")), "rows": rows,
    }  # fmt: skip


def off(plain: Session, ours: Session) -> float:
    """Largest difference of a logit after one step."""
    tokens, ids = samples().givens[:64], np.zeros(64, np.int32)
    logits = [session.step(tokens, ids, session.initial_carry(len(tokens)))[1] for session in (plain, ours)]
    return float(np.abs(logits[0] - logits[1]).max())


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--machine", required=True, help="folder in benchmarks/results")
    parser.add_argument("--model", default="sudoku-lattice")
    parser.add_argument("--int8", type=Path, metavar="ARTIFACT", help="its INT8 export, to be measured beside it")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    report = measure(options.model, options.rounds, options.int8)
    out = ROOT / "benchmarks" / "results" / options.machine / "lattice-step.json"
    write_json(out, report)
    table = Table(title=f"{options.model}, one step; native float32 off torch: {report['logits_off_torch']:.1e}")
    for column in ("batch", "", "threads", "ms per puzzle (least)", "GFLOP/s at best", "of eager torch (spread)"):
        table.add_column(column)
    for row in report["rows"]:
        ms, ratio = row["ms_per_puzzle"], row["against_eager"]
        table.add_row(
            str(row["batch"]), f"{row['backend']} {row['precision']}", str(row["threads"]),
            f"{ms['median']:.2f} ({ms['min']:.2f})", f"{row['gflops']:.0f}",
            f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})",
        )  # fmt: skip
    Console().print(table)
    print(out.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
