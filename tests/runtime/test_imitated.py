"""INT8 is the artifact's on processors without VNNI: sessions run as a Haswell and as a Nehalem compute, by qemu."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import installed

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="qemu imitates x86's instruction sets on x86"),
]

PARITY = """
import json
import numpy as np
from hrm_edge import zoo
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.manifest import read_manifest
from hrm_edge.runtime import open_artifact, open_step
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file

tokens = load_puzzles(sample_file("sudoku"), get_task("sudoku"), 2).givens
def logits(session):
    return session.step(tokens, np.zeros(2, np.int32), session.initial_carry(2))[1]

single, folder = zoo.folder_of("sudoku-nano"), zoo.folder_of("sudoku-nano-int8")
wanted = logits(open_step(single, read_manifest(single), 1, "onnxruntime"))
default, manifest = open_artifact(folder, 1)
found = {"default": default.backend}
for backend in BACKENDS:
    session = open_step(folder, manifest, 1, backend)
    signal, noise = np.square(wanted).sum(), np.square(wanted - logits(session)).sum()
    found[backend] = [session.arithmetic.products, float(10 * np.log10(signal / noise))]
lattice = zoo.folder_of("sudoku-lattice")
ways = [logits(open_step(lattice, read_manifest(lattice), 1, backend)) for backend in ("onnxruntime", "native")]
found["lattice off"] = float(np.abs(ways[0] - ways[1]).max())
print(json.dumps(found))
"""
EXACT_DB = 26.0  # of the shipped model after one step: 28 where products are exact, 24 where they are cut off


@pytest.mark.parametrize(("cpu", "onnxruntime"), [("Haswell", "float32"), ("Nehalem", "int8")])
def test_every_backend_gives_the_artifacts_answers(tmp_path, cpu, onnxruntime):
    installed("qemu-x86_64", "qemu-user")
    installed("c++", "g++")
    program = tmp_path / "parity.py"
    backends = ["onnxruntime", "native"]
    try:
        import openvino  # noqa: F401
    except ImportError:
        pass
    else:
        backends.append("openvino")
    program.write_text(f"BACKENDS = {backends!r}\n{PARITY}")
    done = subprocess.run(
        [ROOT / "scripts" / "imitate.sh", cpu, program],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {backend: found[backend][1] > EXACT_DB for backend in backends} == dict.fromkeys(backends, True), found
    assert found["onnxruntime"][0] == onnxruntime
    assert found["native"][0] == "int8"
    assert found["lattice off"] < 1e-4  # of logits about 10
    assert found["default"] == ("native-cpu" if onnxruntime == "float32" else "onnxruntime-cpu")
