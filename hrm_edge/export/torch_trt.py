"""One ACT step through Torch-TensorRT: ExportedProgram → engine, in the same folder and under the same sidecar; on
demand the engine is also saved as a module that torch programs load (``hrm_edge.export.torch_module``).

INT8 is our own: the scales of the artifact, applied by an operator that Torch-TensorRT turns into a quantize and a
dequantize layer. No modelopt, and no second calibration.

Axes: B batch, S cells, P puzzle tokens, T = P + S, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm_edge.callbacks import OnMessage
from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.model.layers import Linear, row_peaks
from hrm_edge.ops.attention import attention_path
from hrm_edge.ops.torch_tensorrt import register, why_no_plugin
from hrm_edge.runtime.trt.api import find_api
from hrm_edge.runtime.trt.identity import BatchRange, Options
from hrm_edge.runtime.trt.plugins import load_attention
from hrm_edge.runtime.trt.worker import MIB, Request, out_of_memory, says_memory
from hrm_edge.spec import INT8_MAX, STEP_INPUTS, ModelSpec, step_io

INSTALL = "pip install torch-tensorrt of torch's own version (on a Jetson: from the Jetson AI Lab's index)"

_UNSUPPORTED = re.compile(  # of the exceptions with which it stops at an operator
    r"Conversion of function (?P<operator>\S+) not currently supported.*?While executing %(?P<node>\w+)", re.DOTALL
)


# Tagged as not deterministic although it is: what has constant inputs only, as weights have, would otherwise be
# computed beforehand, and the engine's weights would be float again.
@torch.library.custom_op("hrm_edge::quantize_dequantize", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _quantize_dequantize(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Round x to the nearest of [-127, 127] times ``scale``: float32 [] or, along ``axis``, [C]."""
    shape = [1] * x.dim()
    if scale.dim():
        shape[axis] = -1
    step = scale.view(shape).to(x.dtype)
    return torch.clamp(torch.round(x / step), -INT8_MAX, INT8_MAX) * step


@_quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(x)


class _QuantizedLinear(nn.Module):
    """A linear layer whose input (per tensor) and weight (per output channel) pass through INT8."""

    def __init__(self, layer: Linear, input_scale: float) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.weight, self.bias, self.by_row = nn.Parameter(weight, requires_grad=False), layer.bias, layer.by_row
        self.register_buffer("input_scale", torch.tensor(input_scale, dtype=torch.float32))
        self.register_buffer("weight_scale", weight.abs().amax(1).clamp(min=1e-8) / INT8_MAX)

    def forward(self, x: Tensor) -> Tensor:
        weight = _quantize_dequantize(self.weight, self.get_buffer("weight_scale"), 0)
        peaks = row_peaks(x) if self.by_row else None
        given = _quantize_dequantize(x if peaks is None else x / peaks, self.get_buffer("input_scale"), 0)
        product = F.linear(given, weight, self.bias)
        return product if peaks is None else product * peaks


