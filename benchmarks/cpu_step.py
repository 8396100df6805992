"""One ACT step on this CPU against eager torch, taking turns in one run: every precision, runtime and thread count.

    python benchmarks/cpu_step.py prepare                  exports and naive exports (needs onnxscript; once; minutes)
    python benchmarks/cpu_step.py measure --machine NAME   measures; the machine should do nothing else (3 minutes)

Everyone computes the same step at batch 1 of `full`, `reduced` and `sudoku-nano`. The last two are the shipped
models; `full` has no trained weights, so its are random, which a step's time does not depend on; what does is
`cpu_halting.py`'s to measure. The base is the model in plain eager torch, float32, on all cores. A ratio is taken
within a round, so a change of the machine's clock meets both sides. "naive" is torch.onnx.export (dynamo) of the same
step with its defaults.

Writes benchmarks/results/NAME/cpu-step.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from naive import naive_export, require_exporter
from numpy.typing import NDArray
from program import command_line, program
from rich.console import Console
from rich.table import Table
from turns import ratios, summary

from hrm_edge import zoo
from hrm_edge.backends import CpuBackend
from hrm_edge.checkpoint import CheckpointInfo
from hrm_edge.costs import flops_per_step
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.device.state import read_state, warnings_before
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.export.artifact import prepare_export, write_artifact
from hrm_edge.export.recover import recover
from hrm_edge.files import read_json, write_json
from hrm_edge.manifest import STEP_FILE, Manifest, Precision, read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.quiet import import_onnxruntime, import_openvino
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.runtime import open_step, openvino, ort
from hrm_edge.runtime.arithmetic import Arithmetic
from hrm_edge.runtime.native.session import available
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "records" / "cpu-step"
TASK = get_task("sudoku")
SHIPPED = {"reduced": "sudoku-reduced", "sudoku-nano": "sudoku-nano"}  # names in the zoo, of every precision
MODELS = ("full", *SHIPPED)
LIMITS = {"full": 0.25, "reduced": 0.35, "sudoku-nano": 0.15}  # of eager torch, per step at batch 1, with VNNI
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")  # fp16 is for GPUs
OPENVINO: tuple[CpuBackend, ...] = ("openvino", "openvino-bf16")
BACKENDS: tuple[CpuBackend, ...] = ("onnxruntime", *OPENVINO, "native")
CORES = len(os.sched_getaffinity(0))
EAGER = "torch eager fp32"
STEPS_A_TURN, SLOW_MS = 3, 500.0
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnxscript")
NAIVE_FILE, GRAPHS_FILE = "naive.onnx", "graphs.json"
INEXACT = "inexact products, ours"

Arrays = dict[str, NDArray[Any]]


# -- prepare ------------------------------------------------------------------------------------------------------


def model_of(name: str) -> tuple[HRM, Any]:
    """The float32 model and what an export wants to know of it; random weights where none are shipped."""
    folder = shipped(name, "fp32") or shipped(name, "fp16")
    if folder is not None:
        return recover(folder)
    torch.manual_seed(0)
    spec = variant_spec(name, vocab=TASK.vocab, seq_len=TASK.seq_len, grid=TASK.grid, max_steps=2)
    info = CheckpointInfo(task=TASK.name, spec=spec, recipe_hash="random weights", step=0, samples=0)
    return HRM(spec).eval(), info


def shipped(name: str, precision: Precision) -> Path | None:
    """The artifact that ships in this precision, if one does."""
    of = SHIPPED.get(name)
    return None if of is None else zoo.folder_of(of if precision == "fp32" else f"{of}-{precision}")


def folder_of(name: str, precision: Precision) -> Path:
    """The artifact of a model: shipped, or prepared."""
    return shipped(name, precision) or WORK / name / precision


def prepare(names: list[str]) -> None:
    require_exporter()
    for name in names:
        model, info = model_of(name)
        (WORK / name).mkdir(parents=True, exist_ok=True)
        random = name not in SHIPPED
        for precision in PRECISIONS:
            if not folder_of(name, precision).is_dir():
                print(f"exporting {name} {precision}", file=sys.stderr)
                limits = Limits(puzzles=16) if random else None
                quantization = Quantization(calibration_puzzles=16, smooth=0) if random else None
                prepared = prepare_export(
                    model, info.task, precision=precision, quantization=quantization, limits=limits
                )
                write_artifact(model, info, prepared, folder_of(name, precision), limits=limits)
        print(f"torch.onnx.export of {name}", file=sys.stderr)
        naive_export(model, inputs(model), WORK / name / NAIVE_FILE)
        print(f"counting nodes of {name}", file=sys.stderr)
        files = {"ours": folder_of(name, "fp32") / STEP_FILE, "naive": WORK / name / NAIVE_FILE}
        write_json(WORK / name / GRAPHS_FILE, {graph: node_counts(file) for graph, file in files.items()})


def node_counts(file: Path) -> dict[str, int]:
    """Nodes in the file, and what each runtime leaves of them (OpenVINO: without constants and ports)."""
    import onnx

    onnxruntime = import_onnxruntime()
    openvino = import_openvino()

    options = onnxruntime.SessionOptions()
    optimized = WORK / "optimized.onnx"
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = (op.get_rt_info()["layerType"] for op in compiled.get_runtime_model().get_ops())
    counts = {
        "file": len(onnx.load(file).graph.node),
        "onnxruntime": len(onnx.load(optimized).graph.node),
        "openvino": sum(str(getattr(kind, "value", kind)) not in ("Const", "Input", "Output") for kind in kinds),
    }
    optimized.unlink()
    return counts


# -- one step -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to compute the step: what a table says of it, and the step itself."""

    graph: str  # "ours", "naive", INEXACT, or "–" for torch
    precision: str
    backend: str
    threads: int
    gate_passed: bool | None
    step: Callable[[], Any]

    def __str__(self) -> str:
        if self.backend == "torch":
            return f"{EAGER}, {self.threads} threads"
        return f"{self.graph} {self.precision}, {self.backend}, {self.threads} threads"


