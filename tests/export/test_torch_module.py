"""The saved torch module: made, saved and loaded by Torch-TensorRT-RTX without a GPU.

What a GPU is needed for, running the engine, is replaced by the torch step that it was made of.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hrm_edge import zoo
from hrm_edge.cli.main import main
from hrm_edge.export.recover import recover
from hrm_edge.export.torch_module import (
    ModuleSession,
    carry_dtype,
    open_module,
)
from hrm_edge.export.torch_trt import _exported_program, _step_module
from hrm_edge.manifest import STATE_FILE, read_manifest
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.state import State, read_state
from hrm_edge.runtime.trt.identity import MODULE_FILE, BatchRange, entry_of, read_engine
from hrm_edge.solve import solve
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from tests.export.test_torch_trt import made
from tests.export.without_gpu import run_without_gpu

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)


def givens(count: int) -> np.ndarray:
    sample = sample_file("sudoku")
    assert sample is not None
    return np.stack([NINE.parse(line.split(",")[0]) for line in sample.read_text().splitlines()[1 : count + 1]])


# -- the pipeline, without a GPU -------------------------------------------------------------------------------------

ROAD = """
import json, sys
from pathlib import Path
import numpy as np
import torch_trt_shim
import torch
from torch_tensorrt.dynamo.runtime._TRTEngine import TRTEngine
from hrm_edge.errors import UserError
from hrm_edge.export import torch_module, torch_trt
from functools import partial
from hrm_edge.export.artifact import prepare_export, write_artifact
from hrm_edge.export.torch_trt import _step_module, make_plan
from hrm_edge.export.recover import ArtifactInfo
from hrm_edge.manifest import STATE_FILE, read_manifest
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.state import read_state
from hrm_edge.runtime.trt import build
from hrm_edge.runtime.trt.api import find_api
from hrm_edge.runtime.trt.device import Gpu
from hrm_edge.runtime.trt.identity import Machine, read_engine
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_puzzles
from tests.export.test_torch_trt import made

folder = Path(json.loads(sys.argv[1]))
task = Sudoku(2, 2)
puzzles, _ = singles_puzzles(task, 64)
(folder / "puzzles.txt").write_text("".join(task.format(row) + "\\n" for row in puzzles))
model, _, _ = made("nano")
info = ArtifactInfo(task="mini-sudoku", spec=model.spec, from_artifact={})
limits = Limits(puzzles=16)
prepared = prepare_export(model, info.task, precision="int8", calibration=folder / "puzzles.txt",
                          quantization=Quantization(calibration_puzzles=32), limits=limits)
write_artifact(model, info, prepared, folder / "artifact", limits=limits)
make = partial(make_plan, prepared.model, prepared.scales)
build.find_gpu = lambda: Gpu("shim", 86, 30, "13.0", 8 << 30)
wishes = build.BuildOptions(frontend="torch-tensorrt", module=True, max_batch=8, workspace_mib=512)
for out in ("engine", "again"):
    engine, cached = build.build_engine(folder / "artifact", folder / out, wishes, print, make)
    print("RESULT", json.dumps([cached, engine.model_dump(mode="json")]))

# loading: everything that is asked, then the program itself; only the engine's run is the torch step's
out = folder / "engine"
engine, manifest = read_engine(out), read_manifest(out)
machine = Machine(find_api(engine.identity.runtime), Gpu("other", 86, 10, "13.1", 8 << 30))
torch_module._check_valid(out, engine, machine, manifest, torch_module.installed(torch_module.load_torch_tensorrt()))
run = torch_module._load(torch_module._read_module(out, engine))
step = _step_module(prepared.model, prepared.scales, half=False)
def execute(self, inputs):
    named = dict(zip(self.in_binding_names, inputs, strict=True))
    return list(step(named["tokens"], named["z_h"], named["z_l"]))
reached = []
try:
    run(*(torch.zeros(1, *shape, dtype=kind) for shape, kind in (
        ((16,), torch.int32), ((16, 64), torch.float32), ((16, 64), torch.float32))))
except AssertionError as error:
    reached.append(str(error))
TRTEngine.execute = execute
state = read_state(out / "state.safetensors", manifest.spec, torch_module.carry_dtype(manifest))
session = torch_module.ModuleSession(run, manifest, state, torch.device("cpu"), engine.identity.options.batch.max)
reference, _ = open_artifact(out, backend="onnxruntime")
same = []
for batch in (1, 8):
    ours, theirs, ids = session.initial_carry(batch), reference.initial_carry(batch), np.zeros(batch, np.int32)
    for _ in range(3):
        ours, logits, q = session.step(puzzles[:batch], ids, ours)
        theirs, expected, _ = reference.step(puzzles[:batch], ids, theirs)
    error = np.square(logits - expected).sum() / np.square(expected).sum()
    same.append(-10 * np.log10(max(float(error), 1e-20)))
try:
    run(*(torch.zeros(9, *tensor.shape[1:], dtype=tensor.dtype) for tensor in (
        torch.zeros(1, 16, dtype=torch.int32), *ours)))
    reached.append("no refusal")
except RuntimeError as error:
    reached.append(str(error))
print("RESULT", json.dumps([same, reached, q.shape]))

# a model with an operator that Torch-TensorRT does not know
refused, one = [], step.run
def other(*given):
    z_h, *rest = one(*given)
    return torch.special.bessel_j0(z_h), *rest
