"""The attention seam: one signature for the reference and for every fused kernel.

Axes: B batch, T positions, H heads, Dh head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rope_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [T, Dh] of rotary positions in the "rotate half" layout (RoFormer, arXiv 2104.09864)."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _slow_sdpa(qkv: Tensor) -> bool:
    # torch's CPU kernel for bf16: at S=81, Dh=32 forward and backward take 6 times as long as the plain products
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16


def _explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1) @ v


def packed_attention(qkv: Tensor, heads: int, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    """softmax(Q K^T / sqrt(Dh)) V over all positions, no mask.

    qkv [B, T, 3*H*Dh] holds all heads' Q, then all K, then all V; rope is (cos, sin) [T, Dh] or None.
    Returns [B, T, H*Dh] in qkv's dtype.
    """
    batch, length, packed = qkv.shape
    head_dim = packed // (3 * heads)
    q, k, v = qkv.view(batch, length, 3, heads, head_dim).permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, Dh]
    if rope is not None:
        cos, sin = (table.to(qkv.dtype) for table in rope)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    out = _explicit(q, k, v) if _slow_sdpa(qkv) else F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(batch, length, heads * head_dim)
