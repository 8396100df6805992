"""Runs a program with Torch-TensorRT-RTX in a process of its own, under ``torch_trt_shim.py``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(sys.prefix) / "torch-tensorrt"  # 'make venv' puts it there: its pins are older than ours


def run_without_gpu(program: str, given: Any, tmp_path: Path) -> list[Any]:
    """What the program printed as JSON on lines that begin with RESULT; ``given`` is its first argument, in JSON.

    The package comes without its compiled runtime, which needs CUDA.
    """
    if not (PACKAGE / "torch_tensorrt").is_dir():
        pytest.skip(f"torch-tensorrt-rtx is not in {PACKAGE}: 'make venv' puts it there")
    packages, root = tmp_path / "packages", Path(__file__).parents[2]
    shutil.copytree(PACKAGE, packages, ignore=shutil.ignore_patterns("*.so", "executorch", "bin"), symlinks=True)
    for extension in PACKAGE.glob("psutil/*.so"):
        shutil.copyfile(extension, packages / "psutil" / extension.name)
    path = os.pathsep.join(map(str, (packages, Path(__file__).parent, root)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": path}, cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT")]
