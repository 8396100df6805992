"""The operator inside engines that Torch-TensorRT builds: what is possible here, and the converters that do it.

Two forms, both chosen by what the installed packages have, not by version numbers:

- ``plugin``: a converter that adds the IPluginV3 of ``hrm_edge.plugin`` (TensorRT 10.0 and newer, so JetPack 6.2);
- ``quick``: TensorRT's quick-deployable plugins with ahead-of-time PTX inside the engine, which then needs no library
  at run time (TensorRT 10.9 and newer).

Torch-TensorRT can also generate a plugin from an operator's schema, but not for optional tensors, which ``cos`` and
``sin`` are; the quick form therefore registers the two cases itself.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import torch

from hrm_edge.errors import UserError
from hrm_edge.ops.aot import BOARD, SYMBOL, Variant, compile_variant
from hrm_edge.ops.fused import fused_attention
from hrm_edge.ops.tuning import choose
from hrm_edge.plugin.contract import NAME, NAMESPACE, NO_GRID, VERSION

MANY = 1 << 20  # sequences of a batch that is not known when the engine is built
QUICK = {True: "fused_attention_rope", False: "fused_attention_plain"}  # with cos and sin, without


def ways() -> dict[str, str | None]:
    """Form → None where it can be used on this machine, or the reason why not."""
    try:
        importlib.import_module("torch_tensorrt")
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        return dict.fromkeys(("plugin", "quick"), f"Torch-TensorRT does not import: {error}")
    found: dict[str, str | None] = {"plugin": None, "quick": None}
    if not hasattr(getattr(trt, "INetworkDefinition", None), "add_plugin_v3"):
        rtx = vars(trt).get("_package_name") == "tensorrt_rtx"
        found["plugin"] = f"{'TensorRT-RTX takes no plugins' if rtx else 'it has no IPluginV3'} ({trt.__version__})"
    if not hasattr(trt, "QuickPluginCreationRequest"):
        found["quick"] = f"it has no ahead-of-time plugins ({trt.__version__})"
    return found


def register(form: str = "plugin") -> None:
    """Teach Torch-TensorRT the operator; for ``plugin`` load the library or the Python plugin first.

    Raises ``UserError`` where this TensorRT does not have that form.
    """
    reason = ways().get(form, f"unknown form, known: {', '.join(ways())}")
    if reason is not None:
        raise UserError(
            f"TensorRT cannot take the attention as a plugin ({form}): {reason}",
            "export without --plugin: Torch-TensorRT then takes the attention apart into TensorRT's own layers",
        )
    trt = importlib.import_module("tensorrt")
    conversion = importlib.import_module("torch_tensorrt.dynamo.conversion")
    if form == "quick":
        trtp = importlib.import_module("tensorrt.plugin")
        register_quick(trt, trtp)

    @conversion.dynamo_tensorrt_converter(fused_attention._opoverload, supports_dynamic_shapes=True)
    def convert(ctx: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
        utils = importlib.import_module("torch_tensorrt.dynamo.conversion.converter_utils")
        qkv, heads, cos, sin, grid = [*args, None, None, None, None][:5]
        given = [tensor for tensor in (qkv, cos, sin) if tensor is not None]
        tensors = [utils.get_trt_tensor(ctx, tensor, f"{name}_{i}") for i, tensor in enumerate(given)]
        add = _add_quick if form == "quick" else add_plugin
        layer = add(trt, ctx.net, tensors, int(heads), tuple(map(int, kwargs.get("grid", grid) or ())))
        layer.name = f"[{target}]-[{name}]"
        return layer.get_output(0)


def add_plugin(trt: Any, network: Any, tensors: list[Any], heads: int, grid: tuple[int, ...] = ()) -> Any:
    """Add a layer of the IPluginV3 on [qkv] or [qkv, cos, sin]; ``grid`` as the operator takes it."""
    creator = trt.get_plugin_registry().get_creator(NAME, VERSION, NAMESPACE)
    if creator is None:
        raise UserError(
            f"{NAMESPACE}::{NAME} is not in TensorRT's registry",
            "call hrm_edge.plugin.load.load_plugin or hrm_edge.plugin.python.register_python_plugin first",
        )
    values = {"heads": np.array([heads], np.int32)}  # the fields point into these
    if grid:
        values["grid"] = np.array(grid, np.int32)
    kind = trt.PluginFieldType.INT32
    fields = trt.PluginFieldCollection([trt.PluginField(name, value, kind) for name, value in values.items()])
    plugin = creator.create_plugin(NAME, fields, trt.TensorRTPhase.BUILD)
    if plugin is None:
        raise UserError(
            f"the plugin refused heads={heads}{f', grid={list(grid)}' if grid else ''}", "see TensorRT's log"
        )
    return network.add_plugin_v3(tensors, [], plugin)


def _add_quick(trt: Any, network: Any, tensors: list[Any], heads: int, grid: tuple[int, ...] = ()) -> Any:
    """Add a layer of the quick-deployable form; its kernel is compiled now and stored in the engine."""
    calls = getattr(importlib.import_module("tensorrt.plugin").op, NAMESPACE)
    sizes = dict(zip(BOARD, grid or NO_GRID, strict=True))
    return network.add_plugin(getattr(calls, QUICK[len(tensors) == 3])(*tensors, heads=heads, **sizes), aot=True)


def without_scratch(ptx: str) -> str:
    """Return PTX without Triton's two trailing scratch pointers: TensorRT passes inputs, scalars and outputs only."""
    header = re.search(rf"\.entry {SYMBOL}\((.*?)\)", ptx, re.DOTALL)
    assert header is not None
    parameters = header.group(1).split(",")
    kept, dropped = parameters[:-2], parameters[-2:]
    body = ptx[header.end() :]
    for parameter in dropped:
        name = parameter.split()[-1]
        if re.search(rf"\b{name}\b", body):
            raise UserError(f"the kernel reads {name}", "install the pinned Triton")
    return ptx[: header.start(1)] + ",".join(kept) + "\n" + ptx[header.end(1) :]


