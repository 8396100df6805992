"""Torch-TensorRT: our Q/DQ, the exported step, and a real conversion and build by Torch-TensorRT-RTX without a GPU.

The conversions run in a process of their own, under ``torch_trt_shim.py``. ``make test`` puts the package beside the
environment, not into it: its pins are older than ours.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hrm_edge.cli.main import main
from hrm_edge.errors import UserError
from hrm_edge.export import torch_trt
from hrm_edge.export.graph import StepGraph
from hrm_edge.export.torch_trt import (
    _example,
    _exported_program,
    _failed,
    _PuzzleStep,
    _quantize_dequantize,
    _settings,
    _step_module,
    load_torch_tensorrt,
)
from hrm_edge.graph.nodes import _quantize_weight
from hrm_edge.model.hrm import HRM
from hrm_edge.plugin.contract import ABI, NAME, NAMESPACE, VERSION
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import int8_layers
from hrm_edge.recipe import Quantization
from hrm_edge.report.figures import decibels
from hrm_edge.runtime.trt import device
from hrm_edge.runtime.trt.identity import BatchRange, Options
from hrm_edge.spec import variant_spec
from tests.artifacts import as_puzzles, exact_session
from tests.export.without_gpu import run_without_gpu

SMALL: dict[str, Any] = {"hidden": 64, "heads": 2, "h_layers": 1, "l_layers": 1}
TRM = {**SMALL, "h_layers": 0, "h_cycles": 1, "l_cycles": 2, "puzzle_dim": 64, "puzzle_len": 2}
SPECS = {
    "nano": variant_spec("nano", vocab=6, seq_len=16, grid=(4, 4, 2, 2), **{**SMALL, "heads": 4}),
    "nano-32": variant_spec("nano", vocab=6, seq_len=16, grid=(4, 4, 2, 2), **{**SMALL, "hidden": 128, "heads": 4}),
    "full": variant_spec("full", vocab=6, seq_len=16, puzzle_dim=64, **SMALL),
    "reduced": variant_spec("reduced", vocab=6, seq_len=16, **SMALL),
    "trm": variant_spec("trm", vocab=6, seq_len=16, **TRM),
    "trm-mixer": variant_spec("trm-mixer", vocab=6, seq_len=16, **TRM),
}


def made(name: str) -> tuple[HRM, dict[str, float], Any]:
    torch.manual_seed(0)
    model = HRM(SPECS[name]).eval()
    tokens = np.random.default_rng(0).integers(1, 6, (16, 16)).astype(np.uint8)
    return model, activation_scales(model, as_puzzles(tokens), Quantization(), 2), tokens


def test_the_operator_rounds_as_the_artifact_does() -> None:
    weight = torch.randn(5, 7)
    values, scale = _quantize_weight(weight.numpy())
    found = _quantize_dequantize(weight, torch.from_numpy(scale), 0)
    assert (found.numpy() == values.astype(np.float32) * scale[:, None]).all()
    x = torch.tensor([-9.0, -0.26, 0.24, 0.75, 9.0])
    assert _quantize_dequantize(x, torch.tensor(0.05), 0).tolist() == pytest.approx([-6.35, -0.25, 0.25, 0.75, 6.35])
    half = _quantize_dequantize(x.half(), torch.tensor(0.05), 0)
    assert half.dtype == torch.float16


IN_CI = [pytest.mark.slow, pytest.mark.ci]  # each traces a model as one that stays does


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=IN_CI if name in ("nano-32", "reduced", "trm") else []) for name in SPECS]
)
def test_the_exported_step_is_the_int8_graph(name: str) -> None:
    """The program that Torch-TensorRT is given against the artifact's INT8 ONNX graph, in ONNX Runtime."""

    model, scales, tokens = made(name)
    step = _step_module(model, scales, half=False)
    assert isinstance(step, _PuzzleStep) == bool(model.spec.puzzle_dim)
    assert model.L_level.layers[0].mlp.down_proj.__class__.__name__ == "Linear"  # the caller's model is untouched
    program = _exported_program(step, False, BatchRange(min=1, opt=4, max=8))
    inputs = list(_example(model.spec, 3, False))
    inputs[0] = torch.from_numpy(tokens[:3].astype(np.int32))
    inputs[-2:] = [state.contiguous() for state in model.initial_state(3, torch.float32)]
    found = program.module()(*inputs)
    weights = {n: t.numpy() for n, t in {**dict(model.named_buffers()), **model.state_dict()}.items()}
    graph = StepGraph(model.spec, weights, activation_scales=scales).build()
    session = exact_session(graph.SerializeToString())
    feeds = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    exact = model(inputs[0], inputs[1] if model.spec.puzzle_dim else None, *inputs[-2:])
    effects = []
    for ours, theirs, float_one in zip(found, session.run(None, feeds), exact, strict=True):
        signal = float(float_one.detach().square().sum())
        apart = decibels(signal, float(np.square(ours.detach().numpy() - theirs).sum()))
        effects.append(decibels(signal, float((ours - float_one).detach().square().sum())))
        assert apart > effects[-1] + 1 or apart > 60  # two roundings that had nothing in common: 3 dB below
    assert min(effects) < 50  # and they do round


