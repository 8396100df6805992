"""How near the INT8 answers of every backend are to float32, on this processor or as another one would compute them.

    python benchmarks/int8_parity.py --machine NAME
    scripts/imitate.sh Haswell benchmarks/int8_parity.py --machine NAME --imitated Haswell   # by qemu; 10 minutes

The shipped INT8 model solves puzzles beside the float32 one, nobody halting. Every runtime is asked twice: with its
8-bit kernels, exact or not, and with products in float32; a session of hrm-edge takes the first where the probe finds
it exact, else the second. dB is the ratio of the float32 logits to the difference.

Writes benchmarks/results/NAME/int8-parity[-CPU].json.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from program import command_line, program

from hrm_edge import zoo
from hrm_edge.backends import CpuBackend
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.device.identity import describe_device, package_version
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.report.figures import decibels
from hrm_edge.runtime import open_step, openvino, ort
from hrm_edge.runtime.arithmetic import Arithmetic
from hrm_edge.runtime.compile_cache import processor
from hrm_edge.runtime.native.session import available
from hrm_edge.session import Session, rollout
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file

ROOT = Path(__file__).resolve().parent.parent
MODEL, TASK = "sudoku-nano", get_task("sudoku")
MARKS = (1, 4)  # steps
SETS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")  # of instructions, as the kernel names them
Products = Literal["int8", "float32"]


def folder(precision: str) -> Path:
    found = zoo.folder_of(MODEL if precision == "fp32" else f"{MODEL}-{precision}")
    assert found is not None, "shipped"
    return found


def logits(session: Session, puzzles: Puzzles) -> list[NDArray[np.float32]]:
    """Logits [N, S, V] after each of ``MARKS`` steps."""
    run = rollout(session, puzzles, max(MARKS), len(puzzles))
    return [after.logits[:] for after in run if after.step in MARKS]


def against(wanted: list[NDArray[np.float32]], found: list[NDArray[np.float32]]) -> list[float]:
    """dB at every mark."""
    return [
        round(decibels(float(np.square(a).sum(dtype=np.float64)), float(np.square(a - b).sum(dtype=np.float64))), 2)
        for a, b in zip(wanted, found, strict=True)
    ]


def rows(puzzles: Puzzles) -> list[dict[str, Any]]:
    single, bytes_ = folder("fp32"), folder("int8")
    wanted = logits(open_step(single, read_manifest(single), 1, "onnxruntime"), puzzles)
    manifest, found = read_manifest(bytes_), []
    runtimes: list[tuple[CpuBackend, Any, Arithmetic]] = [("onnxruntime", ort, ort.int8_arithmetic())]
    if package_version("openvino") is not None:
        runtimes.append(("openvino", openvino, openvino.int8_arithmetic()))
    for backend, module, own in runtimes:
        for products in ("int8", "float32"):
            print(f"{backend}, {products}", file=sys.stderr)
            with patch.object(module, "int8_arithmetic", return_value=Arithmetic(products)):
                session = open_step(bytes_, manifest, 1, backend)
            exact = products == "float32" or own.products == "int8"
            taken = own.products == products
            db = against(wanted, logits(session, puzzles))
            found.append({"backend": backend, "products": products, "exact": exact, "taken": taken, "db": db})
    if available(manifest):
        print("native", file=sys.stderr)
        db = against(wanted, logits(open_step(bytes_, manifest, 1, "native"), puzzles))
        found.append({"backend": "native", "products": "int8", "exact": True, "taken": True, "db": db})
    return found


def measure(puzzles: int, imitated: str | None) -> dict[str, Any]:
    path = sample_file(TASK.name)
    assert path is not None, "shipped"
    known = processor().lower().split()
    return {
        "kind": "hrm-edge int8 parity", "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(),
        "device": describe_device().model_dump(mode="json"), "imitated": imitated,
        "instructions": None if imitated else [name for name in SETS if name in known],
        "versions": {name: package_version(name) for name in ("onnxruntime", "openvino", "numpy")},
        "model": f"{MODEL}-int8", "puzzles": puzzles, "steps": list(MARKS),
        "rows": rows(load_puzzles(path, TASK, puzzles)),
    }  # fmt: skip


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--machine", help="folder in benchmarks/results; without it the report is printed only")
    parser.add_argument("--imitated", metavar="CPU", help="what qemu imitates")
    parser.add_argument("--puzzles", type=int, default=4)
    given = parser.parse_args()
    report = measure(given.puzzles, given.imitated)
    for row in report["rows"]:
        kind = "exact" if row["exact"] else "NOT exact"
        print(f"{row['backend']:12} {row['products']:8} {kind:10}", *(f"{db:6.1f} dB" for db in row["db"]))
    if given.machine:
        name = "int8-parity" + (f"-{given.imitated.lower()}" if given.imitated else "")
        write_json(ROOT / "benchmarks" / "results" / given.machine / f"{name}.json", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
