"""Size of an INT8 file by kind: weights of each kind, and the rest."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import numpy_helper

from hrm_edge.costs import parameter_table
from hrm_edge.spec import ModelSpec

_EMBEDDINGS = ("embedding", "positions")  # learned tables as the graph folds them; see hrm_edge.graph.step


def bytes_by_kind(graph: onnx.ModelProto, spec: ModelSpec) -> dict[str, Any]:
    """Count bytes of the INT8 weights, their scales, the weights in float (heads, embeddings, norms), and constants
    that nothing was trained for (masks, shapes, rotary tables); ``weights_of_fp32``: the first three as a share of
    four bytes for every parameter."""
    sizes = {"int8": 0, "scales": 0, "float": 0, "constants": 0}
    for initializer in graph.graph.initializer:
        name, size = initializer.name, numpy_helper.to_array(initializer).nbytes
        if name.endswith(".weight_int8"):
            sizes["int8"] += size
        elif name.endswith("_scale") or name.startswith("int8_zero"):
            sizes["scales"] += size
        elif name.endswith((".weight", ".bias")) or name in _EMBEDDINGS:
            sizes["float"] += size
        else:
            sizes["constants"] += size
    weights = sizes["int8"] + sizes["scales"] + sizes["float"]
    return {**sizes, "weights_of_fp32": weights / (4 * parameter_table(spec)["trainable"])}
