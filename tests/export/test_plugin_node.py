"""The graph with the plugin's node: the same numbers in ONNX Runtime, and what TensorRT's parser makes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from hrm_edge.cli.export import export as command
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.export.graph import IR_VERSION, OPSET, StepGraph
from hrm_edge.export.plugin_node import attention_function, attributes
from hrm_edge.graph.step import rope_halves
from hrm_edge.manifest import STEP_FILE, read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION
from hrm_edge.plugin.load import explain
from hrm_edge.plugin.onnx_file import without_functions
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.recipe import Quantization, Recipe
from hrm_edge.report.figures import decibels
from hrm_edge.spec import ModelSpec, step_io, variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.training.loop import start
from tests.artifacts import as_puzzles, exact_session

SMALL = {"hidden": 64, "heads": 2, "h_layers": 1, "l_layers": 2}
SPECS = {
    "full": variant_spec("full", vocab=11, seq_len=81, **{**SMALL, "puzzle_dim": 40}),
    "reduced": variant_spec("reduced", vocab=11, seq_len=81, **SMALL),
    "trm": variant_spec("trm", vocab=11, seq_len=81, **{**SMALL, "h_layers": 0, "h_cycles": 1, "l_cycles": 2}),
    "nano": variant_spec("nano", vocab=8, seq_len=36, grid=(6, 6, 2, 3), **{**SMALL, "hidden": 128, "heads": 4}),
}


def make(name: str) -> tuple[HRM, dict[str, Any]]:
    torch.manual_seed(0)
    model = HRM(SPECS[name]).eval()
    return model, {n: t.numpy() for n, t in {**dict(model.named_buffers()), **model.state_dict()}.items()}


def feeds(spec: ModelSpec, carry: type, batch: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {}
    for name, (dtype, shape) in step_io(spec).items():
        if name in ("tokens", "puzzle", "z_h", "z_l"):
            size = [batch, *shape[1:]]
            integers = dtype == "int32"
            made[name] = rng.integers(1, spec.vocab, size).astype(np.int32) if integers else rng.normal(size=size)
            made[name] = made[name] if integers else made[name].astype(carry)
    return made


def run(graph: onnx.ModelProto | bytes, inputs: dict[str, Any]) -> list[Any]:
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return list(exact_session(data).run(None, inputs))


@pytest.mark.parametrize(
    "name, precision", [*itertools.product(SPECS, ["fp32", "fp16"]), ("reduced", "int8"), ("nano", "int8")]
)
def test_the_node_costs_no_accuracy(name: str, precision: str) -> None:
    """In ONNX Runtime the file with the node is as near to torch as the plain one, in dB of signal to noise."""
    model, weights = make(name)
    spec, options = model.spec, {"half": precision == "fp16"}
    if precision == "int8":
        tokens = np.random.default_rng(1).integers(1, spec.vocab, (16, spec.seq_len)).astype(np.uint8)
        options["activation_scales"] = activation_scales(model, as_puzzles(tokens), Quantization(), 2)
    inputs = feeds(spec, np.float16 if precision == "fp16" else np.float32)
    for carry, start_value in zip(("z_h", "z_l"), model.initial_state(3, torch.float32), strict=True):
        inputs[carry] = start_value.numpy().astype(inputs[carry].dtype)  # near what INT8 was calibrated on
    tensors = {n: torch.from_numpy(x) if n == "tokens" else torch.from_numpy(x).float() for n, x in inputs.items()}
    with torch.no_grad():
        exact = model(tensors["tokens"], tensors.get("puzzle"), tensors["z_h"], tensors["z_l"])
    plain, custom = (run(StepGraph(spec, weights, **options).build(plugin=p), inputs) for p in (False, True))
    for expected, without, found in zip(exact[:3], plain, custom, strict=False):
        assert found.dtype == without.dtype
        signal = float(expected.square().sum())
        noise = [float(np.square(expected.numpy() - x.astype(np.float32)).sum()) for x in (found, without)]
        ours, theirs = (decibels(signal, n) for n in noise)
        assert ours > {"fp32": 90, "fp16": 40, "int8": 15}[precision]
        assert ours > theirs - 1.5


@pytest.mark.parametrize("name", ["full", "reduced", "nano"])
def test_the_body_is_the_operator(name: str) -> None:
    """One node alone in a file, in ONNX Runtime, against torch's operator."""
    spec = SPECS[name]
    tables = rope_halves(spec) if name == "full" else ()
    qkv = np.random.default_rng(0).normal(size=(2, spec.total_len, 3 * spec.hidden)).astype(np.float32)
    values = dict(zip(("qkv", "cos", "sin"), (qkv, *tables), strict=False))
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(NAME, list(values), ["out"], domain=NAMESPACE, **attributes(spec))],
        "one",
        [onnx.helper.make_tensor_value_info(n, float32, v.shape) for n, v in values.items()],
        [onnx.helper.make_tensor_value_info("out", float32, [2, spec.total_len, spec.hidden])],
    )
    imports = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(NAMESPACE, 1)]
    body = attention_function(spec, OPSET, half=False)
    file = onnx.helper.make_model(graph, functions=[body], opset_imports=imports, ir_version=IR_VERSION)
    onnx.checker.check_model(file, full_check=True)
    (found,) = run(file, values)
    rope = [torch.from_numpy(table) for table in tables] or [None, None]
    expected = torch.ops.hrm_edge.fused_attention(
        torch.from_numpy(qkv), spec.heads, *rope, spec.grid if spec.grid_heads else ()
    )
    assert np.abs(found - expected.numpy()).max() < 2e-6


