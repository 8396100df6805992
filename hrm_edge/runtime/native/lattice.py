"""A lattice's graph for the C++ code: checked node by node, and its weights in the structures of model.h.

Axes: N symbols, W symbol width, D = N * W, F inner, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.runtime.native.structure import Reading
from hrm_edge.runtime.native.tensors import Tensors
from hrm_edge.spec import FIRST_SYMBOL, GROUPS, ModelSpec


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
    """The C structure, and what must live as long as it is read; ``path``: of the tensors, for messages.

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


class LatticeReading(Reading):
    """Follows the graph of ``hrm_edge.export.groups``."""

    def step(self) -> None:
        spec, z_h = self.spec, "z_h"
        x = self.op("Gather", "embedding", "tokens", axis=0)
        for _ in range(spec.h_cycles):
            z_h = self.op("Reshape", self.symbol_norm(self.op("Add", z_h, x)), self.state_shape())
            level, layers = spec.h_stack
            for index in range(layers):
                z_h = self.block(z_h, f"{level}.layers.{index}")
        self.outputs(*self.votes(z_h), z_h, "z_l")

    def state_shape(self) -> str:
        return self.shape(-1, self.spec.seq_len, self.spec.hidden)

    def axes(self, *axes: int) -> str:
        return self.ints("axes_" + "_".join(map(str, axes)), *axes)

    def symbol_norm(self, x: str) -> str:
        spec = self.spec
        symbols = self.op("Reshape", x, self.shape(-1, spec.seq_len, spec.symbols, spec.symbol_width))
        return self.rms_norm(symbols, f"ones_{spec.symbol_width}", spec.symbol_width)

    def block(self, x: str, name: str) -> str:
        spec = self.spec
        assert spec.grid is not None
        n, w, wide = spec.symbols, spec.symbol_width, 2 * spec.inner
        _, _, box_rows, box_columns = spec.grid
        board, boxes = (n, n), (n // box_rows, box_rows, n // box_columns, box_columns)
        normal = self.op("Reshape", self.symbol_norm(x), self.shape(-1, *board, n, w))
        pooled = self.linear(normal, f"{name}.pool_proj")
        pooled = self.op("Mul", pooled, self.op("Sigmoid", pooled))
        inner = self.linear(normal, f"{name}.mlp.gate_up_proj", bias=True)
        for group in GROUPS:
            if group == "box":
                by_box = self.op("Reshape", pooled, self.shape(-1, *boxes, n, w))
                inner = self.op("Reshape", inner, self.shape(-1, *boxes, n, wide))
                total = self.op("ReduceSum", by_box, self.axes(2, 4), keepdims=1)
            else:
                total = self.op("ReduceSum", pooled, self.axes({"row": 2, "column": 1, "cell": 3}[group]), keepdims=1)
            inner = self.op("Add", inner, self.linear(total, f"{name}.{group}_proj"))
            if group == "box":
                inner = self.op("Reshape", inner, self.shape(-1, *board, n, wide))
        sent = self.linear(self.gated(inner, axis=4), f"{name}.mlp.down_proj")
        return self.op("Add", x, self.op("Reshape", sent, self.state_shape()))

    def votes(self, z_h: str) -> tuple[str, str]:
        spec = self.spec
        normal = self.symbol_norm(z_h)
        symbols = self.linear(normal, "lm_head")
        symbols = self.op("Reshape", symbols, self.shape(-1, spec.seq_len, spec.symbols))
        mean = self.op("ReduceMean", normal, self.axes(1, 2), keepdims=0)
        q = self.linear(mean, "q_head", bias=True)
        return self.op("Pad", symbols, self.ints("before_symbols", 0, 0, FIRST_SYMBOL, 0, 0, 0)), q
