"""The operator in Torch-TensorRT, as far as it can be run without it: the layer that the converter adds.

Not run here: a conversion by Torch-TensorRT itself, which needs the full TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.fx import Node

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from hrm_edge.errors import UserError
from hrm_edge.export.torch_trt import _exported_program, _step_module
from hrm_edge.model.hrm import HRM
from hrm_edge.ops import torch_tensorrt as module
from hrm_edge.ops.attention import attention_path
from hrm_edge.ops.fused import fused_attention
from hrm_edge.ops.torch_tensorrt import _add_plugin, register, why_no_plugin
from hrm_edge.plugin.contract import NAMESPACE
from hrm_edge.runtime.trt.identity import BatchRange
from hrm_edge.spec import variant_spec


def test_what_is_missing_is_said() -> None:
    if why_no_plugin() is not None:
        with pytest.raises(UserError, match="TensorRT cannot take the attention as a plugin"):
            register()


def test_features_decide_and_not_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SimpleNamespace(add_plugin_v3=None)
    old = SimpleNamespace(__version__="10.3.0", INetworkDefinition=network)
    monkeypatch.setattr(module.importlib, "import_module", lambda name: old)
    assert why_no_plugin() is None
    del network.add_plugin_v3
    assert why_no_plugin() == "it has no IPluginV3 (10.3.0)"
    old._package_name = "tensorrt_rtx"
    assert why_no_plugin() == "TensorRT-RTX takes no plugins (10.3.0)"


class InputTensor(SimpleNamespace):
    """A stand-in for ITensor."""


class Network:
    """Records plugins as TensorRT 10.3 to 11 take them; another call is an error, as it is there."""

    def __init__(self, trt: Any) -> None:
        self.trt, self.layers = trt, []

    def add_plugin_v3(self, inputs: list[Any], shape_inputs: list[Any], plugin: Any) -> Any:
        tensors = isinstance(inputs, list) and inputs and all(isinstance(one, InputTensor) for one in inputs)
        if not tensors or shape_inputs != [] or not isinstance(plugin, self.trt.IPluginV3):
            raise TypeError("add_plugin_v3(): incompatible function arguments")
        qkv = inputs[0]
        made = InputTensor(shape=(*qkv.shape[:2], qkv.shape[2] // 3), dtype=qkv.dtype)
        self.layers.append(SimpleNamespace(inputs=inputs, plugin=plugin, get_output=[made].__getitem__))
        return self.layers[-1]


@pytest.fixture
def lean() -> Iterator[Any]:
    """The lean runtime with the Python plugin in its registry."""
    trt = pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")
    from hrm_edge.plugin.python import _plugin_classes

    creator = _plugin_classes(trt)[1](launcher=None)
    assert trt.get_plugin_registry().register_creator(creator, NAMESPACE)
    yield trt
    trt.get_plugin_registry().deregister_creator(creator)


@pytest.mark.parametrize("variant", ["nano", "full"])
def test_every_attention_of_a_step_is_one_plugin(variant: str, lean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported step's nodes, through the converter that Torch-TensorRT would call, into a recorded network."""
    sizes = {"hidden": 128, "heads": 4, "h_layers": 1, "l_layers": 1, "h_cycles": 1, "l_cycles": 1}
    own = {"nano": {"grid": (4, 4, 2, 2)}, "full": {"puzzle_dim": 128}}[variant]
    spec = variant_spec(variant, vocab=6, seq_len=16, **sizes, **own)
    with attention_path("fused"):
        program = _exported_program(_step_module(HRM(spec), None, False), False, BatchRange(min=1, opt=4, max=8))
    full = SimpleNamespace(**{name: getattr(lean, name) for name in dir(lean)}, INetworkDefinition=Network)
    converters: dict[Any, Any] = {}

    def register_for(target: Any, supports_dynamic_shapes: bool) -> Any:
        assert supports_dynamic_shapes
        return lambda function: converters.setdefault(target, function)

    def get_trt_tensor(ctx: Any, value: Any, name: str) -> InputTensor:
        return value if isinstance(value, InputTensor) else InputTensor(shape=tuple(value.shape), dtype=value.dtype)

    stands_for = {
        "torch_tensorrt": SimpleNamespace(), "tensorrt": full,
        "torch_tensorrt.dynamo.conversion": SimpleNamespace(dynamo_tensorrt_converter=register_for),
        "torch_tensorrt.dynamo.conversion.converter_utils": SimpleNamespace(get_trt_tensor=get_trt_tensor),
    }  # fmt: skip
    monkeypatch.setattr(module.importlib, "import_module", stands_for.__getitem__)
    register()
    network = Network(lean)
    nodes = [node for node in program.graph.nodes if node.target in converters]
    for node in nodes:
        values = [InputTensor(shape=tuple(a.meta["val"].shape), dtype=a.meta["val"].dtype) if isinstance(a, Node) else a
                  for a in node.args]  # fmt: skip
        out = converters[node.target](SimpleNamespace(net=network), node.target, tuple(values), node.kwargs, node.name)
        assert tuple(out.shape)[1:] == tuple(node.meta["val"].shape)[1:]
        assert str(fused_attention._opoverload) in network.layers[-1].name
    assert len(nodes) == sum(spec.block_passes)
    assert not [
        node for node in program.graph.nodes if "softmax" in str(node.target) or "scaled_dot" in str(node.target)
    ]
    for layer in network.layers:
        assert (layer.plugin.heads, layer.plugin.grid) == (4, own.get("grid", ()))
        assert [tuple(one.shape)[1:] for one in layer.inputs[:1]] == [(spec.total_len, 3 * 128)]
        tables = [] if variant == "nano" else [((17, 16), torch.float32)] * 2
        assert [(tuple(one.shape), one.dtype) for one in layer.inputs[1:]] == tables


def test_the_recorded_network_refuses_other_calls(lean: Any) -> None:
    plugin = _add_plugin(lean, Network(lean), [InputTensor(shape=(1, 16, 384), dtype="f")], 4).plugin
    tensor = InputTensor(shape=(1, 16, 384), dtype="f")
    for arguments in ((tensor, [], plugin), ([], [], plugin), ([tensor], [tensor], plugin), ([tensor], [], "plugin")):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            Network(lean).add_plugin_v3(*arguments)


def test_a_plugin_that_is_not_registered_or_refuses_is_named(lean: Any) -> None:
    tensor = InputTensor(shape=(1, 16, 384), dtype="f")
    for heads, grid, said in ((0, (), "refused heads=0"), (6, (4, 4, 2, 2), r"heads=6, grid=\[4, 4, 2, 2\]")):
        with pytest.raises(UserError, match=said):
            _add_plugin(lean, Network(lean), [tensor], heads, grid)
    empty = SimpleNamespace(get_plugin_registry=lambda: SimpleNamespace(get_creator=lambda *_: None))
    with pytest.raises(UserError, match="is not in TensorRT's registry"):
        _add_plugin(empty, Network(lean), [tensor], 8)
