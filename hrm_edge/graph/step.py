"""One ACT step as an ONNX graph, node by node from the weights.

The graph is not traced: every shape is a constant (only the batch is -1), scales of embeddings and of attention are
folded into weights, and Q/DQ pairs stand exactly where the quantization policy wants them. That it is the same function
as ``hrm_edge.model.hrm`` is measured at every export.

Axes: B batch, S cells, P puzzle tokens, T = P + S, D hidden, H heads, Dh head size, F inner, V vocabulary.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from hrm_edge.graph import groups
from hrm_edge.graph.nodes import Nodes
from hrm_edge.spec import (
    HEAD_VIEWS,
    HIDDEN_SCORE,
    SINUSOIDAL_ROWS,
    ModelSpec,
    cell_ids,
    rotary_rows,
)


def query_scale(spec: ModelSpec) -> NDArray[np.float32]:
    """Return factors [3 D] for the rows of qkv: the scale of QK^T moves into Q's rows, since rotation is linear."""
    scale = np.ones(3 * spec.hidden, np.float32)
    scale[: spec.hidden] = 1.0 / math.sqrt(spec.head_dim)
    return scale


def embedding_scale(spec: ModelSpec) -> np.float32:
    """Return the factor of every learned embedding, so that their sum has unit variance times D."""
    if spec.mixing == "groups":
        return np.float32(math.sqrt(spec.symbol_width))
    terms = 1 + 3 * spec.grid_positions + (spec.positions == "learned")
    return np.float32(math.sqrt(spec.hidden / terms))


