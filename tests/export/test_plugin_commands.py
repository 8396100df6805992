"""``export sudoku-nano --int8 --plugin`` and the engine of it, as commands, with TensorRT's parser as a recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from hrm_edge.cli.main import main
from hrm_edge.manifest import STATE_FILE, STEP_FILE, read_manifest
from hrm_edge.plugin import python as python_plugin
from hrm_edge.plugin.contract import ABI, NAME, NAMESPACE, VERSION
from hrm_edge.plugin.onnx_file import without_functions
from hrm_edge.report.figures import decibels
from hrm_edge.runtime.trt import build, worker
from hrm_edge.runtime.trt.api import Api
from hrm_edge.runtime.trt.identity import PLAN_FILE, read_engine
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from tests.artifacts import exact_session
from tests.runtime.recorded_trt import NOT_FOUND, VERSIONS, Network, Parser, recorded_module
from tests.runtime.simulated import ORIN
from tests.shared import made_once


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``plain`` and ``plugin``: the shipped model in INT8, by the command, calibrated on a few puzzles."""

    def make(folder: Path) -> None:
        few = folder / "few.csv"
        few.write_text("\n".join(sample_file("sudoku").read_text().splitlines()[:35]))
        for name, flags in (("plain", []), ("plugin", ["--plugin"])):
            words = ["export", "sudoku-nano", "--out", str(folder / name), "--int8", *flags, "--puzzles", "1"]
            # a single puzzle and step say nothing about the gate; the command then ends with 0 or 1
            assert main([*words, "--max-steps", "1", "--calibration", str(few)]) in (0, 1)

    return made_once(tmp_path_factory, "nano-plugin", make)


def test_the_plugin_costs_nothing_in_onnx_runtime(exported: Path) -> None:
    """The file with the node gives the plain one's numbers in each step, but for sums in another order."""
    tokens = np.stack([get_task("sudoku").parse(line.partition(",")[0]) for line in questions(4)]).astype(np.int32)
    start = load_file(exported / "plain" / STATE_FILE)
    plain, plugin = (exact_session((exported / name / STEP_FILE).read_bytes()) for name in ("plain", "plugin"))
    shapes = {node.name: (len(tokens), *node.shape[1:]) for node in plain.get_inputs()}
    carry = {name: np.broadcast_to(start[f"{name}_init"], shapes[name]) for name in ("z_h", "z_l")}
    outputs = [node.name for node in plain.get_outputs()]
    for _ in range(2):
        wanted, found = (
            dict(zip(outputs, session.run(None, {"tokens": tokens, **carry}), strict=True))
            for session in (plain, plugin)
        )
        for name, value in wanted.items():  # a sum that rounds to the next integer: 40; INT8 itself: about 30
            noise = float(np.square(value - found[name]).sum())
            assert decibels(float(np.square(value).sum()), noise) > 34, name
        same = wanted["logits"].argmax(-1) == found["logits"].argmax(-1)
        best = np.sort(wanted["logits"], axis=-1)
        undecided = best[..., -1] - best[..., -2] < 1  # a cell between two digits goes either way
        assert (same | undecided).all()
        assert same.mean() > 0.98
        carry = {name: wanted[f"{name}_next"] for name in carry}
    manifest = read_manifest(exported / "plugin")
    assert manifest.precision == "int8"
    assert manifest.provenance["plugin"] == {"name": NAME, "version": VERSION, "namespace": NAMESPACE}
    assert (exported / "plain" / STATE_FILE).read_bytes() == (exported / "plugin" / STATE_FILE).read_bytes()


def questions(count: int) -> list[str]:
    path = sample_file("sudoku")
    assert path is not None
    return path.read_text().splitlines()[1 : count + 1]


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A recorded TensorRT of each version; the plugin is taken out of the lean runtime's registry afterwards."""
    lean = pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")
    module = recorded_module(lean, request.param)
    yield module
    creator = python_plugin._registered.pop(module.__name__, None)
    if creator is not None:
        lean.get_plugin_registry().deregister_creator(creator)


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A folder of kernels without one: nothing is launched here."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "kernels.json").write_text(json.dumps({"abi": ABI, "base": 80, "symbol": "attention", "kernels": []}))
    return folder


