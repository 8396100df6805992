"""The weights of an INT8 graph with attention in the structures of model.h.

Axes: T positions, D hidden, H heads, Dh head size, F inner, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.runtime.native.tensors import Tensors
from hrm_edge.spec import HEAD_VIEWS, ModelSpec, cell_ids, rotary_rows


class _Linear(ctypes.Structure):
    """HrmLinear."""

    _fields_ = [
        ("inputs", ctypes.c_int32), ("outputs", ctypes.c_int32), ("weight", ctypes.c_void_p),
        ("weight_scale", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("input_scale", ctypes.c_float),
    ]  # fmt: skip


_SIZES = ("T", "S", "D", "H", "F", "V", "Q", "l_layers", "h_layers", "l_cycles", "h_cycles",
          "most_seen", "gelu", "pooled")  # fmt: skip
_ARRAYS = (
    "embedding", "positions", "seen", "seen_count", "cos", "sin", "lm_head", "lm_bias", "q_head", "q_bias", "norms",
    "h_to_l", "h_to_l_bias", "l_to_h", "l_to_h_bias",
)  # fmt: skip


class Model(ctypes.Structure):
    """HrmModel."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in _SIZES), ("puzzle_scale", ctypes.c_float),
        ("linears", ctypes.POINTER(_Linear)), *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]  # fmt: skip


def model_of(spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], path: Path) -> tuple[Model, list[Any]]:
    """Return the C structure, and what must live as long as it is read; ``path``: of the tensors, for messages.

    Raises ``UserError`` where a tensor is missing or is not of the model's shape.
    """
    read = Tensors(tensors, path)
    linears = _linears(spec, read)
    arrays = _arrays(spec, read)
    packed = (_Linear * len(linears))(*linears)
    sizes = (
        spec.total_len, spec.seq_len, spec.hidden, spec.heads, spec.inner, spec.vocab, spec.q_outputs,
        spec.l_layers, spec.h_layers, spec.l_cycles, spec.h_cycles, arrays["seen"].shape[2],
        spec.mlp == "gelu", spec.halt_head == "pooled",
    )  # fmt: skip
    puzzle_scale = float(read("puzzle_scale", np.float32)) if spec.puzzle_tokens else 1.0
    pointers = [arrays[name].ctypes.data if name in arrays else None for name in _ARRAYS]
    return Model(*sizes, puzzle_scale, packed, *pointers), [read.kept, packed]


def _seen_by_heads(spec: ModelSpec) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return positions that a head's query sees [H, T, most], and how many of them [H]; 0: all T."""
    t = spec.total_len
    groups: list[list[list[int]]] = []
    if spec.grid_heads:
        assert spec.grid is not None
        ids = cell_ids(spec.grid)
        for view in HEAD_VIEWS * (spec.heads // len(HEAD_VIEWS)):
            same = [] if view is None else [[u for u in range(t) if ids[view][u] == own] for own in ids[view]]
            groups.append(same)
    counts = np.array([len(same[0]) if same else 0 for same in groups] or [0] * spec.heads, np.int32)
    seen = np.zeros((spec.heads, t, int(counts.max())), np.int32)
    for head, same in enumerate(groups):
        if same:
            seen[head, :, : counts[head]] = same
    return seen, counts


def _levels(spec: ModelSpec) -> list[tuple[str, int]]:
    """Name and layers of the stacks, L first; H is left out where L's layers serve both levels."""
    return sorted(spec.levels.items(), reverse=True)


def _linears(spec: ModelSpec, read: Tensors) -> list[_Linear]:
    """Read the four of every layer of L, then of H."""
    d, f = spec.hidden, spec.inner
    up = ("mlp.gate_up_proj", (d, 2 * f)) if spec.mlp == "swiglu" else ("mlp.up_proj", (d, f))
    shapes = dict([("self_attn.qkv_proj", (d, 3 * d)), ("self_attn.o_proj", (d, d)), up, ("mlp.down_proj", (f, d))])
    products = []
    for level, layers in _levels(spec):
        for name, shape in ((f"{level}.layers.{i}.{n}", s) for i in range(layers) for n, s in shapes.items()):
            columns = {
                "weight": read(f"{name}.weight_int8", np.int8, *shape),
                "scale": read(f"{name}.weight_scale", np.float32, shape[1]),
            }
            if spec.bias:
                columns["bias"] = read(f"{name}.bias", np.float32, shape[1])
            if spec.positions == "rope" and name.endswith("qkv_proj"):  # back to head after head
                order = np.argsort(rotary_rows(spec))
                columns = {what: read.keep(array[..., order]) for what, array in columns.items()}
            weight, scale, bias = (
                columns[what].ctypes.data if what in columns else None for what in ("weight", "scale", "bias")
            )
            products.append(_Linear(*shape, weight, scale, bias, float(read(f"{name}.input_scale", np.float32))))
    return products


def _arrays(spec: ModelSpec, read: Tensors) -> dict[str, NDArray[Any]]:
    """Read what stays in float32, by its name in the structure."""
    d, t, q_columns = spec.hidden, spec.total_len, spec.q_outputs + spec.q_unused
    pooled = 2 * d if spec.halt_head == "pooled" else d
    arrays = {
        "embedding": read("embedding", np.float32, spec.vocab, d),
        "lm_head": read("lm_head.weight", np.float32, d, spec.vocab),
        "q_head": read.keep(read("q_head.weight", np.float32, pooled, q_columns)[:, : spec.q_outputs]),
        "q_bias": read("q_head.bias", np.float32, q_columns),
    }
    if "positions" in read.tensors:
        arrays["positions"] = read("positions", np.float32, t, d)
    if spec.bias:
        arrays["lm_bias"] = read("lm_head.bias", np.float32, spec.vocab)
    if spec.norm == "layer":
        arrays["norms"] = read.keep(np.stack([read(name, np.float32, d) for name in _norms(spec)]))
    if spec.connections:
        for name in ("h_to_l", "l_to_h"):
            arrays[name] = read(f"{name}.weight", np.float32, d, d)
            arrays[f"{name}_bias"] = read(f"{name}.bias", np.float32, d)
    arrays["seen"], arrays["seen_count"] = map(read.keep, _seen_by_heads(spec))
    if spec.positions == "rope":
        for name in ("cos", "sin"):  # the file has them side by side for all heads
            arrays[name] = read.keep(read(f"rope_{name}", np.float32, t, d)[:, : spec.head_dim // 2])
    return arrays


def _norms(spec: ModelSpec) -> list[str]:
    """Return names of LayerNorm's tensors in the order of ``HrmModel.norms``."""
    levels = (("L_level", spec.l_layers), ("H_level", spec.h_layers))
    layers = [
        f"{level}.layers.{i}.{norm}" for level, n in levels for i in range(n) for norm in ("attn_norm", "mlp_norm")
    ]
    return [
        f"{norm}.{part}" for norm in (*layers, "L_level.norm", f"{spec.h_stack[0]}.norm") for part in ("weight", "bias")
    ]
