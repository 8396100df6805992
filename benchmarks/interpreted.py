"""Run the kernel on the CPU, statement by statement, in Triton's interpreter: its numbers without a GPU.

Triton decides for a whole process whether kernels are interpreted or compiled; here both are at hand, so what its
own switch changes is changed for the length of a run. The interpreter also keeps bfloat16 as 16-bit integers, cuts
where a GPU rounds to nearest even, and multiplies the bits of such tiles: corrected, so that bfloat16 is checked as a
GPU computes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime import interpreter

from hrm_edge.ops import fused
from hrm_edge.ops.kernel import attention_kernel, launch
from hrm_edge.ops.tuning import Config


def _widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


@contextlib.contextmanager
def _reductions() -> Iterator[None]:
    # tl.max and tl.sum are compiled functions over tl.reduce, which the interpreter does replace
    old = tl.max, tl.sum
    tl.max = lambda x, axis: tl.reduce(x, axis, tl.standard._elementwise_max)
    tl.sum = lambda x, axis: tl.reduce(x, axis, tl.standard._sum_combine)
    try:
        yield
    finally:
        tl.max, tl.sum = old


@contextlib.contextmanager
def _bfloat16_of_a_gpu() -> Iterator[None]:
    builder = interpreter.InterpreterBuilder
    old = builder.cast_impl, builder.create_fp_to_fp, builder.create_dot

    def convert(src: Any, to: Any, otherwise: Callable[[], Any]) -> Any:
        pair = (src.dtype.scalar, to.scalar)
        if pair == (tl.bfloat16, tl.float32):
            return interpreter.TensorHandle(_widen(src.data), tl.float32)
        if pair == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_round(src.data), tl.bfloat16)
        return otherwise()

    def cast(self: Any, src: Any, to: Any) -> Any:
        return convert(src, to, lambda: old[0](self, src, to))

    def fp_to_fp(self: Any, src: Any, to: Any, rounding: Any) -> Any:
        return convert(src, to, lambda: old[1](self, src, to, rounding))

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return old[2](self, convert(a, tl.float32, lambda: a), convert(b, tl.float32, lambda: b), *rest)

    builder.cast_impl, builder.create_fp_to_fp, builder.create_dot = cast, fp_to_fp, dot
    try:
        yield
    finally:
        builder.cast_impl, builder.create_fp_to_fp, builder.create_dot = old


def run_interpreted(
    qkv: Tensor,
    heads: int,
    rope: tuple[Tensor, Tensor] | None,
    out: Tensor,
    config: Config,
    grid: Sequence[int] = (),
) -> None:
    """Run the kernel on dense CPU tensors; slow (a second for a thousand positions), meant for tests."""
    kernel = interpreter.InterpretedFunction(attention_kernel.fn)
    with (
        _reductions(),
        _bfloat16_of_a_gpu(),
        np.errstate(all="ignore"),
    ):  # -inf minus -inf of masked rows is never stored
        launch(kernel, qkv, heads, rope, out, config, grid)


@contextlib.contextmanager
def interpreted(config: Config) -> Iterator[None]:
    """Within, the operator runs the Triton kernel on CPU tensors in Triton's interpreter."""

    def run(qkv: Tensor, heads: int, rope: tuple[Tensor, Tensor] | None, grid: Sequence[int] = ()) -> Tensor:
        out = qkv.new_empty((*qkv.shape[:2], qkv.shape[2] // 3))
        run_interpreted(qkv.contiguous(), heads, rope, out, config, grid)
        return out

    reference = fused.reference_attention
    fused.reference_attention = run
    try:
        yield
    finally:
        fused.reference_attention = reference
