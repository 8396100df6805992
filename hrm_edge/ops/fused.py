"""``torch.ops.hrm_edge.fused_attention``: the fused kernel as an operator of torch, with gradient and shapes.

On a GPU it is the Triton kernel, on a CPU the plain reference; what neither serves is a ``UserError`` that says so.
Axes: B batch, S positions, H heads, Dh head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.ops.reference import grid_mask, reference_attention, unfused_attention
from hrm_edge.ops.tuning import choose
from hrm_edge.plugin.contract import DTYPES, LEAST_SM, shape_problem

_SCHEMA = "(Tensor qkv, int heads, Tensor? cos, Tensor? sin, int[] grid=[]) -> Tensor"
_HINT = "use hrm_edge.ops.attention.packed_attention, which takes torch's own kernels there"


def _check_inputs(qkv: Tensor, heads: int, cos: Tensor | None, sin: Tensor | None, grid: Sequence[int] = ()) -> None:
    """Raise ``UserError`` unless the operator computes this call; float64 is served on a CPU only."""
    name = str(qkv.dtype).removeprefix("torch.")
    if name not in DTYPES and not (name == "float64" and qkv.device.type == "cpu"):
        raise UserError(f"fused_attention: qkv is {name}, the kernel computes {', '.join(DTYPES)}", _HINT)
    if problem := shape_problem(heads, qkv.shape, grid):
        raise UserError(f"fused_attention: {problem}", f"check `heads` and `grid`, or {_HINT}")
    if (cos is None) != (sin is None):
        raise UserError("fused_attention: cos without sin", "give both or neither")
    for table in (cos, sin):
        if table is None:
            continue
        wanted = (qkv.shape[1], qkv.shape[2] // (6 * heads))
        if tuple(table.shape) != wanted or table.device != qkv.device or table.stride(1) != 1:
            raise UserError(
                f"fused_attention: a rope table is {tuple(table.shape)} on {table.device}",
                f"give {wanted}, rows dense, on {qkv.device}",
            )
        if table.dtype != torch.promote_types(qkv.dtype, torch.float32):
            raise UserError(f"fused_attention: a rope table is {table.dtype}", "give float32, whatever qkv is")
    if cos is not None and sin is not None and cos.stride(0) != sin.stride(0):
        raise UserError("fused_attention: cos and sin have different strides", "make both contiguous")


@torch.library.custom_op("hrm_edge::fused_attention", mutates_args=(), device_types="cpu", schema=_SCHEMA)
def fused_attention(
    qkv: Tensor, heads: int, cos: Tensor | None, sin: Tensor | None, grid: Sequence[int] = ()
) -> Tensor:
    """Return softmax(Q K^T / sqrt(Dh)) V of packed qkv [B, S, 3*H*Dh] → [B, S, H*Dh] in qkv's dtype.

    cos, sin: float32 [S, Dh/2] of the rotary embedding in the "rotate half" layout, or both None. Float16, bfloat16
    and float32 with float32 accumulation; Dh 32 or 64; S up to 1,024. Differentiable once in qkv.

    grid: rows, columns, rows of a box, columns of a box (``ModelSpec.grid``) of a board whose cells are the positions;
    the heads then see, in turn, the row, the column, the box of a cell, and all cells. Empty: all see all.
    """
    _check_inputs(qkv, heads, cos, sin, grid)
    rope = None if cos is None or sin is None else (cos, sin)
    return reference_attention(qkv, heads, rope, grid).contiguous()


def _output(qkv: Tensor) -> Tensor:
    return qkv.new_empty((qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3))


@fused_attention.register_kernel("cuda")
def _on_gpu(qkv: Tensor, heads: int, cos: Tensor | None, sin: Tensor | None, grid: Sequence[int] = ()) -> Tensor:
    _check_inputs(qkv, heads, cos, sin, grid)
    try:
        from hrm_edge.ops.kernel import attention_kernel, launch
    except ImportError as error:
        raise UserError("the fused kernel needs Triton", "pip install 'hrm-edge[fused]'") from error
    major, minor = torch.cuda.get_device_capability(qkv.device)
    sm = 10 * major + minor
    if sm < LEAST_SM:
        raise UserError(f"the fused kernel needs compute capability 8.0, this GPU has {major}.{minor}", _HINT)
    batch, length, packed = qkv.shape
    dtype = str(qkv.dtype).removeprefix("torch.")
    config = choose(sm, dtype, packed // (3 * heads), length, batch * heads)
    out = _output(qkv)
    if batch:
        with torch.cuda.device(qkv.device):
            rope = None if cos is None or sin is None else (cos, sin)
            launch(attention_kernel, qkv.contiguous(), heads, rope, out, config, grid)
    return out


@fused_attention.register_fake
def _shapes(qkv: Tensor, heads: int, cos: Tensor | None, sin: Tensor | None, grid: Sequence[int] = ()) -> Tensor:
    _check_inputs(qkv, heads, cos, sin, grid)
    return _output(qkv)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    qkv, ctx.heads, cos, sin, ctx.grid = inputs
    ctx.save_for_backward(qkv, cos, sin)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    """Recompute by torch's own kernels, which keep no S x S matrix on a GPU, and differentiate those."""
    qkv, cos, sin = ctx.saved_tensors
    rope = None if cos is None else (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    mask = grid_mask(ctx.grid, ctx.heads).to(qkv.device) if ctx.grid else None
    with torch.enable_grad():
        again = qkv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(unfused_attention(again, ctx.heads, rope, mask), again, grad)
    return gradient, None, None, None, None


fused_attention.register_autograd(_backward, setup_context=_save)