class _Step(nn.Module):
    """One step with the inputs of ``step_io`` by name, all outputs as it says; for models without a puzzle table."""

    def __init__(self, model: HRM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, z_h: Tensor, z_l: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.run(tokens, None, z_h, z_l)

    def run(
        self, tokens: Tensor, puzzle: Tensor | None, z_h: Tensor, z_l: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z_h, z_l, logits, q = self.model(tokens, puzzle, z_h, z_l)
        return z_h, z_l, logits.float(), q.float()


class _PuzzleStep(_Step):
    """A step with a puzzle vector."""

    def forward(  # type: ignore[override]
        self, tokens: Tensor, puzzle: Tensor, z_h: Tensor, z_l: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.run(tokens, puzzle, z_h, z_l)


def _step_module(model: HRM, scales: Mapping[str, float] | None, half: bool) -> _Step:
    """Return a copy of ``model`` as a step; ``scales`` by layer name make layers INT8, ``half`` the rest float16."""
    other = copy.deepcopy(model).eval().requires_grad_(False)
    for name, scale in (scales or {}).items():
        parent, _, last = name.rpartition(".")
        layer = other.get_submodule(name)
        assert isinstance(layer, Linear)
        setattr(other.get_submodule(parent), last, _QuantizedLinear(layer, scale))
    return (_PuzzleStep if other.spec.puzzle_dim else _Step)(other.half() if half else other)


def _example(spec: ModelSpec, batch: int, half: bool) -> tuple[Tensor, ...]:
    """Return inputs of a step."""
    made = []
    for name in STEP_INPUTS:
        if name in step_io(spec):
            kind, shape = step_io(spec)[name]
            dtype = torch.int32 if kind == "int32" else torch.float16 if half else torch.float32
            made.append(torch.zeros(batch, *(int(size) for size in shape[1:]), dtype=dtype))
    return tuple(made)


def _exported_program(step: _Step, half: bool, batch: BatchRange) -> torch.export.ExportedProgram:
    """Export the step for a batch in ``batch``'s range (fixed where that is one size)."""
    given = _example(step.model.spec, max(2, batch.opt) if batch.max > 1 else 1, half)
    with torch.no_grad():
        return torch.export.export(step, given, dynamic_shapes=_batch_axes(given, batch), strict=False)


def _batch_axes(given: tuple[Tensor, ...], batch: BatchRange) -> tuple[dict[int, Any], ...]:
    """Make the first axis of every input one batch of that range; none is dynamic where it is one size."""
    axis = {0: torch.export.Dim("batch", min=batch.min, max=batch.max)} if batch.max > 1 else {}
    return tuple(axis for _ in given)


def load_torch_tensorrt() -> Any:
    """Import Torch-TensorRT and register our operators' converters. Raises ``UserError`` where it does not import."""
    try:
        module = importlib.import_module("torch_tensorrt")
        _register()
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"Torch-TensorRT does not import: {error}", INSTALL) from error
    return module


def check_plugin() -> None:
    """Raise ``UserError`` where Torch-TensorRT's TensorRT cannot take the attention as a plugin."""
    reason = why_no_plugin()
    if reason is not None:
        raise UserError(
            f"--plugin: {reason}", "leave --plugin out: the attention is then made of TensorRT's own layers"
        )


def installed(module: Any) -> dict[str, str]:
    """Return versions of torch and of Torch-TensorRT, for sidecars."""
    return {"torch": str(torch.__version__), "torch_tensorrt": str(module.__version__)}


def _register() -> None:
    """Teach Torch-TensorRT what to do with :func:`_quantize_dequantize`."""
    conversion = importlib.import_module("torch_tensorrt.dynamo.conversion")
    utils = importlib.import_module("torch_tensorrt.dynamo.conversion.converter_utils")

    @conversion.dynamo_tensorrt_converter(_quantize_dequantize._opoverload, supports_dynamic_shapes=True)
    def _convert(ctx: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
        trt = importlib.import_module("tensorrt")
        x, scale, axis = args
        steps = utils.get_trt_tensor(ctx, scale, f"{name}_scale")
        given = utils.get_trt_tensor(ctx, x, f"{name}_input")
        quantize = ctx.net.add_quantize(given, steps, trt.DataType.INT8)
        dequantize = ctx.net.add_dequantize(quantize.get_output(0), steps, given.dtype)
        for layer, kind in ((quantize, "quantize"), (dequantize, "dequantize")):
            if len(steps.shape):
                layer.axis = axis
            layer.name = f"{name}_{kind}"
        return dequantize.get_output(0)


def _settings(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` that this Torch-TensorRT's ``function`` knows (2.8 to 2.13 differ)."""
    known = set(inspect.signature(function).parameters)
    return {name: value for name, value in options.items() if name in known}


def _inputs(module: Any, step: _Step, half: bool, batch: BatchRange) -> list[Any]:
    inputs = []
    for tensor in _example(step.model.spec, 1, half):
        least, best, most = ((size, *tensor.shape[1:]) for size in (batch.min, batch.opt, batch.max))
        inputs.append(module.Input(min_shape=least, opt_shape=best, max_shape=most, dtype=tensor.dtype))
    return inputs


def _asked(options: Options) -> dict[str, Any]:
    """Return what every version may be asked for; each takes what it knows (:func:`_settings`)."""
    return {
        "use_explicit_typing": True,  # where it can be chosen: 2.8
        "require_full_compilation": True,
        "min_block_size": 1,
        "disable_tf32": not options.tf32,
        "workspace_size": options.workspace_mib * MIB,
        "optimization_level": options.optimization_level,
        "cache_built_engines": False,  # its key knows neither the GPU nor TensorRT's version
        "reuse_cached_engines": False,
        "immutable_weights": True,
    }


def _compiled_by(module: Any, function: Any, step: _Step, options: Options) -> Any:
    """Compile the exported step by ``function`` of Torch-TensorRT; ``UserError`` naming what does not convert."""
    half, batch = options.precision == "fp16", options.batch
    program = _exported_program(step, half, batch)
    try:
        return function(program, arg_inputs=_inputs(module, step, half, batch), **_settings(function, _asked(options)))
    except Exception as error:
        raise _failed(module, "convert the step", error, options) from error


def _failed(module: Any, what: str, error: Exception, options: Options) -> UserError:
    """Explain why Torch-TensorRT could not do ``what``: an operator that it refuses, memory, or its own words."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__
    if any(map(says_memory, said)):
        return UserError(*out_of_memory(said[0].partition("\n")[0], options))
    reason, refused = said[0].partition("\n")[0], _UNSUPPORTED.search("\n".join(said))
    if refused is not None:
        reason = f"it has no conversion for node '{refused['node']}' ({refused['operator'].rpartition('.')[2]})"
    return UserError(
        f"Torch-TensorRT {module.__version__} could not {what}: {reason}",
        "export with --backend tensorrt, which goes through ONNX",
    )


def _convert(step: _Step, options: Options) -> bytes:
    """Convert a step to a plan: the whole graph as one strongly typed engine.

    Raises ``UserError`` naming what does not convert.
    """
    module = load_torch_tensorrt()
    function = module.dynamo.convert_exported_program_to_serialized_trt_engine
    return bytes(_compiled_by(module, function, step, options))


def _convert_and_save(step: _Step, options: Options, path: Path) -> bytes:
    """Return the plan, and save the engine to ``path`` as an ExportedProgram that takes the batches of ``options``.

    Torch-TensorRT reads the engine back for that, which needs the GPU it was built for.
    """
    module = load_torch_tensorrt()
    try:
        compiled = _compiled_by(module, module.dynamo.compile, step, options)
    except UserError as error:
        if "fully supported" in error.problem:  # it does not say what is not; the conversion by itself does
            _convert(step, options)
        raise
    engines = [engine for child in compiled.children() if (engine := getattr(child, "serialized_engine", None))]
    if len(engines) != 1:
        raise _failed(module, "convert the step", ValueError(f"it was cut into {len(engines)} engines"), options)
    given = _example(step.model.spec, max(2, options.batch.opt), options.precision == "fp16")
    wanted = {
        "output_format": "exported_program",
        "retrace": False,  # the compiled graph as it is: tracing it anew would run the engine
        "arg_inputs": list(given),
        "dynamic_shapes": _batch_axes(given, options.batch),
    }
    try:
        module.save(compiled, str(path), **_settings(module.save, wanted))
    except Exception as error:
        raise _failed(module, "save the module", error, options) from error
    return bytes(engines[0])


def make_plan(model: HRM, scales: dict[str, float] | None, request: Request, on_message: OnMessage) -> dict[str, Any]:
    """Build the plan of what an artifact was written from, for ``build_engine``; returns the fields of its record."""
    begun = time.monotonic()
    on_message("converting with Torch-TensorRT")
    step, options = _step_module(model, scales, request.options.precision == "fp16"), request.options
    if request.plugin is not None:
        load_attention(find_api(request.runtime), request.plugin)
        register()
    with attention_path("unfused" if request.plugin is None else "fused"):  # then one node, which is the plugin
        whole = _convert(step, options) if request.module is None else _convert_and_save(step, options, request.module)
    request.plan.write_bytes(whole)
    return {
        "seconds": round(time.monotonic() - begun, 3),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "layers": None,
        "timing_cache": False,
        "packages": installed(load_torch_tensorrt()),
    }
