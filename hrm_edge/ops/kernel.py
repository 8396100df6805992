"""The one source of the fused attention kernel, in Triton: compiled on a GPU, ahead of time, or interpreted on a CPU.

Online softmax over key tiles (FlashAttention-2, arXiv 2307.08691) on the packed projection as it lies in memory, the
rotary embedding applied to tiles of Q and K on their way in. Nothing but the result is written.

Heads that see a part of a board (a row, a column, a box) take the cells in the order of those blocks: a tile of
queries then lies in few neighbouring blocks, and only their keys are read (a row of Sudoku has 9, the board 81).

Axes: B batch, S positions, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from hrm_edge.ops.tuning import Config
from hrm_edge.plugin.contract import NO_GRID


@triton.jit
def attention_kernel(  # type: ignore[no-untyped-def]
    qkv,
    cos,
    sin,
    length,
    heads,
    rope_stride,
    rows,
    columns,
    box_rows,
    box_columns,
    out,
    D: tl.constexpr,
    ROPE: tl.constexpr,
    GRID: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # qkv [B, S, 3*H*D], out [B, S, H*D], both dense; cos, sin [S, D/2] fp32, rows rope_stride apart, unread without
    # ROPE; the sizes of the board (S = rows * columns) and of its boxes unread without GRID. One program: BLOCK_M
    # query rows of one head of one sequence; neighbours share their K and V in the cache.
    LOG2_E: tl.constexpr = 1.4426950408889634
    HALF: tl.constexpr = D // 2
    tiles = (length + BLOCK_M - 1) // BLOCK_M
    tile = tl.program_id(0) % tiles
    sequence = tl.program_id(0) // tiles
    batch = (sequence // heads).to(tl.int64)
    head = sequence % heads
    row = 3 * heads * D
    q_base = qkv + batch * length * row + head * D
    k_base = q_base + heads * D
    v_base = k_base + heads * D
    scale = LOG2_E / tl.sqrt(D * 1.0)

    dims = tl.arange(0, D)
    half = tl.arange(0, HALF)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    m_in = m[:, None] < length
    first = 0
    end = length
    if GRID:  # the views of plugin/contract.py, as the sizes of the block that this head sees
        view = head % 4
        block_rows = tl.where(view == 0, 1, tl.where(view == 2, box_rows, rows))
        block_columns = tl.where(view == 1, 1, tl.where(view == 2, box_columns, columns))
        size = block_rows * block_columns
        across = columns // block_columns
        m_block = m // size
        m_inside = m % size
        m_at = (m_block // across * block_rows + m_inside // block_columns) * columns + (
            m_block % across * block_columns + m_inside % block_columns
        )
        first = tile * BLOCK_M // size * size
        end = tl.minimum(length, ((tile + 1) * BLOCK_M + size - 1) // size * size)
    else:
        m_at = m
    # The rotation pairs d with d + D/2. Halves that stay apart need no shuffle: QK^T is the sum of two products.
    # Rotated values are rounded to the input's type, as a rotation outside of the kernel rounds them.
    if ROPE:
        q1 = tl.load(q_base + m_at[:, None] * row + half[None, :], mask=m_in, other=0.0).to(tl.float32)
        q2 = tl.load(q_base + m_at[:, None] * row + half[None, :] + HALF, mask=m_in, other=0.0).to(tl.float32)
        q_cos = tl.load(cos + m_at[:, None] * rope_stride + half[None, :], mask=m_in, other=0.0)
        q_sin = tl.load(sin + m_at[:, None] * rope_stride + half[None, :], mask=m_in, other=0.0)
        q_first = (q1 * q_cos - q2 * q_sin).to(qkv.dtype.element_ty)
        q_second = (q2 * q_cos + q1 * q_sin).to(qkv.dtype.element_ty)
    else:
        q = tl.load(q_base + m_at[:, None] * row + dims[None, :], mask=m_in, other=0.0)

    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.full((BLOCK_M,), 0.0, tl.float32)
    acc = tl.full((BLOCK_M, D), 0.0, tl.float32)
    for start in range(first, end, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        n_in = n[:, None] < end
        if GRID:
            n_block = n // size
            n_inside = n % size
            n_at = (n_block // across * block_rows + n_inside // block_columns) * columns + (
                n_block % across * block_columns + n_inside % block_columns
            )
        else:
            n_at = n
        if ROPE:
            k1 = tl.load(k_base + n_at[:, None] * row + half[None, :], mask=n_in, other=0.0).to(tl.float32)
            k2 = tl.load(k_base + n_at[:, None] * row + half[None, :] + HALF, mask=n_in, other=0.0).to(tl.float32)
            k_cos = tl.load(cos + n_at[:, None] * rope_stride + half[None, :], mask=n_in, other=0.0)
            k_sin = tl.load(sin + n_at[:, None] * rope_stride + half[None, :], mask=n_in, other=0.0)
            k_first = (k1 * k_cos - k2 * k_sin).to(qkv.dtype.element_ty)
            k_second = (k2 * k_cos + k1 * k_sin).to(qkv.dtype.element_ty)
            scores = tl.dot(q_first, tl.trans(k_first), input_precision="ieee")
            scores = tl.dot(q_second, tl.trans(k_second), scores, input_precision="ieee")
        else:
            k = tl.load(k_base + n_at[:, None] * row + dims[None, :], mask=n_in, other=0.0)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        seen = n[None, :] < end
        if GRID:
            seen = seen & (m_block[:, None] == n_block[None, :])
        scores = tl.where(seen, scores * scale, float("-inf"))
        peak = tl.maximum(highest, tl.max(scores, 1))
        # Without GRID each row of scores has a finite entry. With it a query may meet none of its block in a tile: a
        # maximum that is still -inf is then not subtracted.
        base = tl.where(peak > float("-inf"), peak, 0.0) if GRID else peak
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(highest - base)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(v_base + n_at[:, None] * row + dims[None, :], mask=n_in, other=0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        highest = peak

    o_base = out + batch * length * heads * D + head * D
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(o_base + m_at[:, None] * (heads * D) + dims[None, :], result, mask=m_in)


def launch(
    kernel: object,
    qkv: Tensor,
    heads: int,
    rope: tuple[Tensor, Tensor] | None,
    out: Tensor,
    config: Config,
    board: Sequence[int] = (),
) -> None:
    """Run ``kernel`` (compiled or interpreted) on dense qkv [B, S, 3*H*D] into dense out [B, S, H*D]."""
    batch, length, packed = qkv.shape
    cos, sin = rope if rope is not None else (qkv, qkv)  # never read, but the signature is one
    programs = batch * heads * -(-length // config.block_m)  # on a single axis, because the others end at 65,535
    kernel[(programs,)](  # type: ignore[index]
        qkv,
        cos,
        sin,
        length,
        heads,
        cos.stride(0) if rope is not None else 0,
        *(board or NO_GRID),
        out,
        D=packed // (3 * heads),
        ROPE=rope is not None,
        GRID=bool(board),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        num_warps=config.warps,
        num_stages=config.stages,
    )
