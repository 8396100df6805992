"""Blocks of the family. Axes: B batch, T positions, D hidden, F inner."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm_edge.model.fake_quant import fake_quantized, fake_quantized_rows
from hrm_edge.ops.attention import Rope, packed_attention
from hrm_edge.spec import LEAST_PEAK, RMS_EPS, ModelSpec

# std of a standard normal cut at +-2 sigma: drawing with std/this gives a truncated draw whose std is the true one
_TRUNCATED_STD = 0.8796256610342398


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill with a normal cut at two sigma, corrected so that ``std`` is the true standard deviation."""
    wide = std / _TRUNCATED_STD
    with torch.no_grad():
        return nn.init.trunc_normal_(tensor, std=wide, a=-2 * wide, b=2 * wide)


class Linear(nn.Module):
    """y = x W^T + b computed in x's dtype; the master weight [out, in] stays in its own.

    With ``input_scale`` set the product is as INT8 would have it: inputs and weight rounded, with a gradient.
    ``by_row``: each row (all of x but its last axis) is rounded after division by its own peak, see ``row_peaks``.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, *, by_row: bool = False) -> None:
        super().__init__()
        self.by_row = by_row
        self.weight = nn.Parameter(truncated_normal_(torch.empty(outputs, inputs), 1.0 / math.sqrt(inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.input_scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight: Tensor = self.weight
        if self.input_scale is not None:
            weight = fake_quantized_rows(weight)
            if self.by_row:
                peaks = row_peaks(x)
                return F.linear(fake_quantized(x / peaks, self.input_scale), weight.to(x.dtype), bias) * peaks
            x = fake_quantized(x, self.input_scale)
        if bias is not None and torch.compiler.is_compiling() and x.device.type == "cpu":
            # an addition joins what follows; addmm would first copy the bias over its output
            return F.linear(x, weight.to(x.dtype)) + bias
        return F.linear(x, weight.to(x.dtype), bias)


def row_peaks(x: Tensor) -> Tensor:
    """Return the largest magnitude of every row of x [..., in], as [..., 1]; at least 1e-6.

    An MLP over positions has the channels of D as its rows. They differ in size by far, and the norm that follows
    brings each to the same size: what one scale for all of them rounds away of a small row would come back at full
    size. A product keeps rows apart, so that each may have a scale of its own, known only when the step runs.
    """
    return x.abs().amax(-1, keepdim=True).clamp(min=LEAST_PEAK)


class Embedding(nn.Module):
    """A table [rows, D] looked up by integer ids."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(truncated_normal_(torch.empty(rows, dim), 1.0 / math.sqrt(dim)))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding_weight)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-5) over the last axis, computed in float32, without a weight.

    ``width``: over each ``width`` consecutive values of that axis instead.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        wide = (x if self.width is None else x.unflatten(-1, (-1, self.width))).float()
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPS)
        return (normal if self.width is None else normal.flatten(-2)).to(x.dtype)


class LayerNorm(nn.Module):
    """LayerNorm over D with weight and bias, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias).to(x.dtype)


def _make_norm(spec: ModelSpec) -> nn.Module:
    return RMSNorm() if spec.norm == "rms" else LayerNorm(spec.hidden)


class _Attention(nn.Module):
    """Full self-attention with one packed projection."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.grid = spec.grid if spec.grid_heads and spec.grid else ()
        self.qkv_proj = Linear(spec.hidden, 3 * spec.hidden, spec.bias)
        self.o_proj = Linear(spec.hidden, spec.hidden, spec.bias)

    def forward(self, x: Tensor, rope: Rope | None, mask: Tensor | None) -> Tensor:
        return self.o_proj(packed_attention(self.qkv_proj(x), self.heads, rope, mask, self.grid))


class _SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one packed matrix, gate first (arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int, bias: bool, *, by_row: bool = False) -> None:
        super().__init__()
        self.gate_up_proj = Linear(width, 2 * inner, bias, by_row=by_row)
        self.down_proj = Linear(inner, width, bias, by_row=by_row)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class _GeluMLP(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.up_proj = Linear(spec.hidden, spec.inner, spec.bias)
        self.down_proj = Linear(spec.inner, spec.hidden, spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x)))


class Block(nn.Module):
    """Post-norm: x = norm(x + mixing(x)); x = norm(x + mlp(x)). Mixing is attention, or an MLP over positions.

    The MLP over positions sees each channel of D as a vector of T positions, and the norm after it is over T.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.mixes_by_mlp = spec.mixing == "mlp"
        if self.mixes_by_mlp:
            self.mlp_t = _SwiGLU(spec.total_len, spec.mixing_inner, spec.bias, by_row=True)
        else:
            self.self_attn = _Attention(spec)
        swiglu = spec.mlp == "swiglu"
        self.mlp: nn.Module = _SwiGLU(spec.hidden, spec.inner, spec.bias) if swiglu else _GeluMLP(spec)
        self.attn_norm, self.mlp_norm = _make_norm(spec), _make_norm(spec)

    def forward(self, x: Tensor, rope: Rope | None, mask: Tensor | None) -> Tensor:
        if self.mixes_by_mlp:
            x = x.transpose(1, 2)  # [B, D, T]
            x = self.attn_norm(x + self.mlp_t(x)).transpose(1, 2)
        else:
            x = self.attn_norm(x + self.self_attn(x, rope, mask))
        return self.mlp_norm(x + self.mlp(x))


class Level(nn.Module):
    """A recurrent module: ``norm`` of the state with its injections, then the blocks."""

    def __init__(self, norm: nn.Module, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.norm = norm

    def enter(self, state: Tensor, other: Tensor, connection: nn.Module, x: Tensor | None) -> Tensor:
        """Return the first block's input: the state, the other level's through ``connection``, and ``x`` if any."""
        injection: Tensor = connection(other)
        if x is not None:
            injection = injection + x
        entered: Tensor = self.norm(state + injection)
        return entered

    def forward(
        self,
        state: Tensor,
        other: Tensor,
        connection: nn.Module,
        x: Tensor | None,
        rope: Rope | None,
        mask: Tensor | None,
    ) -> Tensor:
        state = self.enter(state, other, connection, x)
        for layer in self.layers:
            state = layer(state, rope, mask)
        return state