def test_the_engine_of_it_asks_for_the_plugin(
    exported: Path, trt: Any, kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    api = Api("tensorrt", trt, trt.__version__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (build, worker):
        monkeypatch.setattr(module, "find_api", lambda name=None: api)
    monkeypatch.setattr(build, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(build, "_run_worker", lambda request, say: worker._build(request))
    words = ["export", str(exported / "plugin"), "--out", str(tmp_path / "engine"), "--backend", "tensorrt"]
    assert main([*words, "--plugin-library", str(kernels)]) == 0, capsys.readouterr().err
    assert f"{NAMESPACE}::{NAME}" in capsys.readouterr().out
    (network,) = trt.networks
    spec = read_manifest(exported / "plugin").spec
    plugins = [layer for layer in network.layers if layer.kind == "plugin"]
    assert len(plugins) == sum(spec.block_passes)
    assert {(layer.plugin.heads, layer.plugin.grid) for layer in plugins} == {(spec.heads, spec.grid)}
    assert {layer.inputs[0].shape for layer in plugins} == {(-1, spec.total_len, 3 * spec.hidden)}
    assert "body" not in {layer.kind for layer in network.layers}
    assert "Softmax" not in {layer.kind for layer in network.layers}
    engine = read_engine(tmp_path / "engine")
    assert engine.identity.plugin == {"name": NAME, "version": VERSION, "namespace": NAMESPACE, "abi": ABI}
    assert json.loads((tmp_path / "engine" / PLAN_FILE).read_bytes()).count("plugin") == len(plugins)


def change(name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    """Set an attribute of the first attention node."""

    def apply(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == NAME)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, *([] if value is None else [onnx.helper.make_attribute(name, value)])])

    return apply


def rename(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == NAME).op_type = "OtherAttention"


def unknown(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Mish"


def asymmetric(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))


def newer(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if not entry.domain).version = 23


WRONG = {
    "a version that is not registered": (change("plugin_version", "1"), NOT_FOUND),
    "no namespace": (change("plugin_namespace", None), NOT_FOUND),
    "another plugin": (rename, NOT_FOUND),
    "an operator that there is not": (unknown, NOT_FOUND),
    "no heads": (change("heads", 0), "Could not create plugin"),
    "boxes that do not fill the board": (change("grid", [9, 9, 2, 3]), "Could not create plugin"),
    "a board of another size": (change("grid", [6, 6, 2, 3]), "a board of 6x6 has 36 cells"),
    "a zero point": (asymmetric, "only int8 with a zero point of 0"),
    "a later opset": (newer, "opset 23"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_recorded_parser_refuses_what_is_wrong(what: str, exported: Path, trt: Any, kernels: Path) -> None:
    python_plugin.register_python_plugin(trt, kernels)
    apply, said = WRONG[what]
    model = onnx.load_from_string(without_functions((exported / "plugin" / STEP_FILE).read_bytes()))
    assert Parser(Network(trt), None).parse(model.SerializeToString())
    apply(model)
    parser = Parser(Network(trt), None)
    assert not parser.parse(model.SerializeToString())
    assert said in parser.get_error(0).desc()


def test_with_its_body_no_plugin_is_asked_for(exported: Path, trt: Any) -> None:
    """Why the body is taken off before the parser sees the file; here nothing is registered, and nothing missed."""
    network = Network(trt)
    data = (exported / "plugin" / STEP_FILE).read_bytes()
    assert Parser(network, None).parse(data)
    assert "plugin" not in {layer.kind for layer in network.layers}
    parser = Parser(Network(trt), None)
    assert not parser.parse(without_functions(data))
    assert (parser.get_error(0).desc(), parser.get_error(0).node_operator()) == (NOT_FOUND, NAME)