def test_options_are_those_that_the_version_knows() -> None:
    def old(program: Any, workspace_size: int, use_explicit_typing: bool = False) -> None: ...

    assert _settings(old, {"workspace_size": 1, "use_explicit_typing": True, "immutable_weights": True}) == {
        "workspace_size": 1,
        "use_explicit_typing": True,
    }


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def load(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(torch_trt, "importlib", SimpleNamespace(import_module=load))
    with pytest.raises(UserError, match="Torch-TensorRT does not import") as error:
        load_torch_tensorrt()
    assert "pip install torch-tensorrt" in error.value.hint
    assert main(["export", "sudoku-nano", "--out", str(tmp_path / "a"), "--backend", "torch-tensorrt"]) == 2
    assert "Torch-TensorRT does not import" in capsys.readouterr().err
    assert main(["export", "sudoku-nano", "--out", str(tmp_path / "a"), "--backend", "tensorrt", "--module"]) == 2
    assert "--module is for --backend torch-tensorrt" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(torch_trt, "load_torch_tensorrt", lambda: None)
    monkeypatch.setattr(device, "find_gpu", lambda: None)
    command = ["export", "sudoku-nano-int8", "--out", str(tmp_path / "a"), "--backend", "torch-tensorrt"]
    assert main(command) == 2
    assert "is an INT8 artifact: its float32 weights are gone" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_while_converting(error: Exception) -> None:
    """Torch-TensorRT converts in this process, so what runs out is an exception of Python's or torch's."""
    options = Options(precision="fp32", optimization_level=3, workspace_mib=512, batch=BatchRange(min=1, opt=8, max=64))
    outer = RuntimeError("Conversion of module GraphModule(")
    outer.__cause__ = error
    for given in (error, outer):
        found = _failed(SimpleNamespace(__version__="2.13.0"), "convert the step", given, options)
        assert "building the engine ran out of memory (workspace 512 MiB, batch up to 64)" in found.problem
        assert "--workspace MIB or --max-batch N" in found.hint
    found = _failed(SimpleNamespace(__version__="2.13.0"), "convert the step", ValueError("no"), options)
    assert found.problem == "Torch-TensorRT 2.13.0 could not convert the step: ValueError: no"


PROGRAM = """
import json, logging, sys
import torch_trt_shim
import tensorrt as trt
from hrm_edge.export.torch_trt import _convert, _step_module
from hrm_edge.runtime.trt.identity import BatchRange, Options
from tests.export.test_torch_trt import made

layers, outputs, inputs = [], [], []
network = trt.INetworkDefinition
def spy(name, keep):
    real = getattr(network, name)
    def call(self, *arguments, **named):
        result = real(self, *arguments, **named)
        keep(result, *arguments)
        return result
    setattr(network, name, call)
spy("add_quantize", lambda layer, tensor, *_: layers.append(tuple(tensor.shape)))
spy("add_input", lambda tensor, *_: inputs.append(tensor.name))
spy("mark_output", lambda _, tensor: outputs.append(tensor.name))
for variant, precision in json.loads(sys.argv[1]):
    model, scales, _ = made(variant)
    options = Options(precision=precision, optimization_level=3, workspace_mib=512,
                      batch=BatchRange(min=1, opt=8, max=64))
    del layers[:], outputs[:], inputs[:]
    plan = _convert(_step_module(model, scales if precision == "int8" else None, precision == "fp16"), options)
    print("RESULT", json.dumps([variant, precision, len(plan), layers, inputs, outputs]))
"""


def check(variant: str, precision: str, size: int, layers: list[Any], inputs: list[str], outputs: list[str]) -> None:
    spec = SPECS[variant]
    assert size > 100_000
    assert inputs == ["tokens", *(["puzzle"] if spec.puzzle_dim else []), "z_h", "z_l"]
    assert outputs == ["output0", "output1", "output2", "output3"]  # as hrm_edge.runtime.trt.open._TENSOR_NAMES says
    weights = [shape for shape in layers if len(shape) == 2]
    activations = [shape for shape in layers if len(shape) == 3]
    passes = sum(spec.block_passes)
    if precision == "int8":  # the weights are quantized in the engine, not folded into float ones beforehand
        assert len(activations) == passes * len(int8_layers(HRM(spec))) // (spec.h_layers + spec.l_layers)
        assert len(weights) >= len(int8_layers(HRM(spec)))
    else:
        assert not layers


@pytest.mark.rtx
@pytest.mark.slow
def test_every_variant_and_precision_converts(tmp_path: Path) -> None:
    """CI converts INT8 of nano: tests/export/test_torch_module.py."""
    cases = [(variant, precision) for variant in SPECS for precision in ("fp32", "fp16", "int8")]
    results = run_without_gpu(PROGRAM, cases, tmp_path)
    assert [tuple(result[:2]) for result in results] == cases
    for result in results:
        check(*result)


PLUGIN_PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import torch_trt_shim
import tensorrt as trt
from hrm_edge.export import torch_trt
from functools import partial
from hrm_edge.export.artifact import prepare_export, write_artifact
from hrm_edge.export.recover import ArtifactInfo
from hrm_edge.files import write_json
from hrm_edge.plugin.contract import ABI
from hrm_edge.recipe import Limits
from hrm_edge.runtime.trt import build
from hrm_edge.runtime.trt.api import Api
from hrm_edge.runtime.trt.device import Gpu
from tests.export.test_torch_trt import made

calls, kept = [], []
def add_plugin_v3(self, inputs, shape_inputs, plugin):
    # as TensorRT 10.3 and 11 take it; TensorRT-RTX, which converts here, has none, and a product stands for the layer
    assert isinstance(inputs, list) and all(isinstance(tensor, trt.ITensor) for tensor in inputs), inputs
    assert shape_inputs == [] and isinstance(plugin, trt.IPluginV3)
    calls.append([[list(tensor.shape) for tensor in inputs], [str(t.dtype) for t in inputs], plugin.heads, plugin.grid])
    width = inputs[0].shape[2] // 3
    kept.append(np.zeros((1, 3 * width, width), np.float32))
    weight = self.add_constant(kept[-1].shape, kept[-1]).get_output(0)
    return self.add_matrix_multiply(inputs[0], trt.MatrixOperation.NONE, weight, trt.MatrixOperation.NONE)

trt.INetworkDefinition.add_plugin_v3 = add_plugin_v3

class Full:
    \"\"\"TensorRT's module: without the list of targets that only TensorRT-RTX has.\"\"\"
    def __getattr__(self, name):
        if name == "ComputeCapability":
            raise AttributeError(name)
        return getattr(trt, name)

build.find_api = torch_trt.find_api = lambda runtime=None: Api("tensorrt", Full(), "10.3.0.30")
build.find_gpu = lambda: Gpu("shim", 86, 30, "12.6", 8 << 30)
folder = Path(json.loads(sys.argv[1]))
kernels = folder / "kernels"
kernels.mkdir()
write_json(kernels / "kernels.json", {"abi": ABI, "base": 80, "symbol": "attention_kernel", "kernels": []})
model, _, tokens = made("nano-32")
info = ArtifactInfo(task="mini-sudoku", spec=model.spec, from_artifact={})
limits = Limits(puzzles=8)
prepared = prepare_export(model, info.task, precision="fp32", limits=limits)
write_artifact(model, info, prepared, folder / "artifact", plugin=True, limits=limits)
make = partial(torch_trt.make_plan, prepared.model, prepared.scales)
options = build.BuildOptions(frontend="torch-tensorrt", max_batch=8, workspace_mib=512, plugin=kernels, use_cache=False)
engine, _ = build.build_engine(folder / "artifact", folder / "engine", options, print, make)
print("RESULT", json.dumps([calls, json.loads((folder / "engine" / "engine.json").read_text())]))
"""


@pytest.mark.rtx
@pytest.mark.slow
@pytest.mark.ci
def test_the_attention_reaches_the_engine_as_the_plugin(tmp_path: Path) -> None:
    """Torch-TensorRT itself converts: the operator stays one node up to our converter; the sidecar names the plugin."""
    ((calls, sidecar),) = run_without_gpu(PLUGIN_PROGRAM, str(tmp_path), tmp_path)
    spec = SPECS["nano-32"]
    assert calls == [[[[-1, 16, 3 * 128]], ["DataType.FLOAT"], 4, [4, 4, 2, 2]]] * sum(spec.block_passes)
    assert sidecar["identity"]["options"]["frontend"] == "torch-tensorrt"
    assert sidecar["identity"]["plugin"] == {"name": NAME, "version": VERSION, "namespace": NAMESPACE, "abi": ABI}


def test_a_tensorrt_that_takes_no_plugins_is_named_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(torch_trt, "load_torch_tensorrt", lambda: None)
    monkeypatch.setattr(device, "find_gpu", lambda: None)
    command = ["export", "sudoku-nano", "--out", str(tmp_path / "a"), "--backend", "torch-tensorrt", "--plugin"]
    for reason in ("TensorRT-RTX takes no plugins (1.7.1)", "it has no IPluginV3 (8.6)"):
        monkeypatch.setattr(torch_trt, "why_no_plugin", lambda reason=reason: reason)
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"--plugin: {reason}" in said
        assert "leave --plugin out" in said
    monkeypatch.setattr(torch_trt, "why_no_plugin", lambda: None)
    assert main([*command, "--plugin-library", str(tmp_path)]) == 2
    assert "no such plugin library" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
