"""The operator in Torch-TensorRT, as far as it can be run without it: the real quick-deploy interface of the lean
runtime, the kernel that goes into the engine, and the layer that the converter adds.

Not run here: a conversion by Torch-TensorRT itself, which needs the full TensorRT.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.fx import Node

triton = pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from hrm_edge.errors import UserError
from hrm_edge.export.torch_trt import exported_program, step_module
from hrm_edge.model.hrm import HRM
from hrm_edge.ops import torch_tensorrt as module
from hrm_edge.ops.aot import BOARD
from hrm_edge.ops.attention import attention_path
from hrm_edge.ops.fused import fused_attention
from hrm_edge.ops.torch_tensorrt import QUICK, add_plugin, quick_kernel, register, ways, without_scratch
from hrm_edge.ops.tuning import choose
from hrm_edge.plugin.contract import NAMESPACE
from hrm_edge.runtime.trt.identity import BatchRange
from hrm_edge.spec import variant_spec


def test_what_is_missing_is_said() -> None:
    found = ways()
    assert set(found) == {"plugin", "quick"}
    missing = [form for form, reason in found.items() if reason is not None]
    for form in missing:
        with pytest.raises(UserError, match="TensorRT cannot take the attention as a plugin"):
            register(form)
    with pytest.raises(UserError, match="unknown form, known: plugin, quick"):
        register("other")


def test_features_decide_and_not_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SimpleNamespace(add_plugin_v3=None)
    old = SimpleNamespace(__version__="10.3.0", INetworkDefinition=network)
    monkeypatch.setattr(module.importlib, "import_module", lambda name: old)
    assert ways() == {"plugin": None, "quick": "it has no ahead-of-time plugins (10.3.0)"}
    old.QuickPluginCreationRequest = object
    assert ways() == {"plugin": None, "quick": None}
    del network.add_plugin_v3
    old._package_name = "tensorrt_rtx"
    assert ways()["plugin"] == "TensorRT-RTX takes no plugins (10.3.0)"


QUICK_IN_LEAN = """
import sys
import tensorrt_lean_bindings as trt
# the lean bindings lack three names that tensorrt.plugin mentions in annotations
trt.TensorFormat, trt.ITensor = type("TensorFormat", (), {"LINEAR": 0}), type("ITensor", (), {})
sys.modules["tensorrt"] = trt
import tensorrt_lean_bindings.plugin as trtp
from hrm_edge.ops.torch_tensorrt import QUICK, register_quick
register_quick(trt, trtp, 87)
for name in QUICK.values():
    creator = trt.get_plugin_registry().get_creator(name, "1", "hrm_edge")
    print(name, [field.name for field in creator.field_names])
    assert getattr(trtp.op.hrm_edge, name).aot_impl_func is not None
"""


def test_tensorrt_takes_the_quick_form() -> None:
    """In a process of its own: the shim under the name of the full TensorRT must not be seen by other tests."""
    pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")
    done = subprocess.run([sys.executable, "-c", QUICK_IN_LEAN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "[TRT]" not in line]
    assert lines == [f"{name} {['heads', *BOARD]}" for name in QUICK.values()]


class Size(int):
    """A stand-in for a symbolic size, -1 being one that is not known."""

    @property
    def is_constant(self) -> bool:
        return self >= 0

    def constant_value(self) -> int:
        return int(self)


TRT = SimpleNamespace(DataType=SimpleNamespace(HALF="half", BF16="bf16", FLOAT="float"))
TRTP = SimpleNamespace(KernelLaunchParams=SimpleNamespace, SymIntExprs=lambda n: [None] * n, SymInt32=int)


def tensor(*sizes: int, kind: str = "half") -> Any:
    return SimpleNamespace(dtype=kind, shape_expr=[Size(size) for size in sizes])


@pytest.mark.parametrize("rope", [True, False])
def test_the_kernel_of_the_quick_form(rope: bool, tmp_path: Path) -> None:
    """Its launch, its parameters in TensorRT's order, and that NVIDIA's assembler takes the shortened PTX."""
    inputs = [tensor(8, 82, 3 * 4 * 32), *([tensor(82, 16, kind="float")] * 2 if rope else [])]
    name, ptx, launch, scalars = quick_kernel(TRT, TRTP, inputs, 4, 87)
    config = choose(87, "float16", 32, 82, 32)
    assert launch.grid_x == 8 * 4 * -(-82 // config.block_m)
    assert launch.block_x == 32 * config.warps
    assert list(scalars) == [82, 4, 16 if rope else 0, 0, 0, 0, 0]
    header = ptx[ptx.index(f".entry {name}(") : ptx.index(")")]
    assert header.count(".param") == (3 if rope else 1) + 7 + 1
    assert [line.split()[1] for line in header.splitlines()[1:]] == (
        [".u64"] * (3 if rope else 1) + [".u32"] * 7 + [".u64"]
    )
    source = tmp_path / "kernel.ptx"
    source.write_text(ptx)
    ptxas = triton.knobs.nvidia.ptxas.path
    subprocess.run([ptxas, "-arch=sm_87", str(source), "-o", str(tmp_path / "kernel.cubin")], check=True)


def test_a_dynamic_batch_takes_the_configuration_of_many(tmp_path: Path) -> None:
    launch = quick_kernel(TRT, TRTP, [tensor(-1, 82, 3 * 4 * 32)], 4, 87)[2]
    assert launch.block_x == 32 * choose(87, "float16", 32, 82, 10**6).warps


@pytest.mark.parametrize("qkv", [tensor(8, -1, 384), tensor(8, 82, 384, kind="int8")])
def test_the_quick_form_refuses(qkv: Any) -> None:
    with pytest.raises(UserError, match="the attention plugin got"):
        quick_kernel(TRT, TRTP, [qkv], 4, 87)


def test_a_kernel_that_reads_its_scratch_is_not_shortened() -> None:
    parameters = ",\n".join(f".param .u64 p{i}" for i in range(3))
    ptx = f".visible .entry attention_kernel(\n{parameters}\n)\n{{ ld.param.b64 %rd1, [p2]; }}"
    with pytest.raises(UserError, match="the kernel reads p2"):
        without_scratch(ptx)


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
    from hrm_edge.plugin.python import plugin_classes

    creator = plugin_classes(trt)[1](launcher=None)
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
        program = exported_program(step_module(HRM(spec), None, False), False, BatchRange(min=1, opt=4, max=8))
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
    register("plugin")
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
    plugin = add_plugin(lean, Network(lean), [InputTensor(shape=(1, 16, 384), dtype="f")], 4).plugin
    tensor = InputTensor(shape=(1, 16, 384), dtype="f")
    for arguments in ((tensor, [], plugin), ([], [], plugin), ([tensor], [tensor], plugin), ([tensor], [], "plugin")):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            Network(lean).add_plugin_v3(*arguments)


def test_a_plugin_that_is_not_registered_or_refuses_is_named(lean: Any) -> None:
    tensor = InputTensor(shape=(1, 16, 384), dtype="f")
    for heads, grid, said in ((0, (), "refused heads=0"), (6, (4, 4, 2, 2), r"heads=6, grid=\[4, 4, 2, 2\]")):
        with pytest.raises(UserError, match=said):
            add_plugin(lean, Network(lean), [tensor], heads, grid)
    empty = SimpleNamespace(get_plugin_registry=lambda: SimpleNamespace(get_creator=lambda *_: None))
    with pytest.raises(UserError, match="is not in TensorRT's registry"):
        add_plugin(empty, Network(lean), [tensor], 8)
