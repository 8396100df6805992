"""Attention on the packed projection in plain torch: the fused kernel is checked against it, and it runs without one.

Axes: B batch, T positions, H heads, Dh head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm_edge.plugin.contract import VIEWS, view_blocks

Rope = tuple[Tensor, Tensor]


def rope_tables(length: int, head_dim: int, theta: float) -> Rope:
    """Return cos and sin [T, Dh] of rotary positions in the "rotate half" layout (RoFormer, arXiv 2104.09864)."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _split(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Return q, k, v [B, H, T, Dh] of qkv [B, T, 3*H*Dh]."""
    batch, length, packed = qkv.shape
    return qkv.view(batch, length, 3, heads, packed // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # [B, T, H*Dh]


def _slow_sdpa(qkv: Tensor) -> bool:
    # Forward and backward of torch's CPU kernel in bf16 (Dh=32, one core with AMX) take 5 times as long as the plain
    # products at T=81, as long at T=256, 0.7 times as long at T=900, where the scores no longer fit into the caches.
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and qkv.shape[1] < 256


def _blocks_pay(qkv: Tensor) -> bool:
    # Of a 9x9 board (Dh=32, 64 of them, compiled, one core with AMX), forward and backward take 0.6 of the time with a
    # mask in float32, 0.8 in bf16; of a 4x4 board, where there is little to leave out, 1.4 and 2.3 of it.
    return qkv.device.type == "cpu" and qkv.shape[1] >= 64 and not torch.compiler.is_exporting()


def _by_blocks(qkv: Tensor, heads: int, grid: Sequence[int]) -> Tensor:
    """Return what :func:`unfused_attention` does of the heads of a board, without the scores of cells not seen.

    Each view's cells are sorted into its blocks, [B, blocks, cells of a block], and a block attends to itself.
    """
    rows, columns = grid[:2]
    batch, length, packed = qkv.shape
    dim = packed // (3 * heads)
    each = qkv.view(batch, rows, columns, 3, heads // VIEWS, VIEWS, dim)
    results = []
    for view, (height, width) in enumerate(view_blocks(grid)):
        down, across = rows // height, columns // width
        cells = each[..., view, :].unflatten(2, (across, width)).unflatten(1, (down, height))
        blocks = cells.permute(5, 0, 6, 1, 3, 2, 4, 7).reshape(3, -1, height * width, dim)
        q, k, v = blocks.unbind(0)
        seen = ((q * dim**-0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
        seen = seen.view(batch, heads // VIEWS, down, across, height, width, dim).permute(0, 2, 4, 3, 5, 1, 6)
        results.append(seen.reshape(batch, length, heads // VIEWS, dim))
    return torch.stack(results, dim=3).flatten(2)  # [B, T, H*Dh], the views in turn


def unfused_attention(
    qkv: Tensor, heads: int, rope: Rope | None, mask: Tensor | None = None, grid: Sequence[int] = ()
) -> Tensor:
    """Return softmax(Q K^T / sqrt(Dh) + mask) V by torch's own kernels, all in qkv's dtype.

    rope is (cos, sin) [T, Dh] or None, mask [H, T, T] or None. ``grid``: the board that the mask is of, if any.
    """
    if grid and rope is None and _blocks_pay(qkv):
        return _by_blocks(qkv, heads, grid)
    q, k, v = _split(qkv, heads)
    if rope is not None:
        cos, sin = (table.to(qkv.dtype) for table in rope)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    if _slow_sdpa(qkv):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        return _merge(scores.softmax(-1) @ v)
    return _merge(F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(qkv.dtype)))


def grid_mask(grid: Sequence[int], heads: int) -> Tensor:
    """Return what is added to the scores [H, T, T] of a board: 0 where a head sees the cell, else minus infinity."""
    rows, columns = grid[:2]
    row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
    masks = []
    for height, width in view_blocks(grid):
        block = row // height * columns + column // width
        masks.append(torch.where(block[:, None] == block, 0.0, float("-inf")))
    return torch.stack(masks).repeat(heads // VIEWS, 1, 1)


def reference_attention(qkv: Tensor, heads: int, rope: Rope | None, grid: Sequence[int] = ()) -> Tensor:
    """Compute the same in float32 (float64 for float64), rounded where the kernel rounds: rotated Q and K, result.

    rope is (cos, sin) [T, Dh/2], one column per pair of dimensions. grid is the board that the heads see parts of.
    """
    wide = torch.promote_types(qkv.dtype, torch.float32)
    q, k, v = (x.to(wide) for x in _split(qkv, heads))
    if rope is not None:
        cos, sin = (torch.cat([table, table], dim=-1).to(wide) for table in rope)
        q, k = (_rotate(x, cos, sin).to(qkv.dtype).to(wide) for x in (q, k))
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if grid:
        scores = scores + grid_mask(grid, heads).to(scores)
    return _merge(scores.softmax(-1) @ v).to(qkv.dtype)
