"""Training throughput: our loop against a plain eager loop with the published semantics, in one run, alternating.

    python benchmarks/training.py [--variant reduced] [--batch 64 ...] [--precision bf16] [--ranks 2] [--threads 2]

Both sides train the same model from the same weights on the same puzzles: ACT steps with carry, deep supervision,
stablemax loss in float64, AdamATan2. The plain loop does it as the published code does: eager, torch's SDPA, one
parameter of the optimizer after the other, the losses read back every step; ours is the learner of ``hrm-edge train``.
Rounds alternate (plain, ours, plain, …), the figure is the median round, the spread its quartiles. ``--ranks`` adds
``hrm-edge train --nproc`` at each count, from its own log: processes share the cores of one machine.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hrm_edge import __version__
from hrm_edge.data.build import Options, build
from hrm_edge.data.dataset import Dataset
from hrm_edge.device.identity import describe_device
from hrm_edge.errors import HrmEdgeError
from hrm_edge.files import write_json
from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Recipe
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.train.distributed import World
from hrm_edge.train.feed import Feed
from hrm_edge.train.learner import Learner

PUZZLES = 2000
RESULTS = Path(__file__).parent / "results"


class PlainLoop:
    """The published semantics without any care for speed."""

    def __init__(self, recipe: Recipe, spec: ModelSpec, feed: Feed, device: torch.device) -> None:
        self.recipe, self.feed, self.device = recipe, feed, device
        torch.manual_seed(recipe.seed)
        self.model = HRM(spec).to(device)
        dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
        self.carry = fresh_carry(self.model, recipe.train.batch, dtype)
        self.state = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in self.model.parameters()]
        self.steps = 0

    def train_step(self) -> None:
        options = self.recipe.train
        batch = [t.to(self.device) for t in self.feed.take(options.batch, 0.0)]  # a whole batch, taken or not
        self.carry = admit(self.model, self.carry, *batch)
        with mock.patch("hrm_edge.ops.reference._slow_sdpa", return_value=False):
            step = act_step(self.model, self.carry, loss="stablemax")
            (step.loss.total / options.batch).backward()
        self.steps += 1
        with torch.no_grad():
            for p, m, v in self.state:
                if p.grad is not None:
                    self._update(p, p.grad, m, v)
                    p.grad = None
        self.carry = step.carry
        _ = [float(value) for value in (step.loss.lm, step.loss.q_halt, step.loss.cell_accuracy)]

    def _update(self, p: Tensor, grad: Tensor, m: Tensor, v: Tensor) -> None:
        options, t = self.recipe.train, self.steps
        b1, b2 = options.betas
        p.mul_(1 - options.lr * options.weight_decay)
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        p.add_(torch.atan2(m, v.sqrt() / math.sqrt(1 - b2**t)), alpha=-options.lr / (1 - b1**t))


def recipe_for(variant: str, batch: int, precision: str, data: Path) -> Recipe:
    """Constant rate, no curriculum: only the arithmetic matters here."""
    train = {"batch": batch, "precision": precision, "warmup": 0, "ema": 0.0, "halt_exploration": 0.0}
    return Recipe(task="sudoku", variant=variant, data=str(data), train=train)


def rate(step: Callable[[], Any], batch: int, steps: int, device: torch.device) -> float:
    """Samples per second over ``steps`` optimizer steps."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return batch * steps / (time.perf_counter() - begun)


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int | None:
    """Most GPU memory that one step holds; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def compare(variant: str, batch: int, precision: str, data: Dataset, rounds: int, steps: int) -> dict[str, Any]:
    """One row: both loops, alternating."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = Sudoku(3, 3)
    recipe = recipe_for(variant, batch, precision, data.folder)
    spec = variant_spec(variant, vocab=task.vocab, seq_len=task.seq_len, grid=task.grid)
    plain = PlainLoop(recipe, spec, Feed(data, task, recipe.augment, 0), device)
    ours = Learner(recipe, spec, Feed(data, task, recipe.augment, 0), World(device))
    ours.connect()
    loops: dict[str, Callable[[], Any]] = {"plain": plain.train_step, "ours": ours.train_step}
    memory = {name: (step(), peak_bytes(step, device))[1] for name, step in loops.items()}  # the first one warms up
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for name, step in loops.items():
            rates[name].append(rate(step, batch, steps, device))
    ratios = [b / a for a, b in zip(rates["plain"], rates["ours"], strict=True)]
    return {
        "variant": variant,
        "batch": batch,
        "precision": precision,
        "samples_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else None,
        "rounds": rounds,
        "steps_per_round": steps,
        "peak_memory_bytes": memory,
        "not_compiled": ours.why_not_compiled or None,
    }


def ranks_row(variant: str, batch: int, precision: str, ranks: int, data: Path, seconds: int) -> dict[str, Any]:
    """Throughput that ``hrm-edge train --nproc`` logs: the median of its windows after the first."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(recipe_for(variant, batch, precision, data).dump(), encoding="utf-8")
        command = [sys.executable, "-m", "hrm_edge", "train", str(recipe), "--out", f"{folder}/run"]
        command += ["--nproc", str(ranks), "--time-limit", f"{seconds}s"]
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if line["kind"] == "train"][1:]
    measured = statistics.median(rates) if rates else None
    return {"variant": variant, "batch": batch, "precision": precision, "ranks": ranks, "samples_per_s": measured}


def show(report: dict[str, Any]) -> None:
    device = report["device"]
    machine = device["gpus"][0] if device["gpus"] else device["cpu"]
    table = Table(title=f"training throughput, {machine}, {report['threads']} threads")
    for column in ("variant", "batch", "precision", "plain samples/s", "ours samples/s", "ratio", "quartiles"):
        table.add_column(column, justify="right")
    for row in report["rows"]:
        quartiles = "-" if row["ratio_quartiles"] is None else "{:.2f} to {:.2f}".format(*row["ratio_quartiles"])
        both = (f"{row['samples_per_s'][name]:.1f}" for name in ("plain", "ours"))
        table.add_row(row["variant"], str(row["batch"]), row["precision"], *both, f"{row['ratio']:.2f}", quartiles)
    console = Console()
    console.print(table)
    for row in report["ranks"]:
        figure = "not measured: too few steps in the time" if row["samples_per_s"] is None else row["samples_per_s"]
        console.print(f"{row['ranks']} processes, batch {row['batch']}: {figure} samples/s")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--variant", default="reduced", choices=["full", "reduced", "nano"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--ranks", type=int, nargs="*", default=[], help="process counts of hrm-edge train --nproc")
    parser.add_argument("--seconds", type=int, default=60, help="of each run with --ranks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps per round and side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True, help="JSON: benchmarks/results/MACHINE/training.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data"
            build(Sudoku(3, 3), path, Options(count=PUZZLES, test_count=10))
            data = Dataset(path, "train", Sudoku(3, 3))
            rows = [
                compare(options.variant, batch, precision, data, options.rounds, options.steps)
                for batch in options.batch
                for precision in options.precision
            ]
            last = (options.batch[-1], options.precision[-1])
            ranks = [ranks_row(options.variant, *last, count, path, options.seconds) for count in options.ranks]
    except HrmEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    report = {
        "kind": "training throughput",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": describe_device().model_dump(mode="json"),
        "versions": {"hrm_edge": __version__, "torch": str(torch.__version__)},
        "threads": options.threads,
        "rows": rows,
        "ranks": ranks,
    }
    write_json(options.out, report)
    show(report)
    print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
