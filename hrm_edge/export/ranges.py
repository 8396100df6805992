"""Does every float16 tensor of a graph hold its values? Found by running all steps with every tensor looked at.

ONNX Runtime rounds each tensor to float16 where the graph says so when its optimizations are off, as a GPU would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from hrm_edge.model.hrm import HRM
from hrm_edge.quiet import import_onnxruntime
from hrm_edge.spec import STEP_OUTPUTS
from hrm_edge.tasks.puzzles import Puzzles

_HALF_MAX = 65504.0
_PUZZLES = 8


@dataclass(frozen=True)
class Range:
    """The largest magnitude seen, where, and the first tensor that left the range, if one did."""

    largest: float
    tensor: str
    overflow: str | None
    step: int

    def failure(self) -> str | None:
        """Return a sentence for the gate."""
        if self.overflow is None:
            return None
        return f"tensor '{self.overflow}' leaves the range of float16 (65,504) in step {self.step}"

    def describe(self) -> dict[str, object]:
        """Return the entry for the manifest."""
        return {"tensor": self.tensor, "largest_share_of_range": None if self.overflow else self.largest / _HALF_MAX}


def half_range(model: HRM, graph: onnx.ModelProto, check: Puzzles, steps: int) -> Range:
    """Run the float16 ``graph`` of ``model`` on a few puzzles of ``check`` for ``steps`` steps."""
    onnxruntime = import_onnxruntime()
    shown = _with_all_outputs(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs() if value.type == "tensor(float16)"]
    puzzles = check.head(_PUZZLES)
    feeds = _first_feeds(model, puzzles)
    largest, where = 0.0, ""
    for step in range(1, steps + 1):
        tensors = dict(zip(names, session.run(names, feeds), strict=True))
        for name in names:  # in the order of the graph: the first one is the cause
            top = float(np.abs(tensors[name].astype(np.float32)).max())
            if not np.isfinite(top):
                return Range(float("inf"), name, name, step)
            if top > largest:
                largest, where = top, name
        feeds["z_h"], feeds["z_l"] = tensors[STEP_OUTPUTS[0]], tensors[STEP_OUTPUTS[1]]
    return Range(largest, where, None, steps)


def _with_all_outputs(graph: onnx.ModelProto) -> onnx.ModelProto:
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    inferred = onnx.shape_inference.infer_shapes(shown)
    known = {value.name for value in shown.graph.output}
    halves = {
        value.name: value
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and value.name not in known
    }
    ordered = [name for node in shown.graph.node for name in node.output if name in halves]
    outputs = [halves[name] for name in ordered] + list(shown.graph.output)
    del shown.graph.output[:]
    shown.graph.output.extend(outputs)
    return shown


def _first_feeds(model: HRM, puzzles: Puzzles) -> dict[str, np.ndarray]:
    import torch

    z_h, z_l = model.initial_state(len(puzzles), torch.float16)
    feeds = {"tokens": puzzles.givens.astype(np.int32), "z_h": z_h.numpy(), "z_l": z_l.numpy()}
    vectors = model.puzzle_vectors(torch.from_numpy(puzzles.ids).long())
    if vectors is not None:
        feeds["puzzle"] = vectors.half().numpy()
    return feeds
