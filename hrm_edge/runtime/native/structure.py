"""Check that an artifact's graph is, node by node, the step that the C++ code computes.

The nodes are read in the order in which ``hrm_edge.export.graph`` writes them. A graph that was changed since (another
operator, another wire, another constant) is refused: the C++ code would compute the step as it was before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.spec import HEAD_VIEWS, HIDDEN_SCORE, ModelSpec, cell_ids

OTHERWISE = "run it with --backend onnxruntime"
EPSILON = np.float32(1e-5)


class Reading:
    """Follows a graph from its inputs; each method takes the nodes of a part and returns its output's name."""

    def __init__(self, nodes: Any, tensors: Mapping[str, NDArray[Any]], spec: ModelSpec, path: Path) -> None:
        self.nodes = iter(nodes)
        self.tensors, self.spec, self.path = tensors, spec, path
        self.weights: dict[str, str] = {}  # name of a layer → its matrix, which is dequantized once

    def step(self) -> None:
        """Take the whole step's nodes, its outputs last."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ``UserError`` that names the first node or constant that is not as expected."""
        self.step()
        if (rest := next(self.nodes, None)) is not None:
            self.refuse(f"it has a {rest.op_type} more ('{rest.name}')")

    def refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is not the graph that --backend native computes: {why}", OTHERWISE)

    def ops(self, kind: str, inputs: tuple[str, ...], **attributes: Any) -> list[str]:
        node = next(self.nodes, None)
        if node is None:
            self.refuse(f"it ends where a {kind} is expected")
        import onnx

        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if (node.op_type, node.domain, tuple(node.input)) != (kind, "", inputs) or found != attributes:
            self.refuse(f"'{node.name}' is not the {kind} of {', '.join(inputs)} that is expected")
        return list(node.output)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, inputs, **attributes)[0]

    def constant(self, name: str, value: Any) -> str:
        value = np.asarray(value)
        if name not in self.tensors:
            self.refuse(f"it has no '{name}'")
        found = self.tensors[name]
        if found.dtype != value.dtype or found.shape != value.shape or (found != value).any():
            self.refuse(f"its constant '{name}' has another value")
        return name

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def shape(self, *dims: int) -> str:
        return self.ints("shape_" + "_".join(map(str, dims)).replace("-1", "B"), *dims)

    def linear(self, x: str, name: str, *, bias: bool = False) -> str:
        y = self.op("MatMul", x, self.weights.get(name, f"{name}.weight"))
        return self.op("Add", y, f"{name}.bias") if bias else y

    def rms_norm(self, x: str, ones: str, width: int) -> str:
        square = self.op("Pow", x, self.constant("two", np.float32(2)))
        mean = self.op("ReduceMean", square, self.ints("last_axis", -1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant("rms_eps", EPSILON)))
        return self.op("Mul", self.op("Div", x, root), self.constant(ones, np.ones(width, np.float32)))

    def gated(self, inner: str, axis: int = 2) -> str:
        gate, up = self.ops("Split", (inner,), axis=axis, num_outputs=2)
        return self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)

    def outputs(self, logits: str, q: str, z_h: str, z_l: str) -> None:
        outputs = [logits, q, self.op("Identity", z_h), self.op("Identity", z_l)]
        if outputs != ["logits", "q", "z_h_next", "z_l_next"]:
            self.refuse(f"its outputs are computed as {', '.join(outputs)}")