def inputs(model: HRM) -> Arrays:
    """One board of the package's and a carry as it is after some steps: unit variance."""
    spec, random = model.spec, np.random.default_rng(0)
    carry = (1, spec.total_len, spec.hidden)
    feeds: Arrays = {"tokens": samples().givens[:1].astype(np.int32)}
    feeds |= {name: random.normal(size=carry).astype(np.float32) for name in ("z_h", "z_l")}
    if spec.puzzle_dim:
        feeds["puzzle"] = np.zeros((1, spec.puzzle_tokens * spec.hidden), np.float32)
    return feeds


def samples() -> Puzzles:
    path = sample_file(TASK.name)
    assert path is not None
    return load_puzzles(path, TASK)


def ways(name: str, model: HRM) -> list[Way]:
    feeds = inputs(model)
    found = [Way("–", "fp32", "torch", n, None, eager(model, n)) for n in sorted({1, CORES}, reverse=True)]
    for precision in PRECISIONS:
        folder = folder_of(name, precision)
        manifest = read_manifest(folder)
        judged = manifest.gate.passed if name in SHIPPED else None  # a gate says nothing of random weights
        for backend in (b for b in BACKENDS if b != "native" or available(manifest)):
            for threads in sorted({1, CORES}):
                step = ours(folder, manifest, backend, threads, feeds)
                found.append(Way("ours", precision, backend, threads, judged, step))
    found += inexact(folder_of(name, "int8"), feeds)
    file = WORK / name / NAIVE_FILE
    found.append(Way("naive", "fp32", "onnxruntime", CORES, None, naive_onnxruntime(file, feeds)))
    found += [Way("naive", "fp32", b, CORES, None, naive_openvino(file, b, feeds)) for b in OPENVINO]
    return found


def eager(model: HRM, threads: int) -> Callable[[], Any]:
    feeds = {name: torch.from_numpy(value) for name, value in inputs(model).items()}

    def step() -> Any:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            return model(feeds["tokens"], feeds.get("puzzle"), feeds["z_h"], feeds["z_l"])

    return step


def ours(folder: Path, manifest: Manifest, backend: CpuBackend, threads: int, feeds: Arrays) -> Callable[[], Any]:
    session = open_step(folder, manifest, threads, backend)
    tokens, ids = feeds["tokens"].astype(np.uint8), np.zeros(1, np.int32)
    carry = (feeds["z_h"].astype(session.dtype), feeds["z_l"].astype(session.dtype))
    return lambda: session.step(tokens, ids, carry)


def inexact(folder: Path, feeds: Arrays) -> list[Way]:
    """The 8-bit kernels of runtimes where they are not exact on this processor: no session of ours uses them there."""
    found = []
    runtimes: tuple[tuple[CpuBackend, Any], ...] = (("onnxruntime", ort), ("openvino", openvino))
    for backend, module in runtimes:
        if module.int8_arithmetic().products == "int8":
            continue
        with patch.object(module, "int8_arithmetic", return_value=Arithmetic("int8")):
            for threads in sorted({1, CORES}):
                step = ours(folder, read_manifest(folder), backend, threads, feeds)
                found.append(Way(INEXACT, "int8", backend, threads, None, step))
    return found


def naive_onnxruntime(file: Path, feeds: Arrays) -> Callable[[], Any]:
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def naive_openvino(file: Path, backend: CpuBackend, feeds: Arrays) -> Callable[[], Any]:
    openvino = import_openvino()

    hint = "bf16" if backend == "openvino-bf16" else "f32"
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": CORES, "INFERENCE_PRECISION_HINT": hint}
    request = openvino.Core().compile_model(str(file), "CPU", config).create_infer_request()
    return lambda: request.infer(feeds, share_inputs=True)


def turn(step: Callable[[], Any]) -> float:
    """Milliseconds of a step. The first is not counted: it finds its weights in no cache and the last one's threads
    still spinning; unless it is so slow that this does not matter."""
    began = time.perf_counter()
    step()
    first = 1e3 * (time.perf_counter() - began)
    if first > SLOW_MS:
        return first
    began = time.perf_counter()
    for _ in range(STEPS_A_TURN):
        step()
    return 1e3 * (time.perf_counter() - began) / STEPS_A_TURN


