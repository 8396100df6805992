"""The nodes that every step's graph is made of, from single ones to a layer's product, rounded as the policy says.

Axes: T positions, D hidden, F inner.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from hrm_edge.spec import INT8_MAX, LEAST_PEAK, RMS_EPS, ModelSpec, parameter_shapes

_FLOAT, _FLOAT16 = 1, 10  # onnx.TensorProto's numbers of the types

Array = NDArray[np.generic]


def _quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a matrix [out, in] to symmetric INT8: (values in [-127, 127], scale per output channel [out])."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-8).astype(np.float32) / np.float32(INT8_MAX)
    values = np.clip(np.rint(weight / scale[:, None]), -INT8_MAX, INT8_MAX).astype(np.int8)
    return values, scale


class Nodes(ABC):
    """Single nodes, linear layers, norms and gates, of which a step is built; a subclass says what taking one means."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        half: bool = False,
        activation_scales: Mapping[str, float] | None = None,
        int8_weights: Collection[str] = (),
    ) -> None:
        """Take ``activation_scales`` by layer name: those layers become INT8; ``half``: all else in fp16.

        ``int8_weights``: layers whose products are in float, but whose weights are stored in INT8 all the same.
        """
        self.spec = spec
        self.weights = weights
        self.shapes = parameter_shapes(spec)
        self.float = np.dtype(np.float16 if half else np.float32)
        self.half = half
        self.scales = activation_scales or {}
        self.int8_weights = int8_weights
        self.dequantized: dict[str, str] = {}
        self.scope = "step"  # of the next nodes: an error or a range check names the part of the model

    @abstractmethod
    def ops(
        self, kind: str, inputs: tuple[str, ...], outputs: int, names: list[str] | None = None, **attributes: object
    ) -> list[str]:
        """Take a node and return the names of its outputs; ``names``: what they have to be."""

    @abstractmethod
    def constant(self, name: str, value: Array) -> str:
        """Take an initializer and return its name."""

    @abstractmethod
    def trained(self, name: str, make: Callable[[], Array]) -> str:
        """Take an initializer that comes of the weights or their calibration, and return its name."""

    @abstractmethod
    def as_float32(self, x: str, name: str) -> None:
        """Make ``x`` the graph's output ``name``, in float32."""

    # -- building blocks --------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        """Take a node with one output and return the output's name."""
        return self.ops(kind, inputs, 1, [out] if out else None, **attributes)[0]

    def float_constant(self, name: str, value: NDArray[np.float32]) -> str:
        return self.constant(name, value.astype(self.float))

    def trained_float(self, name: str, make: Callable[[], NDArray[np.float32]]) -> str:
        return self.trained(name, lambda: make().astype(self.float))

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def shape(self, *dims: int) -> str:
        return self.ints("shape_" + "_".join(map(str, dims)).replace("-1", "B"), *dims)

    def linear(
        self,
        x: str,
        name: str,
        *,
        rows: NDArray[np.int64] | None = None,
        row_scale: NDArray[np.float32] | None = None,
    ) -> str:
        """Add x W^T + b; ``rows`` [out] reorders the outputs and ``row_scale`` [out] scales them, in the weights."""

        def values(part: str) -> NDArray[np.float32]:
            array = self.weights[f"{name}.{part}"]
            array = array if rows is None else array[rows]
            return array if row_scale is None else (array.T * row_scale).T

        weight, bias = functools.partial(values, "weight"), functools.partial(values, "bias")
        if name in self.scales and ".mlp_t." in name:
            peaks = self._row_peaks(x)
            given = self._quantized(self.op("Div", x, peaks), name)
            y = self.op("Mul", self.op("MatMul", given, self._int8_weight(name, weight)), peaks)
        elif name in self.scales:
            y = self.op("MatMul", self._quantized(x, name), self._int8_weight(name, weight))
        elif name in self.int8_weights:
            y = self.op("MatMul", x, self._int8_weight(name, weight))
        else:
            y = self.op("MatMul", x, self.trained_float(f"{name}.weight", lambda: weight().T))
        has_bias = f"{name}.bias" in self.shapes
        return self.op("Add", y, self.trained_float(f"{name}.bias", bias)) if has_bias else y

    def _quantized(self, x: str, name: str) -> str:
        scale = self.trained_float(f"{name}.input_scale", lambda: np.asarray(self.scales[name], np.float32))
        zero = self.constant("int8_zero", np.int8(0))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)

    def _row_peaks(self, x: str) -> str:
        """Add the graph of ``hrm_edge.model.layers.row_peaks``."""
        last = self.ints("last_axis", -1)
        peaks = self.op("ReduceMax", self.op("Abs", x), last, keepdims=1)
        return self.op("Max", peaks, self.float_constant("least_peak", np.float32(LEAST_PEAK)))

    def _int8_weight(self, name: str, weight: Callable[[], NDArray[np.float32]]) -> str:
        if name not in self.dequantized:
            quantized = functools.cache(lambda: _quantize_weight(weight()))
            columns = self.shapes[f"{name}.weight"][0]
            stored = self.trained(f"{name}.weight_int8", lambda: quantized()[0].T)
            scales = self.trained_float(f"{name}.weight_scale", lambda: quantized()[1])
            zeros = self.constant(f"int8_zeros_{columns}", np.zeros(columns, np.int8))
            self.dequantized[name] = self.op("DequantizeLinear", stored, scales, zeros, axis=1)
        return self.dequantized[name]

    def norm(self, x: str, name: str, width: int | None = None) -> str:
        """Add the norm over the last axis, which has ``width`` values (None: D)."""
        if self.spec.norm == "layer":
            weight, bias = (
                self.trained_float(part, functools.partial(self.weights.__getitem__, part))
                for part in (f"{name}.weight", f"{name}.bias")
            )
            return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=RMS_EPS)
        # in float32; the product with ones completes the pattern that ONNX Runtime fuses into one kernel
        wide = self.op("Cast", x, to=_FLOAT) if self.half else x
        square = self.op("Pow", wide, self.constant("two", np.float32(2)))
        mean = self.op("ReduceMean", square, self.ints("last_axis", -1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant("rms_eps", np.float32(RMS_EPS))))
        normal = self.op("Div", wide, root)
        if self.half:
            normal = self.op("Cast", normal, to=_FLOAT16)
        ones = "ones" if width is None else f"ones_{width}"
        return self.op("Mul", normal, self.float_constant(ones, np.ones(width or self.spec.hidden, np.float32)))

    def gated(self, inner: str, axis: int = 2) -> str:
        """Add silu(gate) * up of [gate, up], 2 F values on the last ``axis``."""
        gate, up = self.ops("Split", (inner,), 2, axis=axis, num_outputs=2)
        return self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
