"""The parts of a step's graph that a model with mixing=groups has of its own (``hrm_edge.model.groups``).

Axes: B batch, S cells, R rows, C columns, N symbols, W symbol width, D = N * W, F inner, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hrm_edge.graph.nodes import Nodes
from hrm_edge.spec import FIRST_SYMBOL, GROUPS, ModelSpec, token_kinds

GROUP_LAYERS = tuple(f"{group}_proj" for group in GROUPS)


def group_scale(spec: ModelSpec) -> np.float32:
    """Return the factor of the sums over groups; it is folded into the weights that read them."""
    return np.float32(1 / math.sqrt(spec.symbols))


def embedding_table(spec: ModelSpec, weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return [V, D], what each token adds to every symbol, from the three rows of ``embed_kinds``."""
    return weights["embed_kinds.embedding_weight"][token_kinds(spec)].reshape(spec.vocab, spec.hidden)


def kind_rows(spec: ModelSpec, table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [3, W], the inverse of :func:`embedding_table`."""
    w = spec.symbol_width
    return np.stack([table[0, :w], table[FIRST_SYMBOL, :w], table[FIRST_SYMBOL, w : 2 * w]])


def symbol_norm(graph: Nodes, x: str) -> str:
    """Add the norm of every symbol: x [B, S, D] to [B, S, N, W]."""
    spec = graph.spec
    symbols = graph.op("Reshape", x, graph.shape(-1, spec.seq_len, spec.symbols, spec.symbol_width))
    return graph.norm(symbols, "symbol_norm", spec.symbol_width)


def block(graph: Nodes, x: str, name: str) -> str:
    """Add a block: x [B, S, D] to [B, S, D]."""
    spec = graph.spec
    assert spec.grid is not None
    n, w, inner_width = spec.symbols, spec.symbol_width, 2 * spec.inner
    _, _, box_rows, box_columns = spec.grid
    board, boxes = (n, n), (n // box_rows, box_rows, n // box_columns, box_columns)
    normal = graph.op("Reshape", symbol_norm(graph, x), graph.shape(-1, *board, n, w))
    pooled = graph.linear(normal, f"{name}.pool_proj")
    pooled = graph.op("Mul", pooled, graph.op("Sigmoid", pooled))
    summed = {"row": (2,), "column": (1,), "cell": (3,)}
    inner = graph.linear(normal, f"{name}.mlp.gate_up_proj")
    scale = np.full(inner_width, group_scale(spec))
    for group in GROUPS:
        axes, source = summed.get(group, (2, 4)), pooled
        if group == "box":
            source = graph.op("Reshape", pooled, graph.shape(-1, *boxes, n, w))
            inner = graph.op("Reshape", inner, graph.shape(-1, *boxes, n, inner_width))
        total = graph.op("ReduceSum", source, _axes(graph, *axes), keepdims=1)
        inner = graph.op("Add", inner, graph.linear(total, f"{name}.{group}_proj", row_scale=scale))
        if group == "box":
            inner = graph.op("Reshape", inner, graph.shape(-1, *board, n, inner_width))
    sent = graph.linear(graph.gated(inner, axis=4), f"{name}.mlp.down_proj")
    return graph.op("Add", x, graph.op("Reshape", sent, graph.shape(-1, spec.seq_len, spec.hidden)))


def heads(graph: Nodes, z_h: str) -> tuple[str, str]:
    """Add the heads of z_h [B, S, D]: (logits [B, S, V], q [B, 1]); padding and blank have logit 0."""
    spec = graph.spec
    normal = symbol_norm(graph, z_h)
    symbols = graph.op("Reshape", graph.linear(normal, "lm_head"), graph.shape(-1, spec.seq_len, spec.symbols))
    pads = graph.ints("before_symbols", 0, 0, FIRST_SYMBOL, 0, 0, 0)
    mean = graph.op("ReduceMean", normal, _axes(graph, 1, 2), keepdims=0)
    q = graph.linear(mean, "q_head")
    return graph.op("Pad", symbols, pads), q


def _axes(graph: Nodes, *axes: int) -> str:
    return graph.ints("axes_" + "_".join(map(str, axes)), *axes)
