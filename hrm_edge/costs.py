"""Costs of a model: its parameters by part, the operations of a step, and the bytes of its weights.

Axes: T positions, D hidden, N symbols, W symbol width, V vocabulary, S cells.
"""

from __future__ import annotations

import math
from typing import Any

from hrm_edge.spec import GROUPS, ModelSpec, block_shapes, buffer_shapes, parameter_shapes

_PARTS = (  # the first matching prefix counts
    ("token embedding", ("embed_tokens.", "embed_kinds.")),
    ("position embeddings", ("embed_pos.embedding", "embed_row.", "embed_column.", "embed_box.")),
    ("H-layers ({h_layers})", ("H_level.layers.",)),
    ("L-layers ({l_layers})", ("L_level.layers.",)),
    ("H<->L connections", ("h_to_l.", "l_to_h.")),
    ("halt predictor", ("q_head.",)),
    ("output layer", ("lm_head.",)),
    ("layer norms", ("H_level.norm.", "L_level.norm.")),
    ("position encoding", ("embed_pos.table",)),
    ("initial states", ("H_init", "L_init")),
    ("puzzle table", ("puzzle_emb.",)),
)


def parameter_table(spec: ModelSpec) -> dict[str, Any]:
    """Return the numbers of trainable parameters, of tensors and of the whole state dict, and a row per part."""
    trainable, buffers = parameter_shapes(spec), buffer_shapes(spec)
    everything = {**trainable, **buffers}
    rows: dict[str, int] = {}
    for label, prefixes in _PARTS:
        count = sum(math.prod(shape) for name, shape in everything.items() if name.startswith(prefixes))
        if count:
            rows[label.format(h_layers=spec.h_layers, l_layers=spec.l_layers)] = count
    return {
        "trainable": sum(map(math.prod, trainable.values())),
        "tensors": len(trainable),
        "state_dict": sum(map(math.prod, everything.values())),
        "table": [{"name": name, "count": count} for name, count in rows.items()],
    }


def flops_per_step(spec: ModelSpec) -> int:
    """Return the operations of the matrix products in one ACT step of one puzzle; a multiply-add counts as two.

    A block costs 2 * weights * T for its matrices and 4 * T^2 * D for QK^T and PV; an MLP over positions costs 2 *
    weights * D instead of the latter. Norms and activations are not counted. The full variant at T = 82 has 13.7 GFLOP.
    """
    t, d = spec.total_len, spec.hidden
    if spec.mixing == "groups":
        return _groups_flops(spec)
    matrices = {n: math.prod(s) for n, s in block_shapes(spec).items() if len(s) == 2 and n.endswith("weight")}
    block = sum(2 * size * (d if name.startswith("mlp_t.") else t) for name, size in matrices.items())
    if spec.mixing == "attention":
        block += 4 * t * t * d
    heads = 2 * d * spec.vocab * spec.seq_len + 2 * math.prod(parameter_shapes(spec)["q_head.weight"])
    h_updates, l_updates = spec.h_cycles, spec.h_cycles * spec.l_cycles
    connections = 2 * d * d * t * (h_updates + l_updates) if spec.connections else 0
    return sum(spec.block_passes) * block + connections + heads


def _groups_flops(spec: ModelSpec) -> int:
    """Return the operations for mixing=groups: n³ symbols of cells and, for each kind of group, n² sums."""
    n, w = spec.symbols, spec.symbol_width
    shapes = {name: math.prod(shape) for name, shape in block_shapes(spec).items() if len(shape) == 2}
    cells = sum(size for name, size in shapes.items() if not name.startswith(GROUPS))
    groups = sum(size for name, size in shapes.items() if name.startswith(GROUPS))
    return sum(spec.block_passes) * 2 * (cells * n**3 + groups * n**2) + 2 * w * (n**3 + 1)


def reference_batch(spec: ModelSpec) -> int:
    """Return how many puzzles at a time torch compares and calibrates on the CPU.

    A lattice's activations leave the cache with more than 8 puzzles, which take 1.4 times as long each.
    """
    return 4 if spec.mixing == "groups" else 64


def weight_bytes(spec: ModelSpec) -> dict[str, int]:
    """Return the bytes of the trainable tensors per precision, without a graph's overhead and state tables.

    INT8 holds the blocks' matrices as int8 with a float32 scale per output channel, all else as float32.
    """
    shapes = parameter_shapes(spec)
    blocks = {name: shape for name, shape in shapes.items() if ".layers." in name and len(shape) == 2}
    total = sum(map(math.prod, shapes.values()))
    matrices = sum(map(math.prod, blocks.values()))
    channels = sum(shape[0] for shape in blocks.values())
    return {"fp32": 4 * total, "fp16": 2 * total, "int8": matrices + 4 * channels + 4 * (total - matrices)}
