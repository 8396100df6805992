"""Training throughput: our loop against a plain eager loop with the published semantics, in one run, alternating.

    python benchmarks/training.py [--variant reduced] [--batch 64 ...] [--precision bf16] [--ranks 2] [--threads 2]
                                  [--profile] --out FILE

Both sides train the same model from the same weights on the same puzzles: ACT steps with carry, deep supervision,
stablemax loss in float64, AdamATan2. The plain loop does it as the published code does: eager, torch's SDPA, one
parameter of the optimizer after the other, the losses read back every step; ours is the learner of ``hrm-edge train``
with that command's settings. Each side has a process of its own and waits while the other works.
Rounds alternate (plain, ours, plain, …), the figure is the median round, the spread its quartiles. ``--ranks`` adds
``hrm-edge train --nproc`` at each count, from its own log: processes share the cores of one machine. ``--profile`` says
where the time of a step goes on both sides. Rows are added to those that ``--out`` holds from this machine and these
versions, so that a record can be made in pieces.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from program import program
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hrm_edge import __version__
from hrm_edge.child import python_command, spawn_context
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.sudoku import Options, build
from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import read_json, write_json
from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Recipe
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.training.distributed import World
from hrm_edge.training.feed import Feed
from hrm_edge.training.learner import Learner
from hrm_edge.training.memory import keep_memory

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
        with torch.no_grad(), torch.profiler.record_function("Optimizer.step#plain"):
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


PARTS = (  # of a step, by the first name that fits
    ("optimizer", ("Optimizer.step#",)),
    ("matrix products", ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "aten::matmul", "mkldnn")),
    ("attention in one kernel", ("aten::_scaled_dot_product", "aten::_flash_attention")),
    ("copies and casts", ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat")),
    ("compiled: norms, softmax, activations, layout", ("## Call CompiledFxGraph",)),
)


def where_time_goes(step: Callable[[], Any], steps: int = 2) -> dict[str, float]:
    """Milliseconds of a step by its part, by torch's profiler, which itself slows small operators."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    times: dict[str, float] = {}
    for event in profiler.events():
        names, parent = [event.name], event.cpu_parent
        while parent is not None:
            names, parent = [*names, parent.name], parent.cpu_parent
        part = _part(names)
        times[part] = times.get(part, 0.0) + event.self_cpu_time_total / 1e3 / steps
    return times


def _part(names: list[str]) -> str:
    """The part that an operator belongs to: its own name, or the optimizer where that called it."""
    (optimizer, marks), *others = PARTS
    if any(name.startswith(marks) for name in names):
        return optimizer
    return next((part for part, starts in others if names[0].startswith(starts)), "everything else")


def recipe_for(variant: str, batch: int, precision: str, data: Path) -> Recipe:
    """Constant rate, no curriculum: only the arithmetic matters here."""
    train = {"batch": batch, "precision": precision, "warmup": 0, "ema": 0.0, "halt_exploration": 0.0}
    return Recipe(task="sudoku", variant=variant, data=str(data), train=train)


@dataclass(frozen=True)
class Setting:
    """What both sides train; ``data`` is a built folder of 9x9 Sudoku."""

    variant: str
    batch: int
    precision: str
    threads: int
    data: Path

    def row(self) -> dict[str, Any]:
        return {"variant": self.variant, "batch": self.batch, "precision": self.precision}


