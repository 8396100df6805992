"""TensorRT's builder and ONNX parser as a recording: it accepts the calls that 10.3 (JetPack 6.2) and 11 accept, makes
real plugins through the lean runtime's registry, and refuses what they refuse. It computes nothing.

What is checked, after onnx-tensorrt's ModelImporter and importers (Apache-2.0) and TensorRT's documents: the operators
that 10.3 knows, explicit Q/DQ with a zero point of 0, a strongly typed network, flags that 11 has no more, a plugin by
name, version and namespace, its fields, and that it takes its tensors' types and shapes.
"""

from __future__ import annotations

import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

VERSIONS = ("10.3.0.26", "11.4.1.3")
# Of those that 10.3's parser lists as supported, the ones that a model of ours may be made of.
KNOWN = frozenset({
    "Add", "Cast", "Concat", "Constant", "DequantizeLinear", "Div", "Erf", "Expand", "Gather", "Gemm", "Identity",
    "LayerNormalization", "MatMul", "Mul", "Pow", "QuantizeLinear", "ReduceMean", "ReduceSum", "Reshape", "Shape",
    "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
MOST_OPSET = 20
NOT_FOUND = "Plugin not found, are the plugin name, version, and namespace correct?"


class RefusedError(Exception):
    """One node that the parser does not take."""

    def __init__(self, text: str, node: onnx.NodeProto | None = None, at: int = -1) -> None:
        super().__init__(text)
        self.text, self.at_node, self.at = text, node, at

    def desc(self) -> str:
        return self.text

    def node_name(self) -> str:
        return self.at_node.name if self.at_node is not None else ""

    def node_operator(self) -> str:
        return self.at_node.op_type if self.at_node is not None else ""

    def node(self) -> int:
        return self.at


class Tensor(SimpleNamespace):
    """ITensor: name, shape, dtype."""


class Network:
    """INetworkDefinition of a strongly typed network; layers are recorded."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.inputs: list[Tensor] = []
        self.layers: list[SimpleNamespace] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def add_plugin_v3(self, inputs: list[Tensor], shape_inputs: list[Any], plugin: Any) -> Any:
        if not isinstance(inputs, list) or shape_inputs != [] or not isinstance(plugin, self.trt.IPluginV3):
            raise TypeError("add_plugin_v3(): incompatible function arguments")
        self.layers.append(SimpleNamespace(kind="plugin", inputs=inputs, plugin=plugin))
        return self.layers[-1]


class Parser:
    """OnnxParser."""

    def __init__(self, network: Network, logger: Any) -> None:
        self.network, self.logger, self.errors = network, logger, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> RefusedError:
        return self.errors[index]

    def parse(self, data: bytes) -> bool:
        assert isinstance(data, bytes)
        model = onnx.load_from_string(data)
        try:
            self._parse(model)
        except RefusedError as error:
            self.errors.append(error)
            return False
        return True

    def _parse(self, model: onnx.ModelProto) -> None:
        opset = {entry.domain: entry.version for entry in model.opset_import}[""]
        if opset > MOST_OPSET:
            raise RefusedError(f"opset {opset}, at most {MOST_OPSET} is read")
        bodies = {(function.domain, function.name) for function in model.functions}
        shapes = shapes_of(model)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for value in model.graph.input:
            self.network.inputs.append(
                Tensor(name=value.name, shape=shapes[value.name][1], dtype=shapes[value.name][0])
            )
        for at, node in enumerate(model.graph.node):
            if (node.domain, node.op_type) in bodies:  # the body is taken, and no plugin asked
                self.network.layers.append(SimpleNamespace(kind="body", inputs=[], plugin=None))
            elif node.op_type in KNOWN and node.domain == "":
                check_quantized(node, at, constants)
                self.network.layers.append(SimpleNamespace(kind=node.op_type, inputs=[], plugin=None))
            else:
                self._plugin(node, at, shapes)

    def _plugin(self, node: onnx.NodeProto, at: int, shapes: dict[str, tuple[int, tuple[int, ...]]]) -> None:
        trt = self.network.trt
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        version = given.get("plugin_version", b"1").decode()
        namespace = given.get("plugin_namespace", b"").decode()
        creator = trt.get_plugin_registry().get_creator(node.op_type, version, namespace)
        if creator is None:
            raise RefusedError(NOT_FOUND, node, at)
        arrays = {
            field.name: np.array(np.atleast_1d(given[field.name]), np.int32)
            for field in creator.field_names if field.name in given
        }  # fmt: skip
        fields = [trt.PluginField(name, array, trt.PluginFieldType.INT32) for name, array in arrays.items()]
        plugin = creator.create_plugin(node.name, trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
        if plugin is None:
            raise RefusedError("Could not create plugin", node, at)
        kinds = {TensorProto.FLOAT: trt.DataType.FLOAT, TensorProto.FLOAT16: trt.DataType.HALF}
        tensors = [Tensor(name=name, shape=shapes[name][1], dtype=shapes[name][0]) for name in node.input if name]
        out = Tensor(name=node.output[0], shape=(), dtype=tensors[0].dtype)
        described = [
            SimpleNamespace(desc=SimpleNamespace(type=kinds.get(tensor.dtype), format=trt.TensorFormat.LINEAR))
            for tensor in [*tensors, out]
        ]
        for position in range(len(described)):
            if not plugin.supports_format_combination(position, described, len(tensors)):
                raise RefusedError(f"could not find any supported formats consistent with {node.name}", node, at)
        largest = [SimpleNamespace(min=ranged(t.shape, 1), max=ranged(t.shape, 64)) for t in tensors]
        try:
            plugin.configure_plugin(largest, [])
        except Exception as error:
            raise RefusedError(f"{node.name}: {error}", node, at) from error
        self.network.add_plugin_v3(tensors, [], plugin)


def ranged(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return tuple(batch if size == -1 else size for size in shape)


def check_quantized(node: onnx.NodeProto, at: int, constants: dict[str, onnx.TensorProto]) -> None:
    """Q and DQ as TensorRT takes them: constant positive scales, int8, a zero point of 0."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return
    scale, zero = (constants.get(name) for name in (*node.input, "")[1:3])
    if scale is None or not (numpy_helper.to_array(scale) > 0).all():
        raise RefusedError("the scale must be a constant above 0", node, at)
    if zero is not None and (zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any()):
        raise RefusedError("only int8 with a zero point of 0 is supported", node, at)
    if zero is None and node.op_type == "QuantizeLinear":  # ONNX's default is uint8
        raise RefusedError("only int8 with a zero point of 0 is supported", node, at)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Type and shape of every tensor, -1 for the batch. A third of packed q, k, v comes out of an attention."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]
    for node in copy.graph.node:
        if node.domain:
            out = node.output[0]
            node.CopyFrom(
                onnx.helper.make_node("Split", [node.input[0]], [out, f"{out}_k", f"{out}_v"], axis=2, num_outputs=3)
            )
    done = onnx.shape_inference.infer_shapes(copy, strict_mode=True).graph
    found = {}
    for value in [*done.input, *done.value_info, *done.output]:
        kind = value.type.tensor_type
        found[value.name] = (kind.elem_type, tuple(d.dim_value or -1 for d in kind.shape.dim))
    return found | {t.name: (t.data_type, tuple(t.dims)) for t in done.initializer}


class Config:
    """IBuilderConfig."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.builder_optimization_level = 3

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.calls.append(("workspace", size))

    def clear_flag(self, flag: Any) -> None:
        self.calls.append(("clear_flag", flag.name))

    def add_optimization_profile(self, profile: Any) -> int:
        self.calls.append(("profile", profile.shapes))
        return 0

    def create_timing_cache(self, data: bytes) -> Any:
        return SimpleNamespace(data=data, serialize=lambda: data)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


class Profile:
    """IOptimizationProfile."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, low: list[int], opt: list[int], high: list[int]) -> None:
        assert all(one <= two <= three for one, two, three in zip(low, opt, high, strict=True))
        self.shapes[name] = [low, opt, high]


def recorded_module(lean: Any, version: str) -> Any:
    """``tensorrt`` of a version, with the plugin parts of ``lean``, the real lean runtime."""
    old = version.startswith("10.")

    class Logger:
        INTERNAL_ERROR, ERROR = 0, 1

        def __init__(self) -> None: ...

    flags = IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, **({"STRONGLY_TYPED": 1} if old else {})})
    made: list[Any] = []

    class Builder:
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, Logger)

        def create_network(self, chosen: int = 0) -> Network:
            if old and not chosen & 1 << 1:
                raise AssertionError("a weakly typed network: 10.3 would choose precisions itself")
            if not old and chosen:
                raise AssertionError("11 has no such flag")
            return Network(module)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes:
            assert {name for call in config.calls if call[0] == "profile" for name in call[1]} == {
                tensor.name for tensor in network.inputs if -1 in tensor.shape
            }
            made.append(network)
            return json.dumps([layer.kind for layer in network.layers]).encode()

    parts = {name: getattr(lean, name) for name in dir(lean) if not name.startswith("__")}
    own = {
        "__name__": f"recorded_{version}", "__version__": version, "ILogger": Logger, "Builder": Builder,
        "OnnxParser": Parser, "NetworkDefinitionCreationFlag": flags, "networks": made,
        "BuilderFlag": IntEnum("BuilderFlag", ["TF32", *(["FP16", "INT8"] if old else [])]),
        "MemoryPoolType": IntEnum("MemoryPoolType", ["WORKSPACE"]),
        "TensorFormat": SimpleNamespace(LINEAR=0),  # which the lean bindings lack
    }  # fmt: skip
    module = SimpleNamespace(**{**parts, **own})
    return module