class AttentionReading(Reading):
    """Follows the INT8 graph of a model whose positions meet in attention."""

    def layer(self, x: str, name: str) -> str:
        """An INT8 product."""
        scale, zero = f"{name}.input_scale", self.constant("int8_zero", np.int8(0))
        x = self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)
        if name not in self.weights:
            weight, scales = f"{name}.weight_int8", f"{name}.weight_scale"
            if weight not in self.tensors:
                self.refuse(f"it has no '{weight}'")
            columns = self.tensors[weight].shape[-1]
            zeros = self.constant(f"int8_zeros_{columns}", np.zeros(columns, np.int8))
            self.weights[name] = self.op("DequantizeLinear", weight, scales, zeros, axis=1)
        return self.linear(x, name, bias=self.spec.bias)

    def norm(self, x: str, name: str) -> str:
        if self.spec.norm == "layer":
            return self.op("LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=float(EPSILON))
        return self.rms_norm(x, "ones", self.spec.hidden)

    def attention(self, x: str, name: str) -> str:
        spec = self.spec
        qkv = self.layer(x, f"{name}.qkv_proj")
        q, k, v = self.rotated(qkv) if spec.positions == "rope" else self.plain(qkv)
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        if spec.grid_heads:
            scores = self.op("Add", scores, self.constant("head_mask", self.head_mask()))
        out = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        rows = self.op("Reshape", out, self.shape(-1, spec.total_len, spec.hidden))
        return self.layer(rows, f"{name}.o_proj")

    def plain(self, qkv: str) -> list[str]:
        spec = self.spec
        heads = self.op("Reshape", qkv, self.shape(-1, spec.total_len, 3 * spec.heads, spec.head_dim))
        heads = self.op("Transpose", heads, perm=[0, 2, 1, 3])
        return self.ops("Split", (heads,), axis=1, num_outputs=3)

    def rotated(self, qkv: str) -> list[str]:
        t, h, half = self.spec.total_len, self.spec.heads, self.spec.head_dim // 2
        first, second, v = self.ops("Split", (qkv,), axis=2, num_outputs=3)
        a = self.op("Sub", *(self.op("Mul", x, f"rope_{n}") for x, n in ((first, "cos"), (second, "sin"))))
        b = self.op("Add", *(self.op("Mul", x, f"rope_{n}") for x, n in ((second, "cos"), (first, "sin"))))
        halves = self.op("Reshape", self.op("Concat", a, b, axis=2), self.shape(-1, t, 2, 2 * h, half))
        heads = self.op("Transpose", halves, perm=[0, 3, 1, 2, 4])
        heads = self.op("Reshape", heads, self.shape(-1, 2 * h, t, 2 * half))
        q, k = self.ops("Split", (heads,), axis=1, num_outputs=2)
        return [q, k, self.op("Transpose", self.op("Reshape", v, self.shape(-1, t, h, 2 * half)), perm=[0, 2, 1, 3])]

    def head_mask(self) -> NDArray[np.float32]:
        assert self.spec.grid is not None
        ids = {name: np.array(numbers) for name, numbers in cell_ids(self.spec.grid).items()}
        s = self.spec.seq_len
        seen = [np.ones((s, s), bool) if view is None else ids[view][:, None] == ids[view] for view in HEAD_VIEWS]
        return np.tile(np.where(np.stack(seen), 0, HIDDEN_SCORE), (self.spec.heads // len(HEAD_VIEWS), 1, 1)).astype(
            np.float32
        )

    def mlp(self, x: str, name: str) -> str:
        if self.spec.mlp == "swiglu":
            inner = self.gated(self.layer(x, f"{name}.gate_up_proj"))
        else:
            y = self.layer(x, f"{name}.up_proj")
            erf = self.op("Erf", self.op("Div", y, self.constant("sqrt_2", np.float32(math.sqrt(2.0)))))
            shifted = self.op("Add", erf, self.constant("one", np.float32(1)))
            inner = self.op("Mul", self.op("Mul", y, shifted), self.constant("half", np.float32(0.5)))
        return self.layer(inner, f"{name}.down_proj")

    def level(self, name: str, layers: int, state: str, injection: str) -> str:
        x = self.op("Add", state, injection)
        if self.spec.norm == "layer":
            x = self.norm(x, f"{name}.norm")
        for block in (f"{name}.layers.{index}" for index in range(layers)):
            x = self.norm(self.op("Add", x, self.attention(x, f"{block}.self_attn")), f"{block}.attn_norm")
            x = self.norm(self.op("Add", x, self.mlp(x, f"{block}.mlp")), f"{block}.mlp_norm")
        return x

    def embedding(self) -> str:
        spec = self.spec
        x = self.op("Gather", "embedding", "tokens", axis=0)
        if spec.puzzle_tokens:
            puzzle = self.op("Reshape", "puzzle", self.shape(-1, spec.puzzle_tokens, spec.hidden))
            x = self.op("Concat", self.op("Mul", puzzle, "puzzle_scale"), x, axis=1)
        return self.op("Add", x, "positions") if "positions" in self.tensors else x

    def heads(self, z_h: str, z_l: str) -> tuple[str, str]:
        spec, cells = self.spec, z_h
        if spec.puzzle_tokens:
            begin, end = self.ints("cells_begin", spec.puzzle_tokens), self.ints("cells_end", spec.total_len)
            cells = self.op("Slice", z_h, begin, end, self.ints("axis_1", 1))
        logits = self.linear(cells, "lm_head", bias=spec.bias)
        if spec.halt_head == "pooled":
            both = self.op("Concat", z_h, z_l, axis=2)
            pooled = self.op("ReduceMean", both, self.ints("axis_1", 1), keepdims=0)
        else:
            pooled = self.op("Gather", z_h, self.constant("first", np.int64(0)), axis=1)
        q = self.linear(pooled, "q_head", bias=True)
        if spec.q_unused:
            begin, end = self.ints("q_begin", 0), self.ints("q_end", spec.q_outputs)
            q = self.op("Slice", q, begin, end, self.ints("axis_1", 1))
        return logits, q

    def step(self) -> None:
        spec = self.spec
        x, z_h, z_l = self.embedding(), "z_h", "z_l"
        for _ in range(spec.h_cycles):
            for _ in range(spec.l_cycles):
                from_h = self.linear(z_h, "h_to_l", bias=True) if spec.connections else z_h
                z_l = self.level("L_level", spec.l_layers, z_l, self.op("Add", from_h, x))
            from_l = self.linear(z_l, "l_to_h", bias=True) if spec.connections else z_l
            z_h = self.level(*spec.h_stack, z_h, from_l)
        self.outputs(*self.heads(z_h, z_l), z_h, z_l)
