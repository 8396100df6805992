"""Check that an artifact's graph is, node by node, the step that the C++ code computes.

Each node of ``hrm_edge.graph.step`` has to be the next one in the file, each constant has to be there. A graph that was
changed since (another operator, another wire, another constant) is refused: the C++ code would compute the step as it
was before. Weights and their scales may have any value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.graph.step import StepNodes
from hrm_edge.spec import ModelSpec, parameter_shapes

OTHERWISE = "run it with --backend onnxruntime"


class GraphCheck(StepNodes):
    """Takes the nodes of a graph from its inputs on; :meth:`check` takes them all."""

    def __init__(self, nodes: Any, tensors: Mapping[str, NDArray[Any]], spec: ModelSpec, path: Path) -> None:
        """Expect INT8 in every layer of a model with attention, and in none of a lattice."""
        matrices = [name for name in parameter_shapes(spec) if ".layers." in name and name.endswith("_proj.weight")]
        int8 = matrices if spec.mixing == "attention" else ()
        super().__init__(spec, {}, activation_scales={name.removesuffix(".weight"): 1.0 for name in int8})
        self.left = iter(nodes)
        self.tensors, self.path = tensors, path

    def check(self) -> None:
        """Raise ``UserError`` that names the first node or constant that is not as expected."""
        self.step()
        if (rest := next(self.left, None)) is not None:
            self._refuse(f"it has a {rest.op_type} more ('{rest.name}')")

    def _refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is not the graph that --backend native computes: {why}", OTHERWISE)

    def ops(
        self, kind: str, inputs: tuple[str, ...], outputs: int, names: list[str] | None = None, **attributes: object
    ) -> list[str]:
        node = next(self.left, None)
        if node is None:
            self._refuse(f"it ends where a {kind} is expected")
        import onnx

        own = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        wanted = {name: np.float32(value) if isinstance(value, float) else value for name, value in attributes.items()}
        if (node.op_type, node.domain, tuple(node.input)) != (kind, "", inputs) or own != wanted:
            self._refuse(f"'{node.name}' is not the {kind} of {', '.join(inputs)} that is expected")
        for name in names or ():
            self.as_float32(node.output[0], name)
        return list(node.output)

    def as_float32(self, x: str, name: str) -> None:
        if x != name:
            self._refuse(f"its outputs are computed as {x}, not as {name}")

    def constant(self, name: str, value: Any) -> str:
        stored, wanted = self.tensors[self.trained(name, lambda: value)], np.asarray(value)
        if stored.dtype != wanted.dtype or stored.shape != wanted.shape or (stored != wanted).any():
            self._refuse(f"its constant '{name}' has another value")
        return name

    def trained(self, name: str, make: Callable[[], Any]) -> str:
        if name not in self.tensors:
            self._refuse(f"it has no '{name}'")
        return name

    def positions(self) -> NDArray[np.float32] | None:
        return self.tensors.get("positions")
