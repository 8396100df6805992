"""The attention seam: one signature for torch's own kernels and for the fused one.

Axes: B batch, T positions, H heads, Dh head size.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.ops.fused import fused_attention
from hrm_edge.ops.reference import Rope, rope_tables, unfused_attention
from hrm_edge.ops.tuning import read_table
from hrm_edge.plugin.contract import DTYPES, HEAD_DIMS, LEAST_SM, MAX_LENGTH

__all__ = ["Rope", "attention_path", "packed_attention", "rope_tables"]

Path = Literal["auto", "fused", "unfused"]

_path: Path = "auto"


@contextlib.contextmanager
def attention_path(path: Path) -> Iterator[None]:
    """Force one implementation in tests, benchmarks and exports; "fused" on a CPU runs the operator's reference."""
    global _path
    old, _path = _path, path
    try:
        yield
    finally:
        _path = old


@functools.cache
def _gpu_serves(index: int) -> bool:
    major, minor = torch.cuda.get_device_capability(index)
    sm = 10 * major + minor
    tuned = read_table().get(sm)
    return sm >= LEAST_SM and tuned is not None and tuned.measured and importlib.util.find_spec("triton") is not None


def _fused_is_chosen(qkv: Tensor, heads: int) -> bool:
    """Return whether ``packed_attention`` takes the fused kernel: on a GPU where it was measured, for its shapes.

    Elsewhere torch's own kernels compute the same function. A GPU without measured rows in the tuning table keeps
    them: the kernel is proven in numbers there, not in speed. ``scripts/autotune.py`` writes the rows.
    """
    if _path != "auto":
        return _path == "fused"
    return (
        qkv.is_cuda
        and str(qkv.dtype).removeprefix("torch.") in DTYPES
        and qkv.shape[-1] // (3 * heads) in HEAD_DIMS
        and qkv.shape[1] <= MAX_LENGTH
        and _gpu_serves(qkv.get_device())
    )


def packed_attention(
    qkv: Tensor, heads: int, rope: Rope | None, mask: Tensor | None = None, grid: Sequence[int] = ()
) -> Tensor:
    """Return softmax(Q K^T / sqrt(Dh) + mask) V over all positions; mask [H, T, T] in any float type or None.

    grid is the board (``ModelSpec.grid``) whose rows, columns and boxes ``mask`` leaves to the heads, in turn; empty
    where it is another mask, which only torch's own kernels take.

    qkv [B, T, 3*H*Dh] holds all heads' Q, then all K, then all V; rope is (cos, sin) [T, Dh], as ``rope_tables``
    makes them, or None. Returns [B, T, H*Dh] in qkv's dtype.
    """
    blocks = mask is None or bool(grid)
    if _path == "fused" and not blocks:
        raise UserError(
            "the fused attention has blocks for the rows, columns and boxes of a board, not for this mask",
            "give packed_attention the board as `grid`, or use attention_path('unfused')",
        )
    if not blocks or not _fused_is_chosen(qkv, heads):
        return unfused_attention(qkv, heads, rope, mask, grid)
    if rope is None:
        return fused_attention(qkv, heads, None, None, grid)
    cos, sin = (table[:, : table.shape[1] // 2].float() for table in rope)  # the halves are equal; a view, no copy
    return fused_attention(qkv, heads, cos, sin, grid)