def head_mask(spec: ModelSpec) -> NDArray[np.float32]:
    """Return what is added to the attention scores [H, T, T] of a model whose heads see parts of the board."""
    assert spec.grid is not None
    ids = {name: np.array(numbers) for name, numbers in cell_ids(spec.grid).items()}
    everything = np.ones((spec.seq_len, spec.seq_len), bool)
    seen = [everything if name is None else ids[name][:, None] == ids[name] for name in HEAD_VIEWS]
    mask = np.where(np.stack(seen), 0, HIDDEN_SCORE).astype(np.float32)
    return np.tile(mask, (spec.heads // len(HEAD_VIEWS), 1, 1))


def rope_halves(spec: ModelSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin, float32 [T, Dh/2], one column per pair of dimensions (RoFormer, arXiv 2104.09864)."""
    frequency = 1.0 / spec.rope_theta ** (np.arange(0, spec.head_dim, 2, dtype=np.float32) / spec.head_dim)
    angle = np.outer(np.arange(spec.total_len, dtype=np.float32), frequency).astype(np.float32)
    return np.cos(angle), np.sin(angle)


class StepNodes(Nodes):
    """The nodes of one step: :meth:`step` takes them one after the other.

    ``hrm_edge.export.graph`` writes them, ``hrm_edge.runtime.native.structure`` compares a graph with them.
    """

    def attention(self, x: str, name: str) -> str:
        spec = self.spec
        q, k, v = self._rotated_heads(x, name) if spec.positions == "rope" else self._plain_heads(x, name)
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        if spec.grid_heads:
            scores = self.op("Add", scores, self.float_constant("head_mask", head_mask(spec)))
        out = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        out = self.op("Transpose", out, perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", out, self.shape(-1, spec.total_len, spec.hidden)), f"{name}.o_proj")

    def _plain_heads(self, x: str, name: str) -> list[str]:
        """Add Q, K, V [B, H, T, Dh], by one transpose for all three."""
        spec = self.spec
        qkv = self.linear(x, f"{name}.qkv_proj", row_scale=query_scale(spec))
        heads = self.op("Reshape", qkv, self.shape(-1, spec.total_len, 3 * spec.heads, spec.head_dim))
        return self.ops("Split", (self.op("Transpose", heads, perm=[0, 2, 1, 3]),), 3, axis=1, num_outputs=3)

    def _rotated_heads(self, x: str, name: str) -> list[str]:
        """Add Q, K, V [B, H, T, Dh] with rotary positions in the "rotate half" layout on Q and K.

        The projection's rows are reordered (``rotary_rows``), so that the rotation is products of whole blocks:
        splitting and negating every head by itself cost ONNX Runtime 6 % and OpenVINO 10 % more of a step.
        """
        spec = self.spec
        t, h, half = spec.total_len, spec.heads, spec.head_dim // 2
        rows = np.array(rotary_rows(spec))
        qkv = self.linear(x, f"{name}.qkv_proj", rows=rows, row_scale=query_scale(spec)[rows])
        first, second, v = self.ops("Split", (qkv,), 3, axis=2, num_outputs=3)
        tables = functools.cache(lambda: rope_halves(spec))
        cos = self.trained_float("rope_cos", lambda: np.tile(tables()[0], (1, 2 * h)))  # [T, D]
        sin = self.trained_float("rope_sin", lambda: np.tile(tables()[1], (1, 2 * h)))
        turned_first = self.op("Sub", self.op("Mul", first, cos), self.op("Mul", second, sin))
        turned_second = self.op("Add", self.op("Mul", second, cos), self.op("Mul", first, sin))
        halves = self.op("Concat", turned_first, turned_second, axis=2)
        heads = self.op(
            "Transpose", self.op("Reshape", halves, self.shape(-1, t, 2, 2 * h, half)), perm=[0, 3, 1, 2, 4]
        )
        q, k = self.ops(
            "Split", (self.op("Reshape", heads, self.shape(-1, 2 * h, t, 2 * half)),), 2, axis=1, num_outputs=2
        )
        v = self.op("Transpose", self.op("Reshape", v, self.shape(-1, t, h, 2 * half)), perm=[0, 2, 1, 3])
        return [q, k, v]

    def mixed(self, x: str, block: str) -> str:
        """Add the exchange between the positions of x [B, T, D], its sum with x, and the norm."""
        if self.spec.mixing == "attention":
            return self.norm(self.op("Add", x, self.attention(x, f"{block}.self_attn")), f"{block}.attn_norm")
        # transposed, the MLP's products have positions as their channels, and INT8 a scale for each of them
        by_channel = self.op("Transpose", x, perm=[0, 2, 1])
        added = self.op("Add", by_channel, self.mlp(by_channel, f"{block}.mlp_t"))
        normal = self.norm(added, f"{block}.attn_norm", self.spec.total_len)
        return self.op("Transpose", normal, perm=[0, 2, 1])

    def mlp(self, x: str, name: str) -> str:
        if self.spec.mlp == "swiglu":
            inner = self.gated(self.linear(x, f"{name}.gate_up_proj"))
        else:
            y = self.linear(x, f"{name}.up_proj")
            erf = self.op("Erf", self.op("Div", y, self.float_constant("sqrt_2", np.float32(math.sqrt(2.0)))))
            shifted = self.op("Add", erf, self.float_constant("one", np.float32(1)))
            inner = self.op("Mul", self.op("Mul", y, shifted), self.float_constant("half", np.float32(0.5)))
        return self.linear(inner, f"{name}.down_proj")

    def level(self, name: str, layers: int, state: str, injection: str) -> str:
        self.scope = name
        x = self.op("Add", state, injection)
        if self.spec.norm == "layer":
            x = self.norm(x, f"{name}.norm")
        if self.spec.mixing == "groups":
            normal = groups.symbol_norm(self, x)
            x = self.op("Reshape", normal, self.shape(-1, self.spec.seq_len, self.spec.hidden))
        for index in range(layers):
            block = self.scope = f"{name}.layers.{index}"
            if self.spec.mixing == "groups":
                x = groups.block(self, x, block)
                continue
            x = self.mixed(x, block)
            x = self.norm(self.op("Add", x, self.mlp(x, f"{block}.mlp")), f"{block}.mlp_norm")
        return x

    def embedding(self) -> str:
        """Add the input [B, T, D] made of tokens and puzzle; scales are folded into the tables."""
        spec, weights = self.spec, self.weights
        self.scope = "embedding"
        scale = embedding_scale(spec)

        def tokens() -> NDArray[np.float32]:
            if spec.mixing == "groups":
                return groups.embedding_table(spec, weights) * scale
            return weights["embed_tokens.embedding_weight"] * scale

        x = self.op("Gather", self.trained_float("embedding", tokens), "tokens", axis=0)
        if spec.puzzle_tokens:
            puzzle = self.op("Reshape", "puzzle", self.shape(-1, spec.puzzle_tokens, spec.hidden))
            scaled = self.op("Mul", puzzle, self.trained_float("puzzle_scale", lambda: np.asarray(scale)))
            x = self.op("Concat", scaled, x, axis=1)
        positions = self.positions()
        return x if positions is None else self.op("Add", x, self.trained_float("positions", lambda: positions))

    def positions(self) -> NDArray[np.float32] | None:
        """Return what is added to the input [T, D] for its place; None where that is nothing."""
        spec, weights, scale = self.spec, self.weights, embedding_scale(self.spec)
        total = np.zeros((spec.total_len, spec.hidden), np.float32)
        if spec.grid_positions:
            total[spec.puzzle_tokens :] += scale * self._grid_positions()
        if spec.positions == "learned":
            total += scale * weights["embed_pos.embedding_weight"]
        if spec.positions == "sinusoidal":
            assert len(weights["embed_pos.table"]) == SINUSOIDAL_ROWS
            total += weights["embed_pos.table"][: spec.total_len]
        return total if total.any() else None

    def _grid_positions(self) -> NDArray[np.float32]:
        assert self.spec.grid is not None
        total = np.zeros((self.spec.seq_len, self.spec.hidden), np.float32)
        for name, ids in cell_ids(self.spec.grid).items():
            total += self.weights[f"embed_{name}.embedding_weight"][ids]
        return total

    def heads(self, z_h: str, z_l: str) -> None:
        spec = self.spec
        self.scope = "heads"
        if spec.mixing == "groups":
            logits, q = groups.heads(self, z_h)
            self.as_float32(logits, "logits")
            self.as_float32(q, "q")
            return
        cells = z_h
        if spec.puzzle_tokens:
            begin, end = self.ints("cells_begin", spec.puzzle_tokens), self.ints("cells_end", spec.total_len)
            cells = self.op("Slice", z_h, begin, end, self.ints("axis_1", 1))
        self.as_float32(self.linear(cells, "lm_head"), "logits")
        if spec.halt_head == "pooled":
            both = self.op("Concat", z_h, z_l, axis=2)
            pooled = self.op("ReduceMean", both, self.ints("axis_1", 1), keepdims=0)
        else:
            pooled = self.op("Gather", z_h, self.constant("first", np.int64(0)), axis=1)
        q = self.linear(pooled, "q_head")
        if spec.q_unused:
            begin, end = self.ints("q_begin", 0), self.ints("q_end", spec.q_outputs)
            q = self.op("Slice", q, begin, end, self.ints("axis_1", 1))
        self.as_float32(q, "q")

    def step(self) -> None:
        """Add the whole step, its outputs last."""
        spec = self.spec
        x = self.embedding()
        z_h, z_l = "z_h", "z_l"
        for _ in range(spec.h_cycles):
            for _ in range(spec.l_cycles):
                self.scope = "h_to_l"
                from_h = self.linear(z_h, "h_to_l") if spec.connections else z_h
                z_l = self.level("L_level", spec.l_layers, z_l, self.op("Add", from_h, x))
            self.scope = "l_to_h"
            from_l = self.linear(z_l, "l_to_h") if spec.connections else z_l
            if not spec.l_cycles:
                from_l = x
            z_h = self.level(*spec.h_stack, z_h, from_l)
        self.heads(z_h, z_l)
        self.op("Identity", z_h, out="z_h_next")
        self.op("Identity", z_l, out="z_l_next")
