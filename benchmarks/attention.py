"""The fused attention operator against torch's flash attention on a GPU: one layer, one ACT step, one training step.

    python benchmarks/attention.py [--out benchmarks/results/<device>/attention.json] [--bandwidth GB/S --tflops T]
                                   [--dry-run]

Both sides start from the packed projection and end in the same layout; the baseline rotates, splits and merges in
torch and calls SDPA with its flash kernel; for heads that see parts of a board with its kernel that takes a mask. A
layer and a step are captured in a CUDA graph and replayed; times are
medians over replays by CUDA events. The roofline is the larger of bytes over bandwidth (each input read once, each
output written once) and operations over the dense peak of the type; a fraction of 1 is the roofline. The inputs of
small shapes stay in the L2 cache between replays, as the activations of a running model do, so a fraction of the
DRAM roofline may exceed 1 there. ``--dry-run`` goes through all of it on a CPU, at tiny sizes, with the kernel in
Triton's interpreter: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from program import program
from torch.nn.attention import SDPBackend, sdpa_kernel

from hrm_edge import __version__
from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.ops.attention import attention_path
from hrm_edge.ops.fused import fused_attention
from hrm_edge.ops.reference import grid_mask, reference_attention, rope_tables, unfused_attention
from hrm_edge.ops.tuning import BASE_SM, Config, choose, read_table
from hrm_edge.plugin.contract import VIEWS, view_blocks
from hrm_edge.spec import variant_spec

Grid = tuple[int, ...]

HEADS = 8
SHAPES = [(82, 1), (82, 32), (82, 1024), (901, 1), (901, 8), (901, 64)]  # (S, B): Sudoku; Maze and ARC
BOARDS = [((9, 9, 3, 3), 1), ((9, 9, 3, 3), 1024)]  # (ModelSpec.grid, B): heads that see rows, columns and boxes
WANTED = {82: 1.5, 901: 1.0}  # speed-up over the baseline, float16
# device name's part → (DRAM GB/s, dense 16-bit TFLOPS), NVIDIA's data sheets
PEAKS = {"H100 80GB HBM3": (3350.0, 989.0), "H100 PCIe": (2000.0, 756.0), "H200": (4800.0, 989.0)}
TINY = [(5, 1)]
DEVICE = "cuda"
CALLS = 20  # per captured graph: a replay's own cost is shared by them
REPLAYS = 100


def graph_ms(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Median milliseconds of one ``call``, replayed from a CUDA graph that holds ``calls`` of them."""
    if DEVICE == "cpu":
        return event_ms(call, 1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return event_ms(graph.replay, REPLAYS) / calls


def event_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds between two events around ``call``."""
    if DEVICE == "cpu":
        begun = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begun)
    for _ in range(3):
        call()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in pairs:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs)


def roofline_ms(
    batch: int, length: int, head_dim: int, size: int, peaks: tuple[float, float] | None, grid: Grid = ()
) -> float | None:
    """The least time of one layer: reading qkv, writing the output, and 4 S Dh operations per head and key it sees."""
    if peaks is None:
        return None
    moved = 4 * batch * length * HEADS * head_dim * size + 2 * length * (head_dim // 2) * 4
    seen = sum(rows * columns for rows, columns in view_blocks(grid)) / VIEWS if grid else length
    operations = 4 * batch * HEADS * length * seen * head_dim
    return max(moved / (peaks[0] * 1e9), operations / (peaks[1] * 1e12)) * 1e3


def one_layer(
    length: int, batch: int, head_dim: int, dtype: torch.dtype, peaks: Any, grid: Grid = ()
) -> dict[str, Any]:
    torch.manual_seed(0)
    qkv = torch.randn(batch, length, 3 * HEADS * head_dim, device=DEVICE, dtype=dtype)
    rope = tuple(table.to(DEVICE) for table in rope_tables(length, head_dim, 1e4))
    cos, sin = (table[:, : head_dim // 2].contiguous() for table in rope)
    part = slice(0, min(batch, 4))
    mask = grid_mask(grid, HEADS).to(DEVICE, dtype) if grid else None
    exact = reference_attention(qkv[part].float(), HEADS, (cos, sin), grid)
    error = (fused_attention(qkv, HEADS, cos, sin, grid)[part].float() - exact).abs().max().item()
    limit = 2.0 ** (-7 if dtype == torch.float16 else -4)  # inputs of N(0, 1): rounding, with room
    if not error <= limit:
        raise UserError(f"the kernel is wrong by {error:.1e} at S={length} B={batch}", "do not use these numbers")
    backend = SDPBackend.EFFICIENT_ATTENTION if grid else SDPBackend.FLASH_ATTENTION
    with sdpa_kernel(backend) if DEVICE == "cuda" else contextlib.nullcontext():
        baseline = graph_ms(lambda: unfused_attention(qkv, HEADS, rope, mask))
    fused = graph_ms(lambda: fused_attention(qkv, HEADS, cos, sin, grid))
    least = roofline_ms(batch, length, head_dim, qkv.element_size(), peaks, grid)
    config = choose(architecture(), str(dtype).removeprefix("torch."), head_dim, length, batch * HEADS)
    return {
        "length": length,
        "batch": batch,
        "heads": HEADS,
        "head_dim": head_dim,
        "grid": list(grid),
        "dtype": str(dtype).removeprefix("torch."),
        "config": config.name,
        "error_max_abs": error,
        "baseline_ms": baseline,
        "fused_ms": fused,
        "speedup": baseline / fused,
        "roofline_fraction": None if least is None else least / fused,
        "baseline_roofline_fraction": None if least is None else least / baseline,
    }


def architecture() -> int:
    """90 for compute capability 9.0."""
    major, minor = torch.cuda.get_device_capability() if DEVICE == "cuda" else divmod(BASE_SM, 10)
    return 10 * major + minor


def whole_step(length: int, batch: int, train: bool) -> dict[str, Any]:
    """The full variant's ACT step (captured), or its forward and backward pass (not captured), in bfloat16."""
    torch.manual_seed(0)
    vocab = 11 if length == 81 else 6
    sizes = {} if DEVICE == "cuda" else {"hidden": 64, "heads": 2, "puzzle_dim": 64, "h_layers": 1, "l_layers": 1}
    model = HRM(variant_spec("full", vocab=vocab, seq_len=length, **sizes)).to(DEVICE)
    tokens = torch.randint(1, vocab, (batch, length), device=DEVICE)
    puzzle = model.puzzle_vectors(torch.zeros(batch, dtype=torch.long, device=DEVICE))
    z_h, z_l = (z.contiguous() for z in model.initial_state(batch, torch.bfloat16))

    def infer() -> Any:
        with torch.no_grad():
            return model(tokens, puzzle, z_h, z_l)

    def learn() -> None:
        model.zero_grad(set_to_none=True)
        _, _, logits, q = model(tokens, puzzle, z_h, z_l)
        (logits.logsumexp(-1).mean() + q.square().mean()).backward()

    found = {}
    for path in ("unfused", "fused"):
        with attention_path(path):  # type: ignore[arg-type]
            found[path] = event_ms(learn, 20) if train else graph_ms(infer, 1)
    return {
        "what": "training step" if train else "ACT step",
        "variant": "full",
        "cells": length,
        "batch": batch,
        "dtype": "bfloat16",
        "unfused_ms": found["unfused"],
        "fused_ms": found["fused"],
        "speedup": found["unfused"] / found["fused"],
    }


def run(peaks: tuple[float, float] | None) -> dict[str, Any]:
    layers = [
        one_layer(length, batch, head_dim, dtype, peaks)
        for dtype in (torch.float16, torch.bfloat16)
        for head_dim in (32, 64)
        for length, batch in (SHAPES if DEVICE == "cuda" else TINY)
    ]
    boards = BOARDS if DEVICE == "cuda" else [((2, 2, 1, 2), 1)]
    layers += [one_layer(grid[0] * grid[1], batch, 32, torch.float16, peaks, grid) for grid, batch in boards]
    cases, trained = [(81, 1), (81, 32), (81, 384), (900, 1), (900, 16)], [(81, 384), (900, 16)]
    if DEVICE == "cpu":
        cases = trained = [(4, 1)]
    steps = [whole_step(*case, train=False) for case in cases] + [whole_step(*case, train=True) for case in trained]
    sm, table = architecture(), read_table()
    rows = table.get(sm, table[BASE_SM])
    missed = [r for r in layers if r["dtype"] == "float16" and r["speedup"] < WANTED.get(r["length"], 0)]
    return {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "a CPU, dry run",
        "compute_capability": f"{sm // 10}.{sm % 10}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"hrm_edge": __version__, "torch": torch.__version__, "cuda": torch.version.cuda},
        "peaks": None if peaks is None else {"dram_gb_s": peaks[0], "tflops_16_bit": peaks[1]},
        "tuning": {"measured": rows.measured, "source": rows.source},
        "method": {
            "graph_calls": CALLS,
            "replays": REPLAYS,
            "statistic": "median",
            "baseline": "SDPA flash, or with a mask, + RoPE",
        },
        "layers": layers,
        "steps": steps,
        "wanted_speedup": WANTED,
        "missed": [f"S={r['length']} B={r['batch']} Dh={r['head_dim']}: {r['speedup']:.2f}x" for r in missed],
    }


def show(report: dict[str, Any]) -> None:
    print(f"{report['device']}, {report['date']}, tuning: {report['tuning']['source']}")
    print(f"{'S':>5} {'B':>5} {'Dh':>3} {'dtype':>9} {'SDPA us':>9} {'fused us':>9} {'speed-up':>9} {'roofline':>9}")
    for row in report["layers"]:
        share = "-" if row["roofline_fraction"] is None else f"{row['roofline_fraction']:.2f}"
        times = f"{1e3 * row['baseline_ms']:>9.1f} {1e3 * row['fused_ms']:>9.1f} {row['speedup']:>9.2f} {share:>9}"
        board = "  heads of a board" if row["grid"] else ""
        print(f"{row['length']:>5} {row['batch']:>5} {row['head_dim']:>3} {row['dtype']:>9} {times}{board}")
    for row in report["steps"]:
        print(f"{row['what']}, {row['cells']} cells, batch {row['batch']}: {row['unfused_ms']:.3f} ms → "
              f"{row['fused_ms']:.3f} ms, {row['speedup']:.2f}x")  # fmt: skip


def dry_run(out: Path | None) -> int:
    """Everything but the numbers, on a CPU."""
    from interpreted import interpreted

    global DEVICE
    DEVICE = "cpu"
    with interpreted(Config(16, 16, 4, 1)):
        report = run(None)
    show(report)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON; default: results/<device>/attention.json beside this file")
    parser.add_argument("--bandwidth", type=float, help="DRAM GB/s, for a device that is not in the list")
    parser.add_argument("--tflops", type=float, help="dense 16-bit TFLOPS, likewise")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, at tiny sizes")
    options = parser.parse_args()
    if options.dry_run:
        return dry_run(options.out)
    if not torch.cuda.is_available():
        raise UserError("the benchmark needs an NVIDIA GPU, torch sees none", "there is no number without one")
    name = torch.cuda.get_device_name()
    peaks = next((values for part, values in PEAKS.items() if part in name), None)
    if options.bandwidth and options.tflops:
        peaks = (options.bandwidth, options.tflops)
    report = run(peaks)
    folder = name.lower().replace(" ", "-")
    out = options.out or Path(__file__).parent / "results" / folder / "attention.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report)
    print(f"{out}: {len(report['missed'])} of the wanted speed-ups missed", *report["missed"], sep="\n  ")
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
