"""Write hrm_edge/runtime/probe.onnx: one product as an INT8 artifact has it, of extreme values.

python scripts/probe_graph.py    # tests/runtime/test_arithmetic.py compares the file with what this writes
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hrm_edge.export.graph import IR_VERSION, OPSET
from hrm_edge.runtime.arithmetic import INPUT_SCALE, INPUTS, OUTPUTS, PROBE, extreme_weights, weight_scales


def probe_graph() -> bytes:
    """Return the graph: rounding to INT8, per-channel INT8 weights, a product of [B, T, K] with [K, N]."""
    initializers = {
        "weight": extreme_weights(), "weight_scale": weight_scales(), "zeros": np.zeros(OUTPUTS, np.int8),
        "input_scale": INPUT_SCALE, "zero": np.int8(0),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "input_scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "input_scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "zeros"], ["matrix"], axis=1),
        helper.make_node("MatMul", ["rounded", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", OUTPUTS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    PROBE.write_bytes(probe_graph())
