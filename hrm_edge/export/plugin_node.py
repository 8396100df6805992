"""``hrm_edge::FusedAttention`` in an ONNX file: the node for TensorRT's plugin, and its body in standard operators.

The body (a model-local function) is what ONNX Runtime runs. TensorRT's parser would take it too: give it the file
through ``hrm_edge.plugin.onnx_file.without_functions`` and it asks for the plugin.

Axes: B batch, T positions, H heads, Dh head size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hrm_edge.errors import UserError
from hrm_edge.graph.step import head_mask
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION, shape_problem
from hrm_edge.spec import ModelSpec


def check_spec(spec: ModelSpec) -> None:
    """Raise ``UserError`` where the plugin has no kernel for the model's attention."""
    hint = "export without --plugin"
    if spec.mixing != "attention":
        how = "an MLP" if spec.mixing == "mlp" else "sums over rows, columns and boxes"
        raise UserError(f"--plugin: the model mixes positions by {how}, it has no attention", hint)
    if problem := shape_problem(spec.heads, (-1, spec.total_len, 3 * spec.hidden)):
        raise UserError(f"--plugin: {problem}", hint)


def attributes(spec: ModelSpec) -> dict[str, Any]:
    """Return the node's attributes; TensorRT's parser reads the last two to find the plugin."""
    grid = {"grid": list(spec.grid)} if spec.grid_heads and spec.grid else {}
    return {"heads": spec.heads, **grid, "plugin_version": VERSION, "plugin_namespace": NAMESPACE}


def attention_function(spec: ModelSpec, opset: int, half: bool) -> onnx.FunctionProto:
    """softmax(Q K^T / sqrt(Dh)) V of packed qkv [B, T, 3*H*Dh], for this model's sizes and float type."""
    heads, dim = spec.heads, spec.head_dim
    rope = spec.positions == "rope"
    real = np.float16 if half else np.float32
    nodes = [
        _constant("packed_shape", np.array([0, 0, 3 * heads, dim], np.int64)),
        _constant("flat_shape", np.array([0, 0, heads * dim], np.int64)),
        _constant("scale", np.array(1.0 / math.sqrt(dim), real)),
        helper.make_node("Reshape", ["qkv", "packed_shape"], ["packed"]),
        helper.make_node("Split", ["packed"], ["q", "k", "v"], axis=2, num_outputs=3),
    ]
    if rope:
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        nodes.append(_constant("heads_axis", np.array([1], np.int64)))
        for table in ("cos", "sin"):
            nodes.append(helper.make_node("Cast", [table], [f"{table}_real"], to=to))
            nodes.append(helper.make_node("Unsqueeze", [f"{table}_real", "heads_axis"], [f"{table}_3d"]))
        nodes += [*_rotate("q"), *_rotate("k")]
    q, k = ("q_turned", "k_turned") if rope else ("q", "k")
    nodes += [
        helper.make_node("Mul", [q, "scale"], ["q_scaled"]),
        helper.make_node("Transpose", ["q_scaled"], ["q_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", [k], ["k_heads"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v"], ["v_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["q_heads", "k_heads"], ["scores"]),
    ]
    if spec.grid_heads:
        nodes.append(_constant("head_mask", head_mask(spec).astype(real)))
        nodes.append(helper.make_node("Add", ["scores", "head_mask"], ["seen_scores"]))
    nodes += [
        helper.make_node("Softmax", ["seen_scores" if spec.grid_heads else "scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v_heads"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["by_position"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["by_position", "flat_shape"], ["out"]),
    ]
    return helper.make_function(
        NAMESPACE,
        NAME,
        ["qkv", "cos", "sin"] if rope else ["qkv"],
        ["out"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes=list(attributes(spec)),
    )


def _constant(name: str, value: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _rotate(x: str) -> list[onnx.NodeProto]:
    """Add the rotation of [B, T, H, Dh]: the halves of Dh are turned against each other by the position's angles."""
    first, second = f"{x}_first", f"{x}_second"
    products = {"fc": (first, "cos_3d"), "ss": (second, "sin_3d"), "sc": (second, "cos_3d"), "fs": (first, "sin_3d")}
    return [
        helper.make_node("Split", [x], [first, second], axis=3, num_outputs=2),
        *(helper.make_node("Mul", list(pair), [f"{x}_{name}"]) for name, pair in products.items()),
        helper.make_node("Sub", [f"{x}_fc", f"{x}_ss"], [f"{x}_turned_first"]),
        helper.make_node("Add", [f"{x}_sc", f"{x}_fs"], [f"{x}_turned_second"]),
        helper.make_node("Concat", [f"{x}_turned_first", f"{x}_turned_second"], [f"{x}_turned"], axis=3),
    ]
