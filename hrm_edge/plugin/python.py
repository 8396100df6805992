"""The plugin in Python: the same name, fields and kernels as the C++ one, without headers and without a compiler.

TensorRT 10.0 and newer. Its call costs some Python time per layer, which a CUDA graph pays once. An engine built with
one of the two runs with the other. ``trt`` is the caller's TensorRT module: ``tensorrt``, or a lean runtime's.

Axes: B batch, S positions, H heads, Dh head size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.plugin.contract import (
    ABI,
    ALIGNMENT,
    DTYPES,
    NAME,
    NAMESPACE,
    NO_GRID,
    VERSION,
    grid_problem,
    shape_problem,
)
from hrm_edge.plugin.driver import WRONG_IMAGE, Driver, DriverError, driver
from hrm_edge.plugin.kernels import Kernel, KernelFolder

log = logging.getLogger(__name__)


class _Launcher:
    """Kernels of one folder on one machine; what was loaded into a CUDA context is kept."""

    def __init__(self, folder: KernelFolder, find_driver: Callable[[], Driver] = driver) -> None:
        self.folder = folder
        self._driver = find_driver
        self._loaded: dict[tuple[int, str], int] = {}

    def load(
        self, dtype: str, head_dim: int, rope: bool, grid: bool, length: int, sequences: int
    ) -> tuple[Kernel, int]:
        """(kernel, function) for a call on the current device; where the driver refuses a cubin, the base's PTX."""
        api = self._driver()
        candidates = self.folder.candidates(api.sm(), dtype, head_dim, rope, grid, length, sequences)
        for kernel in candidates:
            key = (api.context(), kernel.file)
            try:
                if key not in self._loaded:
                    self._loaded[key] = api.load(self.folder.read(kernel), self.folder.symbol, kernel.shared)
            except DriverError as error:
                if error.code not in WRONG_IMAGE or kernel is candidates[-1]:
                    raise
                continue
            return kernel, self._loaded[key]
        raise AssertionError("the last candidate returns or raises")

    def launch(self, kernel: Kernel, function: int, sequences: int, values: list[int], stream: int) -> None:
        """``values`` as in :meth:`Driver.launch`, with the length at index 3."""
        blocks = sequences * -(-values[3] // kernel.block_m)
        self._driver().launch(function, blocks, kernel.threads, kernel.shared, stream, values)


def _check_shapes(heads: int, qkv: Sequence[int], tables: Sequence[Sequence[int]], grid: Sequence[int] = ()) -> None:
    """Raise ``UserError`` unless the kernels compute these shapes; a dimension of -1 is not known yet."""
    if problem := shape_problem(heads, qkv, grid):
        raise UserError(problem, "check the node's `heads` and `grid`, or export without --plugin")
    half = qkv[2] // (6 * heads)
    if len(tables) not in (0, 2):
        raise UserError(f"{1 + len(tables)} inputs", "give qkv, or qkv, cos and sin")
    for table in tables:
        if len(table) != 2 or table[0] not in (qkv[1], -1) or table[1] not in (half, -1):
            raise UserError(f"a rope table is {list(table)}", f"it must be [{qkv[1]}, {half}]")


class _Layer:
    """Behaviour of a layer, without TensorRT's base classes, which ``plugin_classes`` adds.

    TensorRT reports what a method raises as a failure of the layer.
    """

    trt: Any  # TensorRT's module
    bases: tuple[type, ...]  # its interfaces

    def __init__(self, heads: int, launcher: _Launcher, grid: Sequence[int] = ()) -> None:
        for base in self.bases:
            base.__init__(self)  # type: ignore[misc]
        self.plugin_name, self.plugin_version, self.plugin_namespace = NAME, VERSION, NAMESPACE
        self.num_outputs = 1
        self.heads, self.launcher, self.grid = heads, launcher, tuple(grid)
        kinds = self.trt.DataType
        self.dtypes = dict(zip((kinds.HALF, kinds.BF16, kinds.FLOAT), DTYPES, strict=True))
        # PluginField points into these arrays and does not keep them alive
        self.values = {"heads": np.array([heads], np.int32), "abi": np.array([ABI], np.int32)}
        self.values["grid"] = np.array(self.grid or NO_GRID, np.int32)
        self.ready: tuple[tuple[int, ...], Kernel, int] | None = None

    def get_capability_interface(self, kind: Any) -> Any:
        return self

    def clone(self) -> Any:
        return type(self)(self.heads, self.launcher, self.grid)

    def get_fields_to_serialize(self) -> Any:
        kind = self.trt.PluginFieldType.INT32
        return self.trt.PluginFieldCollection([self.trt.PluginField(n, v, kind) for n, v in self.values.items()])

    def supports_format_combination(self, position: int, tensors: Any, inputs: int) -> bool:
        tensor = tensors[position].desc
        if tensor.format != self.trt.TensorFormat.LINEAR:
            return False
        if position == 0:
            return tensor.type in self.dtypes
        return bool(tensor.type == (self.trt.DataType.FLOAT if position < inputs else tensors[0].desc.type))

    def get_output_data_types(self, inputs: Any) -> list[Any]:
        return [inputs[0]]

    def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
        out = self.trt.DimsExprs(inputs[0])
        third = self.trt.DimensionOperation.FLOOR_DIV
        out[2] = builder.operation(third, inputs[0][2], builder.constant(3))
        return [out]

    def configure_plugin(self, inputs: Any, outputs: Any) -> None:
        for shapes in ([tuple(t.min) for t in inputs], [tuple(t.max) for t in inputs]):
            _check_shapes(self.heads, shapes[0], shapes[1:], self.grid)

    def on_shape_change(self, inputs: Any, outputs: Any) -> None:
        """Load the kernel: here, because a module must not be loaded while a stream is captured."""
        shapes = [tuple(tensor.dims) for tensor in inputs]
        _check_shapes(self.heads, shapes[0], shapes[1:], self.grid)
        batch, length, packed = shapes[0]
        dtype, head_dim = self.dtypes[inputs[0].type], packed // (3 * self.heads)
        kind = (dtype, head_dim, len(inputs) == 3, bool(self.grid))
        self.ready = (shapes[0], *self.launcher.load(*kind, length, batch * self.heads))

    def attach_to_context(self, context: Any) -> Any:
        return self.clone()

    def set_tactic(self, tactic: int) -> None:
        """Accept the only tactic there is."""

    def enqueue(
        self, inputs: Any, outputs: Any, addresses: Any, out_addresses: Any, workspace: int, stream: int
    ) -> None:
        shape = tuple(inputs[0].dims)
        if self.ready is None or self.ready[0] != shape:
            raise UserError(f"called with {shape} before it was told of this shape")
        _, kernel, function = self.ready
        rope = len(addresses) == 3
        pointers = [*addresses, *([] if rope else [addresses[0]] * 2), out_addresses[0]]
        if any(pointer % ALIGNMENT for pointer in pointers):
            raise UserError(f"a tensor is not aligned to {ALIGNMENT} bytes", "use a buffer of its own")
        stride = shape[2] // (3 * self.heads) // 2 if rope else 0
        values = [*pointers[:3], shape[1], self.heads, stride, *(self.grid or NO_GRID), pointers[3]]
        if shape[0]:
            self.launcher.launch(kernel, function, shape[0] * self.heads, values, stream)


class _Maker:
    """Behaviour of a creator: layers from a node's fields when an engine is built, from their own when one is read."""

    trt: Any
    bases: tuple[type, ...]
    layer: type[_Layer]

    def __init__(self, launcher: _Launcher) -> None:
        for base in self.bases:
            base.__init__(self)  # type: ignore[misc]
        self.name, self.plugin_version, self.plugin_namespace = NAME, VERSION, NAMESPACE
        self.empty = np.array([], np.int32)
        kind = self.trt.PluginFieldType.INT32
        self.field_names = self.trt.PluginFieldCollection(
            [self.trt.PluginField(field, self.empty, kind) for field in ("heads", "grid")]
        )
        self.launcher = launcher

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
        values = {field.name: field.data for field in fields}
        numbers = {n: int(values[n][0]) for n in ("heads", "abi") if n in values and len(values[n]) == 1}
        if numbers.get("heads", 0) < 1:
            log.error("%s: `heads` must be one int32 above 0", name)
            return None
        if phase == self.trt.TensorRTPhase.RUNTIME and numbers.get("abi") != ABI:
            log.error("the engine has ABI %s of the plugin, this is %s: build it again", numbers.get("abi"), ABI)
            return None
        grid = tuple(map(int, values.get("grid", NO_GRID)))
        if grid != NO_GRID and (problem := grid_problem(grid, numbers["heads"], -1)):
            log.error("%s: %s", name, problem)
            return None
        return self.layer(numbers["heads"], self.launcher, () if grid == NO_GRID else grid)


def _plugin_classes(trt: Any) -> tuple[type, type]:
    """Return (plugin, creator) classes derived from those of ``trt``."""
    layer_bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    layer = type("FusedAttention", (_Layer, *layer_bases), {"trt": trt, "bases": layer_bases})
    maker_bases = (trt.IPluginCreatorV3One,)
    maker = type("Creator", (_Maker, *maker_bases), {"trt": trt, "bases": maker_bases, "layer": layer})
    return layer, maker


_registered: dict[str, Any] = {}  # TensorRT does not own Python creators: they must outlive their engines


def register_python_plugin(trt: Any, kernels: Path | str) -> Any:
    """Register the plugin with the kernels of a folder in ``trt``'s registry, once per process; returns the creator."""
    if trt.__name__ not in _registered:
        creator = _plugin_classes(trt)[1](_Launcher(KernelFolder(kernels)))
        if not trt.get_plugin_registry().register_creator(creator, NAMESPACE):
            raise UserError(f"TensorRT has a {NAMESPACE}::{NAME} already", "load one library, or this plugin, not both")
        _registered[trt.__name__] = creator
    return _registered[trt.__name__]