def measure_step(name: str, rounds: int) -> dict[str, Any]:
    model, _ = model_of(name)
    print(f"{name}: building", file=sys.stderr)
    found = ways(name, model)
    ms: list[list[float]] = [[] for _ in found]
    for round_ in range(rounds + 1):  # the first warms up
        print(f"{name}: round {round_} of {rounds}", file=sys.stderr)
        for index, way in enumerate(found):
            ms[index].append(turn(way.step))
    base = ms[0][1:]
    rows = [
        {
            "name": str(way), "graph": way.graph, "precision": way.precision, "backend": way.backend,
            "threads": way.threads, "gate_passed": way.gate_passed, "ms": summary(own[1:]),
            "against_eager": ratios(own[1:], base),
        }
        for way, own in zip(found, ms, strict=True)
    ]  # fmt: skip
    mine = sorted((row for row in rows if row["graph"] == "ours"), key=lambda row: row["ms"]["median"])
    return {
        "model": name, "weights": "shipped" if name in SHIPPED else "random", "parameters": _count(model),
        "flops_per_step": flops_per_step(model.spec), "graphs": read_json(WORK / name / GRAPHS_FILE), "rows": rows,
        "limit": LIMITS.get(name), "fastest": mine[0]["name"], "reason": reason(mine, rows),
    }  # fmt: skip


def _count(model: HRM) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def reason(mine: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """Why the fastest is, in the measured figures."""
    best = mine[0]
    said = [f"{best['name']}: {best['ms']['median']:.2f} ms, {best['against_eager']['median']:.3f} of eager torch"]
    for what, same in (
        ("of the other runtimes", lambda row: row["backend"].split("-")[0] != best["backend"].split("-")[0]),
        ("of the other precisions", lambda row: row["precision"] != best["precision"]),
        (
            "in bfloat16 of the float32 file",
            lambda row: (row["precision"], row["backend"]) == ("fp32", "openvino-bf16"),
        ),
    ):
        other = next((row for row in mine if same(row)), None)
        if other is not None:
            said.append(f"the best {what}: {other['name']} {other['ms']['median']:.2f} ms")
    naive = min((row for row in rows if row["graph"] == "naive"), key=lambda row: row["ms"]["median"])
    said.append(f"the best of the naive export: {naive['name']} {naive['ms']['median']:.2f} ms")
    return "; ".join(said)


def show(report: dict[str, Any]) -> None:
    console = Console()
    for step in report["models"]:
        graphs = step["graphs"]
        counts = "; ".join(f"{graph}: {graphs[graph]}" for graph in ("ours", "naive"))
        table = Table(title=f"{step['model']} ({step['weights']} weights), one step at batch 1; nodes: {counts}")
        for column in ("", "ms", "of eager torch (spread)", "gate"):
            table.add_column(column)
        for row in sorted(step["rows"], key=lambda row: float(row["ms"]["median"])):
            ratio = row["against_eager"]
            spread = f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"
            gate = {None: "", True: "passed", False: "failed"}[row["gate_passed"]]
            table.add_row(row["name"], f"{row['ms']['median']:.2f}", spread, gate)
        console.print(table)
        console.print(step["reason"], highlight=False)


def missed(report: dict[str, Any]) -> list[str]:
    """The limits that were not kept."""
    found = []
    for step in report["models"]:
        best = next(row for row in step["rows"] if row["name"] == step["fastest"])["against_eager"]["median"]
        if step["limit"] is not None and best > step["limit"]:
            found.append(f"{step['model']}: {best:.3f} of eager torch, wanted {step['limit']}")
    return found


def measure(names: list[str], rounds: int) -> dict[str, Any]:
    for name in names:
        if not (WORK / name / GRAPHS_FILE).is_file():
            raise UserError(f"{name} is not prepared", "run: python benchmarks/cpu_step.py prepare")
    before = read_state()
    return {
        "kind": "hrm-edge cpu step", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(),
        "device": describe_device().model_dump(mode="json"), "warnings": warnings_before(before, System()),
        "cores": CORES, "rounds": rounds, "steps_a_turn": STEPS_A_TURN, "base": f"{EAGER}, {CORES} threads",
        "versions": {name: package_version(name) for name in PACKAGES},
        "models": [measure_step(name, rounds) for name in names],
    }  # fmt: skip


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("verb", choices=("prepare", "measure"))
    parser.add_argument("--machine", help="folder in benchmarks/results")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.verb == "measure" and not options.machine:
        parser.error("measure needs --machine")
    if options.verb == "prepare":
        prepare(options.models)
        return 0
    report = measure(options.models, options.rounds)
    out = ROOT / "benchmarks" / "results" / options.machine / "cpu-step.json"
    write_json(out, report)
    show(report)
    print(out.relative_to(ROOT))
    for miss in missed(report):
        print(f"missed: {miss}", file=sys.stderr)
    return int(bool(missed(report)))


if __name__ == "__main__":
    sys.exit(main())
