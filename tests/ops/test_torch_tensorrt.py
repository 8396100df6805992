"""The operator in Torch-TensorRT, as far as it can be run without it: the real quick-deploy interface of the lean
runtime, the kernel that goes into the engine, and the layer that the converter adds.

Not run here: a conversion by Torch-TensorRT itself, which needs the full TensorRT.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from hrm_edge.errors import UserError
from hrm_edge.ops import torch_tensorrt as module
from hrm_edge.ops.torch_tensorrt import QUICK, add_plugin, quick_kernel, register, ways, without_scratch
from hrm_edge.ops.tuning import choose
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION


def test_what_is_missing_is_said() -> None:
    found = ways()
    assert set(found) == {"plugin", "quick"}
    missing = [form for form, reason in found.items() if reason is not None]
    for form in missing:
        with pytest.raises(UserError, match=f"the {form} form of the attention plugin"):
            register(form)
    with pytest.raises(UserError, match="unknown form, known: plugin, quick"):
        register("other")


def test_features_decide_and_not_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(__version__="10.3.0", IPluginV3=object)
    monkeypatch.setattr(module.importlib, "import_module", lambda name: old)
    assert ways() == {"plugin": None, "quick": "TensorRT 10.3.0 has no ahead-of-time plugins"}
    old.QuickPluginCreationRequest = object
    assert ways() == {"plugin": None, "quick": None}


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
    assert lines == [f"{name} ['heads']" for name in QUICK.values()]


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
    assert list(scalars) == [82, 4, 16 if rope else 0]
    header = ptx[ptx.index(f".entry {name}(") : ptx.index(")")]
    assert header.count(".param") == (3 if rope else 1) + 3 + 1
    assert [line.split()[1] for line in header.splitlines()[1:]] == (
        [".u64"] * (3 if rope else 1) + [".u32"] * 3 + [".u64"]
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


class Network:
    def add_plugin_v3(self, inputs: list[Any], shape_inputs: list[Any], plugin: Any) -> Any:
        return SimpleNamespace(inputs=inputs, shape_inputs=shape_inputs, plugin=plugin)


def test_the_converters_layer_is_the_registered_plugin(tmp_path: Path) -> None:
    """With the Python plugin in the lean runtime's real registry; the network is a stand-in."""
    trt = pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")
    from hrm_edge.plugin.python import plugin_classes

    with pytest.raises(UserError, match="is not in TensorRT's registry"):
        add_plugin(trt, Network(), ["qkv"], 8)
    creator = plugin_classes(trt)[1](launcher=None)
    registry = trt.get_plugin_registry()
    assert registry.register_creator(creator, NAMESPACE)
    try:
        layer = add_plugin(trt, Network(), ["qkv", "cos", "sin"], 8)
        assert layer.inputs == ["qkv", "cos", "sin"]
        assert layer.plugin.heads == 8
        assert registry.get_creator(NAME, VERSION, NAMESPACE) is creator
        with pytest.raises(UserError, match="refused heads=0"):
            add_plugin(trt, Network(), ["qkv"], 0)
    finally:
        registry.deregister_creator(creator)
