"""The operator inside engines that Torch-TensorRT builds: a converter that adds the plugin of ``hrm_edge.plugin``.

It takes an IPluginV3, which TensorRT has from 10.0 on (so JetPack 6.2) and TensorRT-RTX has not. What the installed
packages have decides, not their version numbers.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.ops.fused import fused_attention
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION


def why_no_plugin() -> str | None:
    """Return why the TensorRT of Torch-TensorRT takes no plugin on this machine; None where it does."""
    try:
        importlib.import_module("torch_tensorrt")
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        return f"Torch-TensorRT does not import: {error}"
    if hasattr(getattr(trt, "INetworkDefinition", None), "add_plugin_v3"):
        return None
    is_rtx = vars(trt).get("_package_name") == "tensorrt_rtx"
    return f"{'TensorRT-RTX takes no plugins' if is_rtx else 'it has no IPluginV3'} ({trt.__version__})"


def register() -> None:
    """Teach Torch-TensorRT the operator; load the library or the Python plugin first.

    Raises ``UserError`` where this TensorRT takes no plugin.
    """
    reason = why_no_plugin()
    if reason is not None:
        raise UserError(
            f"TensorRT cannot take the attention as a plugin: {reason}",
            "export without --plugin: Torch-TensorRT then takes the attention apart into TensorRT's own layers",
        )
    trt = importlib.import_module("tensorrt")
    conversion = importlib.import_module("torch_tensorrt.dynamo.conversion")

    @conversion.dynamo_tensorrt_converter(fused_attention._opoverload, supports_dynamic_shapes=True)
    def convert(ctx: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
        utils = importlib.import_module("torch_tensorrt.dynamo.conversion.converter_utils")
        qkv, heads, cos, sin, grid = [*args, None, None, None, None][:5]
        given = [tensor for tensor in (qkv, cos, sin) if tensor is not None]
        tensors = [utils.get_trt_tensor(ctx, tensor, f"{name}_{i}") for i, tensor in enumerate(given)]
        layer = _add_plugin(trt, ctx.net, tensors, int(heads), tuple(map(int, kwargs.get("grid", grid) or ())))
        layer.name = f"[{target}]-[{name}]"
        return layer.get_output(0)


def _add_plugin(trt: Any, network: Any, tensors: list[Any], heads: int, grid: tuple[int, ...] = ()) -> Any:
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