step.run = other
options = engine.identity.options
for ask in (lambda: torch_trt._convert(step, options),
            lambda: torch_trt._convert_and_save(step, options, folder / "x")):
    try:
        ask()
    except UserError as error:
        refused.append([error.problem, error.hint])
print("RESULT", json.dumps(refused))
"""


@pytest.mark.rtx
@pytest.mark.slow
@pytest.mark.ci
def test_the_road_without_a_gpu(tmp_path: Path) -> None:
    """INT8 by our Q/DQ into a module, saved, found in the cache, looked through, loaded, and stepped."""
    first, second, (decibels, reached, shape), refused = run_without_gpu(ROAD, str(tmp_path), tmp_path)
    assert (first[0], second[0]) == (False, True)
    assert first[1] == second[1]
    engine = read_engine(tmp_path / "engine")
    identity, packages = engine.identity, engine.build.packages
    assert (identity.options.frontend, identity.options.precision) == ("torch-tensorrt", "int8")
    assert (identity.runtime, identity.sm, identity.device) == ("tensorrt_rtx", (86,), None)
    assert packages == {"torch": torch.__version__, "torch_tensorrt": "2.13.0"}
    assert engine.module is not None
    assert engine.module.bytes > engine.plan.bytes > 100_000
    assert (tmp_path / "again" / MODULE_FILE).samefile(tmp_path / "engine" / MODULE_FILE) or (
        entry_of(tmp_path / "again" / MODULE_FILE) == engine.module
    )
    assert min(decibels) > 20, decibels  # our Q/DQ in torch against ONNX Runtime's; mixed up inputs would give none
    assert shape == [8, 1]
    assert reached[0] == "Torch not compiled with CUDA enabled"  # the engine's own run: where a GPU is needed
    assert "to be <= 8, but got 9" in reached[1]
    assert len(refused) == 2
    for what, hint in refused:
        assert "could not convert the step: it has no conversion for node 'special_bessel_j0' (aten::special_" in what
        assert hint == "export with --backend tensorrt, which goes through ONNX"


# -- the session -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=[pytest.mark.slow, pytest.mark.ci])])
def test_a_module_steps_as_the_artifact_does(precision: str) -> None:
    """The loop's whole protocol with a torch program, on the CPU, beside ONNX Runtime."""
    name = "sudoku-nano" if precision == "fp32" else "sudoku-nano-fp16"
    fp32, folder = zoo.folder_of("sudoku-nano"), zoo.folder_of(name)
    assert fp32 is not None
    assert folder is not None
    model, _ = recover(fp32)
    half = precision == "fp16"
    program = _exported_program(_step_module(model, None, half), half, BatchRange(min=1, opt=4, max=8))
    manifest = read_manifest(folder)
    state = read_state(folder / STATE_FILE, manifest.spec, carry_dtype(manifest))
    session = ModuleSession(program.module(), manifest, state, torch.device("cpu"), 8)
    reference, _ = open_artifact(folder, backend="onnxruntime")
    assert session.backend == "torch_tensorrt-cpu"
    found, expected = (solve(each, NINE, givens(8), halt="rules", slots=4) for each in (session, reference))
    assert (found.answers == expected.answers).all(axis=1).mean() > 0.9
    assert abs(int(found.verified.sum()) - int(expected.verified.sum())) <= 1
    with pytest.raises(ValueError, match=r"batch 9 is not in 1\.\.8"):
        session.initial_carry(9)


def test_a_module_with_a_puzzle_table() -> None:
    model, _, tokens = made("full")
    spec = model.spec.model_copy(update={"puzzles": 3})
    table = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    start = (model.H_init.numpy(), model.L_init.numpy())
    program = _exported_program(_step_module(model, None, False), False, BatchRange(min=1, opt=4, max=8))
    manifest = SimpleNamespace(spec=spec)
    session = ModuleSession(program.module(), manifest, State(spec, start, table), torch.device("cpu"), 8)  # type: ignore[arg-type]
    ids = np.array([2, 0, 1], np.int32)
    _, logits, q = session.step(tokens[:3], ids, session.initial_carry(3))
    with torch.no_grad():
        vectors = torch.from_numpy(State(spec, start, table).puzzle_vectors(ids))
        expected = model(torch.from_numpy(tokens[:3].astype(np.int32)), vectors, *model.initial_state(3, torch.float32))
    np.testing.assert_allclose(logits, expected[2].numpy(), atol=1e-5)
    np.testing.assert_allclose(q, expected[3].numpy(), atol=1e-5)


# -- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_module_on_a_gpu(precision: str, tmp_path: Path) -> None:
    """The command line to a folder, the module from there, and its answers beside ONNX Runtime's."""
    pytest.importorskip("torch_tensorrt")
    out = tmp_path / "engine"
    flags = [f"--{precision}", "--backend", "torch-tensorrt", "--module", "--max-batch", "16"]
    assert main(["export", "sudoku-nano", "--out", str(out), *flags]) == 0
    session = open_module(out, read_manifest(out))
    reference, _ = open_artifact(out, backend="onnxruntime")
    found, expected = (solve(each, NINE, givens(64), halt="rules", slots=16) for each in (session, reference))
    assert abs(int(found.verified.sum()) - int(expected.verified.sum())) <= 1
    # what a torch program does that knows nothing of this package
    program = torch.export.load(str(out / MODULE_FILE)).module()
    z_h, z_l = session.initial_carry(2)
    given = torch.from_numpy(givens(2).astype(np.int32)).cuda()
    assert program(given, z_h, z_l)[2].shape == (2, 81, session.spec.vocab)