def serve(name: str, setting: Setting, pipe: Connection) -> None:
    """One side, in a process of its own as its users have it: answers numbers of steps with samples per second, and
    other words with what they ask for, until None."""
    if name == "ours":
        keep_memory()
    torch.set_num_threads(setting.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = Sudoku(3, 3)
    recipe = recipe_for(setting.variant, setting.batch, setting.precision, setting.data)
    spec = variant_spec(setting.variant, vocab=task.vocab, seq_len=task.seq_len, grid=task.grid)
    feed = Feed(Dataset(setting.data, "train", task), recipe.augment, 0)
    why = ""
    if name == "ours":
        learner = Learner(recipe, spec, feed, World(device), lambda model: None)
        learner.connect()
        why, step = learner.why_not_compiled, learner.train_step
    else:
        step = PlainLoop(recipe, spec, feed, device).train_step
    step()  # the first one warms up
    answers = {"memory": lambda: peak_bytes(step, device), "why": lambda: why, "profile": lambda: where_time_goes(step)}
    while (asked := pipe.recv()) is not None:
        pipe.send(answers[asked]() if asked in answers else rate(step, setting.batch, asked, device))


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


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Most memory so far: of the GPU in one step, or of the process."""
    if device.type != "cuda":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


@contextlib.contextmanager
def both_sides(setting: Setting) -> Iterator[dict[str, Callable[[int | str], Any]]]:
    """The plain loop and ours, each ready in its process, to be asked."""
    context = spawn_context()
    pipes, processes = {}, []
    for name in ("plain", "ours"):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, setting, theirs), daemon=True))
        processes[-1].start()
        theirs.close()

    def ask(pipe: Connection, what: int | str) -> Any:
        pipe.send(what)
        return pipe.recv()

    yield {name: partial(ask, pipe) for name, pipe in pipes.items()}
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()


def compare(setting: Setting, rounds: int, steps: int, profile: bool) -> dict[str, Any]:
    """One row: both loops, alternating."""
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    with both_sides(setting) as sides:
        why = [ask("why") for ask in sides.values()]  # both are ready
        for _ in range(rounds):
            for name, ask in sides.items():
                rates[name].append(ask(steps))
        memory = {name: ask("memory") for name, ask in sides.items()}
        parts = {name: ask("profile") for name, ask in sides.items()} if profile else None
    ratios = [b / a for a, b in zip(rates["plain"], rates["ours"], strict=True)]
    return {
        **setting.row(),
        "samples_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else None,
        "rounds": rounds,
        "steps_per_round": steps,
        "peak_memory_bytes": memory,
        "not_compiled": why[1] or None,
        "profile_ms_per_step": parts,
    }


def ranks_row(setting: Setting, ranks: int, seconds: int) -> dict[str, Any]:
    """Throughput that ``hrm-edge train --nproc`` logs: the median of its windows after the first."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        chosen = recipe_for(setting.variant, setting.batch, setting.precision, setting.data)
        recipe.write_text(chosen.dump(), encoding="utf-8")
        command = python_command("-m", "hrm_edge", "train", str(recipe), "--out", f"{folder}/run")
        command += ["--nproc", str(ranks), "--time-limit", f"{seconds}s"]
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if line["kind"] == "train"][1:]
    if not rates:
        raise UserError(f"--ranks {ranks}: fewer than 40 steps in {seconds} s", "give it more --seconds")
    return {**setting.row(), "ranks": ranks, "samples_per_s": statistics.median(rates)}


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
    if report["rows"]:
        console.print(table)
    for row in report["rows"]:
        if row["profile_ms_per_step"] is not None:
            console.print(profile_table(row))
    for row in report["ranks"]:
        console.print(
            f"hrm-edge train --nproc {row['ranks']}, batch {row['batch']}: {row['samples_per_s']:.1f} samples/s"
        )


def profile_table(row: dict[str, Any]) -> Table:
    """Where the time of a row's steps went."""
    plain, ours = (row["profile_ms_per_step"][name] for name in ("plain", "ours"))
    table = Table(title=f"ms per step, {row['variant']}, batch {row['batch']}, {row['precision']}, under the profiler")
    table.add_column("part")
    for column in ("plain", "ours", "share of ours"):
        table.add_column(column, justify="right")
    for part in sorted({*plain, *ours}, key=lambda name: -ours.get(name, 0.0)):
        shares = f"{ours.get(part, 0.0) / sum(ours.values()):.1%}"
        table.add_row(part, f"{plain.get(part, 0.0):.1f}", f"{ours.get(part, 0.0):.1f}", shares)
    return table


def merged(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """``report`` with the rows before it in the file, of other settings on the same machine and versions."""
    if not path.is_file():
        return report
    before = read_json(path)
    if (
        any(before[key] != report[key] for key in ("versions", "threads"))
        or before["device"]["cpu"] != report["device"]["cpu"]
    ):
        return report
    for part, keys in (
        ("rows", ("variant", "batch", "precision")),
        ("ranks", ("variant", "batch", "precision", "ranks")),
    ):
        new = {tuple(row[key] for key in keys) for row in report[part]}
        kept = [row for row in before[part] if tuple(row[key] for key in keys) not in new]
        report[part] = kept + report[part]
    return report


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--variant", default="reduced", choices=["full", "reduced", "nano"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--ranks", type=int, nargs="*", default=[], help="process counts of hrm-edge train --nproc")
    parser.add_argument("--seconds", type=int, default=60, help="of each run with --ranks")
    parser.add_argument("--rounds", type=int, default=5, help="0: only --ranks")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps per round and side")
    parser.add_argument("--profile", action="store_true", help="also say where the time of a step goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", type=Path, help="built 9x9 Sudoku; default: generated puzzles")
    parser.add_argument("--out", type=Path, required=True, help="JSON: benchmarks/results/MACHINE/training.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or Path(folder) / "data"
        if options.data is None:
            build(Sudoku(3, 3), path, Options(count=PUZZLES, test_count=10))
        settings = [
            Setting(options.variant, batch, precision, options.threads, path)
            for batch in options.batch
            for precision in options.precision
        ]
        rows = [compare(one, options.rounds, options.steps, options.profile) for one in settings if options.rounds]
        ranks = [ranks_row(settings[-1], count, options.seconds) for count in options.ranks]
    report = {
        "kind": "training throughput",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": describe_device().model_dump(mode="json"),
        "versions": {"hrm_edge": __version__, "torch": str(torch.__version__)},
        "threads": options.threads,
        "rows": rows,
        "ranks": ranks,
    }
    show(report)
    write_json(options.out, merged(options.out, report))
    print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
