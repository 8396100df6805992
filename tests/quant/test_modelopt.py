"""Cross-check: nvidia-modelopt's own INT8 of the same float32 step, from the same calibration data, beside ours.

It is installed beside the environment, without its pins on older onnx and onnxruntime, and runs in its own process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hrm_edge import zoo
from hrm_edge.export.graph import StepGraph
from hrm_edge.export.recover import recover
from hrm_edge.manifest import STEP_FILE
from hrm_edge.quant.prepare import prepare
from hrm_edge.quant.sensitivity import sqnr_db
from hrm_edge.quant.sets import puzzle_sets
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.tasks.puzzles import Puzzles
from tests.artifacts import exact_session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODELOPT = ["nvidia-modelopt==0.47.0", "omegaconf==2.3.0", "antlr4-python3-runtime==4.9.3", "pulp<4", "regex", "scipy",
            "onnx-graphsurgeon", "onnxslim", "onnxconverter-common", "lief", "cppimport", "tqdm", "ninja",
            "nvidia-ml-py", "onnxscript", "onnx-ir"]  # fmt: skip
STEPS = 4
QUANTIZE = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
model, data, out = sys.argv[1:]
quantize(
    model, quantize_mode="int8", calibration_data=dict(np.load(data)), calibration_method="max",
    op_types_to_quantize=["MatMul"], nodes_to_exclude=["heads/.*"], high_precision_dtype="fp32",
    calibration_eps=["cpu"], output_path=out,
)
"""

States = tuple[NDArray[np.float32], NDArray[np.float32]]
Feeds = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("modelopt")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *MODELOPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nvidia-modelopt cannot be installed here: {done.stderr.strip()[-200:]}")
    return target


def run(graph: bytes | str, puzzles: Puzzles, start: States, steps: int) -> tuple[list[Feeds], NDArray[np.float32]]:
    """(what goes into every step, logits after the last one)."""
    session = exact_session(graph)
    feeds: Feeds = {"tokens": puzzles.givens.astype(np.int32), "z_h": start[0], "z_l": start[1]}
    seen = []
    for _ in range(steps):
        seen.append(dict(feeds))
        feeds["z_h"], feeds["z_l"], logits = session.run(["z_h_next", "z_l_next", "logits"], feeds)
    return seen, logits


def test_ours_is_no_worse_than_modelopts(beside: Path, tmp_path: Path) -> None:
    shipped = zoo.folder_of("sudoku-nano")
    assert shipped is not None
    model, _ = recover(shipped)
    model.spec = model.spec.model_copy(update={"max_steps": STEPS})
    calibration, check = puzzle_sets(None, "sudoku", calibrate_on=32, check_on=32)
    assert calibration is not None
    start = tuple(z.numpy() for z in model.initial_state(32, model.H_init.dtype))
    float32 = str(shutil.copy(shipped / STEP_FILE, tmp_path / STEP_FILE))  # modelopt rewrites its input
    seen, _ = run(float32, calibration, start, STEPS)
    data = {name: np.concatenate([feeds[name] for feeds in seen]) for name in seen[0]}
    np.savez(tmp_path / "data.npz", **data)
    theirs = tmp_path / "modelopt.onnx"
    command = [sys.executable, "-c", QUANTIZE, float32, str(tmp_path / "data.npz"), str(theirs)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(beside)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    quantizers = [node.op_type for node in onnx.load(theirs).graph.node].count("QuantizeLinear")
    assert quantizers >= 8, done.stderr[-2000:]

    ours = prepare(
        model, calibration, Quantization(calibration_puzzles=32), Limits(), policy_file=None,
        sensitivity_file=None, on_message=print,
    )  # fmt: skip
    weights = {name: tensor.numpy() for name, tensor in ours.model.state_dict().items()}
    graph = StepGraph(model.spec, weights, activation_scales=ours.scales).build().SerializeToString()
    ours_start = tuple(z.numpy() for z in ours.model.initial_state(32, model.H_init.dtype))
    for steps in (1, STEPS):
        _, right = run(float32, check, start, steps)
        _, found = run(graph, check, ours_start, steps)
        _, other = run(str(theirs), check, start, steps)
        print(f"after {steps} steps: ours {sqnr_db(right, found):.1f} dB, modelopt {sqnr_db(right, other):.1f} dB")
        assert sqnr_db(right, other) > 3  # it is a working quantization of the same function
        assert sqnr_db(right, found) > sqnr_db(right, other) - 1
