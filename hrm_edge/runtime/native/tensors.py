"""An artifact's graph: its nodes checked against what the C++ code computes, its tensors handed out by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.packages import unusable
from hrm_edge.runtime.native.structure import OTHERWISE, GraphCheck
from hrm_edge.runtime.state import AGAIN
from hrm_edge.spec import ModelSpec


def read_graph(path: Path, spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Return the initializers of an artifact's graph by name.

    Raises ``UserError`` where the graph computes something else than the C++ code does.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise unusable("onnx", error, "which --backend native needs", install="onnx") from error
    graph = onnx.load(path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    GraphCheck(graph.node, tensors, spec, path).check()
    return tensors


class Tensors:
    """Tensors of a file, checked as they are asked for, and kept while a structure points at them."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
        self.tensors, self.path = tensors, path
        self.kept: list[Any] = []

    def __call__(self, name: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        if name not in self.tensors:
            raise UserError(f"{self.path} has no '{name}', which --backend native needs", f"{AGAIN}, or {OTHERWISE}")
        tensor = self.tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise UserError(
                f"{self.path}: '{name}' is {tensor.dtype} {list(tensor.shape)}, "
                f"the manifest's model has {np.dtype(dtype)} {list(shape)}",
                AGAIN,
            )
        return self.keep(tensor)

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        self.kept.append(np.asarray(array, order="C"))
        return np.asarray(self.kept[-1])