def test_the_node_and_its_body_are_all_that_is_added() -> None:
    model, weights = make("full")
    graph = StepGraph(model.spec, weights).build(plugin=True)
    nodes = [node for node in graph.graph.node if node.op_type == NAME]
    assert len(nodes) == sum(model.spec.block_passes)
    for node in nodes:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values == {"heads": 2, "plugin_version": VERSION.encode(), "plugin_namespace": b"hrm_edge"}
        assert node.domain == NAMESPACE
    assert not [node for node in graph.graph.node if node.op_type == "Softmax"]
    (body,) = graph.functions
    assert (body.domain, body.name) == (NAMESPACE, NAME)
    assert {node.domain for node in body.node} == {""}
    cos = next(t for t in graph.graph.initializer if t.name == "rope_cos")
    assert list(cos.dims) == [82, 16]
    plain = StepGraph(model.spec, weights).build()
    assert not plain.functions
    assert [o.domain for o in plain.opset_import] == [""]


def test_without_functions_drops_the_body_and_nothing_else() -> None:
    model, weights = make("reduced")
    graph = StepGraph(model.spec, weights).build(plugin=True)
    stripped = onnx.load_from_string(without_functions(graph.SerializeToString()))
    assert not stripped.functions
    del graph.functions[:]
    assert stripped == graph
    with pytest.raises(Exception, match=NAME):  # nothing but the body told ONNX Runtime what the node is
        run(stripped, feeds(model.spec, np.float32))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x7f", b"\x0b"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="not an ONNX model"):
        without_functions(data)


@pytest.mark.rtx
def test_tensorrts_parser_takes_the_body_and_asks_for_the_plugin_without_it() -> None:
    """Why ``without_functions`` exists, and how the error reads that ``explain`` explains."""
    trt = pytest.importorskip("tensorrt_rtx")
    model, weights = make("nano")
    data = StepGraph(model.spec, weights).build(plugin=True).SerializeToString()
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    whole, bare = builder.create_network(), builder.create_network()
    assert trt.OnnxParser(whole, logger).parse(data)
    kinds = [whole.get_layer(i).type for i in range(whole.num_layers)]
    assert trt.LayerType.SOFTMAX in kinds
    assert trt.LayerType.PLUGIN_V3 not in kinds
    parser = trt.OnnxParser(bare, logger)
    assert not parser.parse(without_functions(data))
    messages = " ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
    explained = explain(messages)
    assert explained is not None, messages
    assert "--dynamicPlugins" in explained.hint
    assert explain("out of memory") is None


@pytest.mark.parametrize("changes, text", [
    ({"hidden": 32}, "head size 16"), ({"seq_len": 1024, "puzzle_dim": 64}, "1025 positions"),
    ({"mixing": "mlp", "positions": "none"}, "mixes positions by an MLP"),
])  # fmt: skip
def test_a_model_that_the_plugin_does_not_serve_is_refused(changes: dict[str, Any], text: str) -> None:
    sizes = {"vocab": 11, "seq_len": 81, **SMALL, **changes}
    spec = variant_spec("full", **sizes)
    with pytest.raises(UserError, match=text) as error:
        StepGraph(spec, {}).build(plugin=True)
    assert "without --plugin" in error.value.hint


def test_export_plugin_from_the_command_line(tmp_path: Path) -> None:
    options = Options(source="generate", count=100, test_count=20, seed=0)
    build(get_task("mini-sudoku"), tmp_path / "data", options)
    recipe = Recipe.model_validate(
        {
            "task": "mini-sudoku",
            "variant": "nano",
            "data": str(tmp_path / "data"),
            "model": {**SMALL, "hidden": 128, "heads": 4, "max_steps": 2},
            "train": {"batch": 16, "steps": 3, "warmup": 1, "lr": 1e-3, "precision": "fp32", "compile": False},
            "evaluate": {"every": 1000, "puzzles": 4},
            "limits": {"puzzles": 16},
        }
    )
    start(recipe, tmp_path / "run", resume=False).run()
    made = {}
    for flag in ([], ["--plugin"]):
        out = tmp_path / f"artifact{len(flag)}"
        done = CliRunner().invoke(command, [str(tmp_path / "run"), "--out", str(out), *flag], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        made[len(flag)] = (read_manifest(out), onnx.load(out / STEP_FILE))
    assert made[1][0].provenance["plugin"] == {"name": NAME, "version": VERSION, "namespace": NAMESPACE}
    assert made[0][0].provenance["plugin"] is None
    assert [len(graph.functions) for _, graph in made.values()] == [0, 1]
    assert made[1][0].parity[0].logits_max_abs < 1e-4
