"""Measure the fused attention kernel's tile sizes on this machine's GPU and write its rows of the tuning table.

    python scripts/autotune.py [--table hrm_edge/ops/tuning.json] [--quick]

Every candidate is checked against plain torch before it is timed (CUDA graph replay, median). bfloat16 takes float16's
rows: the products have the same shape and rate. ``--quick`` tries a few candidates only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import triton

from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.files import write_text
from hrm_edge.ops.kernel import attention_kernel, launch
from hrm_edge.ops.reference import reference_attention, rope_tables
from hrm_edge.ops.tuning import TABLE, Config, Row, SmTable, choose, read_table

HEADS = 8
# (limits of the row, the (length, batch) that it is measured at): Sudoku alone and in bulk, Maze and ARC
CLASSES = [
    ({"max_length": 128, "max_sequences": 64}, (82, 1)),
    ({"max_length": 128}, (82, 1024)),
    ({"max_sequences": 64}, (901, 1)),
    ({}, (901, 32)),
]


def candidates(quick: bool) -> list[Config]:
    """Tiles that give a thread 4 to 128 scores."""
    sizes = itertools.product((16, 32, 64, 128), (32, 64, 128), (1, 2, 4, 8), (1, 2, 3))
    found = [Config(*size) for size in sizes if 4 <= size[0] * size[1] / (32 * size[2]) <= 128]
    return found[:: len(found) // 8] if quick else found


def measure(config: Config, dtype: torch.dtype, head_dim: int, length: int, batch: int) -> float:
    """Median milliseconds of one call; infinite where the GPU cannot run the candidate."""
    torch.manual_seed(0)
    qkv = torch.randn(batch, length, 3 * HEADS * head_dim, device="cuda", dtype=dtype)
    cos, sin = (table[:, : head_dim // 2].cuda() for table in rope_tables(length, head_dim, 1e4))
    out = torch.empty(batch, length, HEADS * head_dim, device="cuda", dtype=dtype)
    try:
        launch(attention_kernel, qkv, HEADS, (cos, sin), out, config)
    except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
        return float("inf")
    part = slice(0, min(batch, 4))
    error = (out[part] - reference_attention(qkv[part], HEADS, (cos, sin))).abs().max().item()
    if not error <= {torch.float32: 1e-4, torch.float16: 1e-2}[dtype]:
        raise UserError(f"{config.name} is wrong by {error:.1e} at length {length}", "report it: a compiler's bug")
    return float(
        triton.testing.do_bench_cudagraph(
            lambda: launch(attention_kernel, qkv, HEADS, (cos, sin), out, config), return_mode="median"
        )
    )


def best(dtype: torch.dtype, head_dim: int, case: tuple[int, int], quick: bool) -> Config:
    times = {config: measure(config, dtype, head_dim, *case) for config in candidates(quick)}
    winner = min(times, key=lambda config: times[config])
    print(f"{dtype} Dh={head_dim} S={case[0]} B={case[1]}: {winner.name} {1e3 * times[winner]:.1f} us", flush=True)
    return winner


def write_table(tables: dict[int, SmTable], path: Path = TABLE) -> None:
    """Write what :func:`read_table` reads, one line per row."""
    blocks = []
    for sm, table in sorted(tables.items()):
        rows = [
            {key: value for key, value in asdict(row).items() if key != "config"} | asdict(row.config)
            for row in table.rows
        ]
        head = f'{{"measured": {json.dumps(table.measured)}, "source": {json.dumps(table.source)}, "rows": ['
        blocks.append(f'    "{sm}": {head}\n' + ",\n".join(f"      {json.dumps(row)}" for row in rows) + "\n    ]}")
    write_text(path, '{\n  "schema": 1,\n  "sm": {\n' + ",\n".join(blocks) + "\n  }\n}\n")
    read_table.cache_clear()
    choose.cache_clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    try:
        if not torch.cuda.is_available():
            raise UserError("tuning needs an NVIDIA GPU, torch sees none", "run it on the GPU that the rows are for")
        rows = []
        for dtype, names in ((torch.float16, ("float16", "bfloat16")), (torch.float32, ("float32",))):
            for head_dim, (limits, case) in itertools.product((32, 64), CLASSES):
                config = best(dtype, head_dim, case, options.quick)
                rows += [
                    Row(config, name, head_dim, limits.get("max_length"), limits.get("max_sequences")) for name in names
                ]
        major, minor = torch.cuda.get_device_capability()
        source = (
            f"{torch.cuda.get_device_name()}, Triton {triton.__version__}, {time.strftime('%Y-%m-%d', time.gmtime())}"
        )
        write_table(
            {**read_table(options.table), 10 * major + minor: SmTable(True, source, tuple(rows))}, options.table
        )
    except HrmEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
