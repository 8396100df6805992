"""The model: one ACT step of the Hierarchical Reasoning Model (arXiv 2506.21734), for every variant.

The Tiny Recursive Model (TRM, arXiv 2510.04871) is the same step with one stack of blocks for both levels.

Axes: B batch, S cells, P puzzle tokens, T = P + S, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hrm_edge.graph.step import head_mask
from hrm_edge.model.groups import GroupBlock, symbol_heads
from hrm_edge.model.layers import Block, Embedding, LayerNorm, Level, Linear, RMSNorm, truncated_normal_
from hrm_edge.ops.attention import Rope, rope_tables
from hrm_edge.spec import (
    KINDS,
    SINUSOIDAL_ROWS,
    ModelSpec,
    cell_ids,
    parameter_shapes,
    token_kinds,
)

_Q_BIAS = -5.0  # a fresh model does not halt


def _sinusoidal_table(rows: int, dim: int) -> Tensor:
    """Return [rows, dim]: sin in even, cos in odd columns (Attention Is All You Need, section 3.5)."""
    angles = torch.arange(rows).unsqueeze(1) * torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class _SinusoidalTable(nn.Module):
    table: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", _sinusoidal_table(SINUSOIDAL_ROWS, dim))


class _PuzzleTable(nn.Module):
    """One vector per puzzle identifier; a buffer, because its own sparse optimizer trains it."""

    weights: Tensor

    def __init__(self, puzzles: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(puzzles, dim))


def _level(spec: ModelSpec, layers: int) -> Level:
    if spec.mixing == "groups":
        return Level(RMSNorm(spec.symbol_width), [GroupBlock(spec) for _ in range(layers)])
    norm = LayerNorm(spec.hidden) if spec.norm == "layer" else nn.Identity()
    return Level(norm, [Block(spec) for _ in range(layers)])


class HRM(nn.Module):
    """Weights and one step. The loop over steps is the caller's (``hrm_edge.solve``, ``hrm_edge.training``)."""

    H_init: Tensor
    L_init: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.grad_l_updates = 1 if spec.h_layers else spec.l_cycles
        self.grad_cycles = 1
        if spec.mixing == "groups":
            self.embed_kinds = Embedding(len(KINDS), spec.symbol_width)
            self.register_buffer("kinds", torch.tensor(token_kinds(spec)), persistent=False)
        else:
            self.embed_tokens = Embedding(spec.vocab, spec.hidden)
        if spec.positions == "learned":
            self.embed_pos: nn.Module = Embedding(spec.total_len, spec.hidden)
        elif spec.positions == "sinusoidal":
            self.embed_pos = _SinusoidalTable(spec.hidden)
        if spec.grid is not None:
            self._init_grid(cell_ids(spec.grid))
        for name, layers in spec.levels.items():
            self.add_module(name, _level(spec, layers))
        self.h_to_l: nn.Module = nn.Identity()
        self.l_to_h: nn.Module = nn.Identity()
        if spec.connections:
            self.h_to_l = Linear(spec.hidden, spec.hidden, bias=True)
            self.l_to_h = Linear(spec.hidden, spec.hidden, bias=True)
        shapes = parameter_shapes(spec)
        self.q_head = Linear(shapes["q_head.weight"][1], spec.q_outputs + spec.q_unused, bias=True)
        self.lm_head = Linear(shapes["lm_head.weight"][1], shapes["lm_head.weight"][0], spec.bias)
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(_Q_BIAS)
        if spec.puzzle_dim:
            self.puzzle_emb = _PuzzleTable(spec.puzzles, spec.puzzle_dim)
        self._init_states()
        if spec.positions == "rope":
            cos, sin = rope_tables(spec.total_len, spec.head_dim, spec.rope_theta)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)

    def _init_grid(self, cells: dict[str, list[int]]) -> None:
        if self.spec.grid_positions:
            for name, numbers in cells.items():
                tensor = torch.tensor(numbers)
                self.add_module(f"embed_{name}", Embedding(int(tensor.max()) + 1, self.spec.hidden))
                self.register_buffer(f"ids_{name}", tensor, persistent=False)
        if self.spec.grid_heads:
            self.register_buffer("head_mask", torch.from_numpy(head_mask(self.spec)), persistent=False)

    def _init_states(self) -> None:
        saved = self.spec.positions != "sinusoidal"  # the reduced variant's state dict has no initial states
        zero = not saved or self.spec.mixing == "groups"
        for name in ("H_init", "L_init"):
            state = torch.zeros(self.spec.hidden)
            self.register_buffer(name, state if zero else truncated_normal_(state, 1.0), persistent=saved)

    def levels(self) -> list[Level]:
        """Return the stacks of blocks: H and L, or the one that serves both."""
        return [level for name in self.spec.levels if isinstance(level := self.get_submodule(name), Level)]

    def rope(self) -> Rope | None:
        return (self.get_buffer("rope_cos"), self.get_buffer("rope_sin")) if self.spec.positions == "rope" else None

    def mask(self) -> Tensor | None:
        """Return the mask added to the attention scores [H, T, T], or None where every head sees all positions."""
        return self.get_buffer("head_mask") if self.spec.grid_heads else None

    def initial_state(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return (z_h, z_l), each [B, T, D]: the two fixed vectors at every position."""
        shape = (batch, self.spec.total_len, self.spec.hidden)
        return self.H_init.to(dtype).expand(shape), self.L_init.to(dtype).expand(shape)

    def puzzle_vectors(self, puzzle_ids: Tensor) -> Tensor | None:
        """Return rows of the puzzle table for ids [B], zero-padded to [B, P*D]; None where the model has no table."""
        if not self.spec.puzzle_dim:
            return None
        rows = self.puzzle_emb.weights[puzzle_ids]
        return nn.functional.pad(rows, (0, self.spec.puzzle_tokens * self.spec.hidden - self.spec.puzzle_dim))

    def embed(self, tokens: Tensor, puzzle: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Map tokens [B, S] and puzzle [B, P*D] to the input [B, T, D] of every L update, scaled by sqrt(D)."""
        spec = self.spec
        if spec.mixing == "groups":
            table = self.embed_kinds(self.get_buffer("kinds")).flatten(1) * math.sqrt(spec.symbol_width)  # [V, D]
            return nn.functional.embedding(tokens, table).to(dtype)
        x = self.embed_tokens(tokens)
        terms = 1
        if spec.grid_positions:
            for name in ("row", "column", "box"):
                x = x + self.get_submodule(f"embed_{name}")(self.get_buffer(f"ids_{name}"))
            terms += 3
        if puzzle is not None:
            x = torch.cat([puzzle.to(x.dtype).unflatten(1, (spec.puzzle_tokens, spec.hidden)), x], dim=1)
        if spec.positions == "learned":
            x = x + self.embed_pos.get_parameter("embedding_weight")
            terms += 1
        x = x * math.sqrt(spec.hidden / terms)  # every term has unit variance, and so has the sum
        if spec.positions == "sinusoidal":
            x = x + self.embed_pos.get_buffer("table")[: spec.total_len]
        return x.to(dtype)

    def update_l(self, z_h: Tensor, z_l: Tensor, x: Tensor, rope: Rope | None) -> Tensor:
        updated: Tensor = self.levels()[-1](z_l, z_h, self.h_to_l, x, rope, self.mask())
        return updated

    def update_h(self, z_h: Tensor, z_l: Tensor, rope: Rope | None) -> Tensor:
        updated: Tensor = self.levels()[0](z_h, z_l, self.l_to_h, None, rope, self.mask())
        return updated

    def heads(self, z_h: Tensor, z_l: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits [B, S, V], q [B, Q]), both float32."""
        if self.spec.mixing == "groups":
            return symbol_heads(self.spec, z_h, self.lm_head, self.q_head)
        logits = self.lm_head(z_h[:, self.spec.puzzle_tokens :]).float()
        if self.spec.halt_head == "pooled":
            # exported, the cast comes first: Torch-TensorRT's mean pays no heed to its dtype
            levels = [z.float() for z in (z_h, z_l)] if torch.compiler.is_exporting() else [z_h, z_l]
            pooled = torch.cat([z.mean(1, dtype=torch.float32) for z in levels], dim=-1)
        else:
            pooled = z_h[:, 0].float()
        return logits, self.q_head(pooled)[:, : self.spec.q_outputs]

    def _cycle(self, z_h: Tensor, z_l: Tensor, x: Tensor, rope: Rope | None, l_updates: int) -> tuple[Tensor, Tensor]:
        """Run ``l_updates`` L updates and the H update; without L updates the H update reads the input itself."""
        for _ in range(l_updates):
            z_l = self.update_l(z_h, z_l, x, rope)
        return self.update_h(z_h, z_l if self.spec.l_cycles else x, rope), z_l

    def forward(
        self, tokens: Tensor, puzzle: Tensor | None, z_h: Tensor, z_l: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one ACT step: return (z_h, z_l [B, T, D], logits [B, S, V], q [B, Q]).

        h_cycles times: l_cycles L updates, then one H update. A gradient flows only through the last ``grad_cycles``
        of these cycles, and of the first of them only through the last ``grad_l_updates`` L updates: 1 and 1 is HRM's
        one-step gradient (section 2 of the paper), 1 and l_cycles the whole last cycle (TRM, arXiv 2510.04871).
        With ``grad_cycles`` above 1 logits are [C, B, S, V], those after each of these cycles, for a loss on each.
        """
        spec, rope = self.spec, self.rope()
        x = self.embed(tokens, puzzle, z_h.dtype)
        with torch.no_grad():
            for _ in range(spec.h_cycles - self.grad_cycles):
                z_h, z_l = self._cycle(z_h, z_l, x, rope, spec.l_cycles)
            for _ in range(spec.l_cycles - self.grad_l_updates):
                z_l = self.update_l(z_h, z_l, x, rope)
        cycles: list[Tensor] = []
        for cycle in range(self.grad_cycles):
            z_h, z_l = self._cycle(z_h, z_l, x, rope, spec.l_cycles if cycle else self.grad_l_updates)
            logits, q = self.heads(z_h, z_l)
            cycles.append(logits)
        return z_h, z_l, torch.stack(cycles) if len(cycles) > 1 else logits, q