def quick_kernel(
    trt: Any, trtp: Any, inputs: list[Any], heads: int, sm: int, grid: tuple[int, ...] = NO_GRID
) -> tuple[Any, ...]:
    """Return (name, PTX, launch parameters, scalars) of one layer; sizes but the batch must be constants."""
    from hrm_edge.ops.kernel import grid as launch_grid  # needs Triton, which the plugin form does not

    qkv, rope = inputs[0], len(inputs) == 3
    batch, length, packed = (qkv.shape_expr[axis] for axis in range(3))
    names = {trt.DataType.HALF: "float16", trt.DataType.BF16: "bfloat16", trt.DataType.FLOAT: "float32"}
    if qkv.dtype not in names or not (length.is_constant and packed.is_constant):
        raise UserError(f"the attention plugin got {qkv.dtype} or a dynamic length", "only the batch may be dynamic")
    positions, head_dim = length.constant_value(), packed.constant_value() // (3 * heads)
    sequences = batch.constant_value() * heads if batch.is_constant else MANY
    config = choose(sm, names[qkv.dtype], head_dim, positions, sequences)
    variant = Variant(names[qkv.dtype], head_dim, rope, config, grid != NO_GRID)
    compiled = compile_variant(sm, variant, drop=() if rope else ("cos", "sin"))
    launch = trtp.KernelLaunchParams()
    launch.grid_x = batch * launch_grid(1, heads, positions, config.block_m)[0]
    launch.block_x = 32 * compiled.metadata.num_warps
    launch.shared_mem = compiled.metadata.shared
    values = (positions, heads, head_dim // 2 if rope else 0, *grid)
    scalars = trtp.SymIntExprs(len(values))
    for index, value in enumerate(values):
        scalars[index] = trtp.SymInt32(value)
    return SYMBOL, without_scratch(compiled.asm["ptx"]), launch, scalars


def register_quick(trt: Any, trtp: Any, sm: int | None = None) -> None:
    """Register both cases with ``tensorrt.plugin`` (``trtp``); ``sm``: the current GPU's unless given."""
    if sm is None:
        major, minor = torch.cuda.get_device_capability()
        sm = 10 * major + minor

    def describe(qkv: Any) -> Any:
        out = qkv.like()
        out.shape_expr[2] = qkv.shape_expr[2] // 3
        return (out,)

    # TensorRT reads the signatures and wants types, not their names
    def rope(qkv: Any, cos: Any, sin: Any, heads: Any, rows: Any, columns: Any, box_rows: Any, box_columns: Any) -> Any:
        return describe(qkv)

    def plain(qkv: Any, heads: Any, rows: Any, columns: Any, box_rows: Any, box_columns: Any) -> Any:
        return describe(qkv)

    def kernel_of(tensors: list[Any], *attributes: Any) -> Any:
        heads, *board = (int(np.asarray(value).item()) for value in attributes)
        return quick_kernel(trt, trtp, tensors, heads, sm, tuple(board))

    def rope_kernel(
        qkv: Any,
        cos: Any,
        sin: Any,
        heads: Any,
        rows: Any,
        columns: Any,
        box_rows: Any,
        box_columns: Any,
        outputs: Any,
        tactic: Any,
    ) -> Any:
        return kernel_of([qkv, cos, sin], heads, rows, columns, box_rows, box_columns)

    def plain_kernel(
        qkv: Any, heads: Any, rows: Any, columns: Any, box_rows: Any, box_columns: Any, outputs: Any, tactic: Any
    ) -> Any:
        return kernel_of([qkv], heads, rows, columns, box_rows, box_columns)

    for describing, compiling, with_rope in ((rope, rope_kernel, True), (plain, plain_kernel, False)):
        tensors = ("qkv", "cos", "sin") if with_rope else ("qkv",)
        types = {**dict.fromkeys(tensors, trtp.TensorDesc), **dict.fromkeys(("heads", *BOARD), int)}
        describing.__annotations__ = {**types, "return": tuple[trtp.TensorDesc]}
        result = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]
        compiling.__annotations__ = {"return": result}
        name = f"{NAMESPACE}::{QUICK[with_rope]}"
        trtp.register(name)(describing)
        trtp.aot_impl(name)(compiling)
