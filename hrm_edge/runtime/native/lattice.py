"""The weights of a lattice in the structures of model.h.

Axes: N symbols, W symbol width, D = N * W, F inner, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.runtime.native.tensors import Tensors
from hrm_edge.spec import GROUPS, ModelSpec


class _GroupBlock(ctypes.Structure):
    """HrmGroupBlock."""

    _fields_ = [
        ("pool", ctypes.c_void_p), ("sent", ctypes.c_void_p * len(GROUPS)), ("gate_up", ctypes.c_void_p),
        ("gate_up_bias", ctypes.c_void_p), ("down", ctypes.c_void_p),
    ]  # fmt: skip


class Lattice(ctypes.Structure):
    """HrmLattice."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("N", "box_rows", "box_columns", "W", "F", "V", "layers", "cycles")),
        ("blocks", ctypes.POINTER(_GroupBlock)),
        *((name, ctypes.c_void_p) for name in ("embedding", "lm_head", "q_head", "q_bias")),
    ]


def lattice_of(spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], path: Path) -> tuple[Lattice, list[Any]]:
    """Return the C structure, and what must live as long as it is read; ``path``: of the tensors, for messages.

    Raises ``UserError`` where a tensor is missing or is not of the model's shape.
    """
    assert spec.grid is not None
    read, w, f = Tensors(tensors, path), spec.symbol_width, spec.inner

    def at(name: str, *shape: int) -> int:
        return int(read(name, np.float32, *shape).ctypes.data)

    def block(name: str) -> _GroupBlock:
        sent = [at(f"{name}.{group}_proj.weight", w, 2 * f) for group in GROUPS]
        gate_up = f"{name}.mlp.gate_up_proj"
        return _GroupBlock(
            at(f"{name}.pool_proj.weight", w, w),
            (ctypes.c_void_p * len(GROUPS))(*sent),
            at(f"{gate_up}.weight", w, 2 * f),
            at(f"{gate_up}.bias", 2 * f),
            at(f"{name}.mlp.down_proj.weight", f, w),
        )

    level, layers = spec.h_stack
    blocks = (_GroupBlock * layers)(*(block(f"{level}.layers.{index}") for index in range(layers)))
    heads = (at("lm_head.weight", w, 1), at("q_head.weight", w, 1), at("q_head.bias", 1))
    sizes = (spec.symbols, *spec.grid[2:], w, f, spec.vocab, layers, spec.h_cycles)
    return Lattice(*sizes, blocks, at("embedding", spec.vocab, spec.hidden), *heads), [read.kept, blocks]
