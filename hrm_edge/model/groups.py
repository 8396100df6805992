"""Blocks of the lattice: every symbol of every cell of a Sudoku has a vector, and its groups send it their sums.

The groups of a symbol in a cell are that symbol in the cell's row, column and box, and all symbols of the cell: what
the rules of Sudoku speak of. All symbols share their weights, and so do all cells: relabelling the symbols or moving
rows, columns, bands and stacks of the board moves the answer with it. Rows and columns have weights of their own.

Axes: B batch, S cells, R rows, C columns, N symbols, W symbol width, D = N * W, F inner, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm_edge.model.layers import Linear, RMSNorm
from hrm_edge.spec import FIRST_SYMBOL, GROUPS, ModelSpec

_SMALL = 0.5  # of the usual initial spread, for what is added up


class _SymbolMLP(nn.Module):
    """The two products of a block's SwiGLU; what the groups send is added between them."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up_proj = Linear(spec.symbol_width, 2 * spec.inner, bias=True)
        self.down_proj = Linear(spec.inner, spec.symbol_width, bias=False)


class GroupBlock(nn.Module):
    """x + down(silu(gate) * up), with [gate, up] = W norm(x) + b + the sum over groups of W_g (pooled_g / sqrt(N)).

    ``pooled_g`` is the sum over the group of silu(P norm(x)).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        assert spec.grid is not None
        self.grid = spec.grid
        self.norm = RMSNorm(spec.symbol_width)
        self.pool_proj = Linear(spec.symbol_width, spec.symbol_width, bias=False)
        for name in GROUPS:
            self.add_module(f"{name}_proj", Linear(spec.symbol_width, 2 * spec.inner, bias=False))
        self.mlp = _SymbolMLP(spec)
        with torch.no_grad():
            for name in (*(f"{group}_proj.weight" for group in GROUPS), "mlp.down_proj.weight"):
                self.get_parameter(name).mul_(_SMALL)

    def forward(self, x: Tensor, rope: object = None, mask: object = None) -> Tensor:
        """Map x [B, S, D] to [B, S, D]; the other arguments are for blocks of attention."""
        side, _, box_rows, box_columns = self.grid
        bands, stacks = side // box_rows, side // box_columns
        normal = self.norm(x).unflatten(-1, (side, -1)).unflatten(1, (side, side))  # [B, R, C, N, W]
        pooled = F.silu(self.pool_proj(normal)) / math.sqrt(side)
        boxes = pooled.unflatten(2, (stacks, box_columns)).unflatten(1, (bands, box_rows)).sum((2, 4))
        sent = {"row": pooled.sum(2), "column": pooled.sum(1), "box": boxes, "cell": pooled.sum(3)}
        row, column, box, cell = (self.get_submodule(f"{name}_proj")(sent[name]) for name in GROUPS)
        inner = self.mlp.gate_up_proj(normal) + row[:, :, None] + column[:, None] + cell[:, :, :, None]
        inner = inner.unflatten(2, (stacks, box_columns)).unflatten(1, (bands, box_rows))
        inner = inner + box[:, :, None, :, None]
        gate, up = inner.chunk(2, -1)
        return x + self.mlp.down_proj(F.silu(gate) * up).reshape(x.shape)


def symbol_heads(spec: ModelSpec, z_h: Tensor, lm_head: Linear, q_head: Linear) -> tuple[Tensor, Tensor]:
    """Return (logits [B, S, V], q [B, Q]) of z_h [B, S, D], both float32; padding and blank always have logit 0."""
    normal = RMSNorm(spec.symbol_width)(z_h).unflatten(-1, (spec.symbols, spec.symbol_width))
    symbols = lm_head(normal).squeeze(-1).float()  # [B, S, N]
    return F.pad(symbols, (FIRST_SYMBOL, 0)), q_head(normal.mean((1, 2), dtype=torch.float32))
