"""Writer of a step's graph: the nodes of ``hrm_edge.graph.step`` as an ONNX model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hrm_edge import __version__
from hrm_edge.export import plugin_node
from hrm_edge.graph.nodes import Array
from hrm_edge.graph.step import StepNodes, rope_halves
from hrm_edge.plugin.contract import NAME, NAMESPACE
from hrm_edge.spec import step_io

OPSET = 18  # LayerNormalization is native, and TensorRT 10.3 (JetPack 6.2) reads all of it
IR_VERSION = 9


class StepGraph(StepNodes):
    """Builds the graph of one step; :meth:`build` gives the model."""

    nodes: list[onnx.NodeProto]
    initializers: dict[str, onnx.TensorProto]
    plugin: bool

    def ops(
        self, kind: str, inputs: tuple[str, ...], outputs: int, names: list[str] | None = None, **attributes: object
    ) -> list[str]:
        name = f"{self.scope}/{kind}_{len(self.nodes) + 1}"
        names = names or [name + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def constant(self, name: str, value: Array) -> str:
        return self.trained(name, lambda: value)

    def trained(self, name: str, make: Callable[[], Array]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(make(), order="C"), name)
        return name

    def as_float32(self, x: str, name: str) -> None:
        if self.half:
            self.op("Cast", x, out=name, to=TensorProto.FLOAT)
        else:
            next(node for node in reversed(self.nodes) if x in node.output).output[0] = name

    def attention(self, x: str, name: str) -> str:
        if not self.plugin:
            return super().attention(x, name)
        inputs = [self.linear(x, f"{name}.qkv_proj")]
        if self.spec.positions == "rope":
            tables = rope_halves(self.spec)  # float32 in every precision
            inputs += [self.constant(n, t) for n, t in zip(("rope_cos", "rope_sin"), tables, strict=True)]
        out = self.op(NAME, *inputs, domain=NAMESPACE, **plugin_node.attributes(self.spec))
        return self.linear(out, f"{name}.o_proj")

    def build(self, *, plugin: bool = False) -> onnx.ModelProto:
        """Build the checked model of one step, with named inputs and outputs per ``step_io``.

        ``plugin``: attention is one custom node per layer, with a body of standard operators in the file; raises
        ``UserError`` where the plugin does not serve the model.
        """
        spec = self.spec
        if plugin:
            plugin_node.check_spec(spec)
        self.nodes, self.initializers, self.dequantized, self.plugin = [], {}, {}, plugin
        self.step()
        types = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
        types["carry"] = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        table = {
            name: helper.make_tensor_value_info(name, types[dtype], list(shape))
            for name, (dtype, shape) in step_io(spec).items()
        }
        outputs = ["z_h_next", "z_l_next", "logits", "q"]
        inputs = [name for name in table if name not in outputs]
        graph = helper.make_graph(
            self.nodes,
            f"hrm_{spec.variant}_step",
            [table[n] for n in inputs],
            [table[n] for n in outputs],
            list(self.initializers.values()),
        )
        domains = {"": OPSET, **({NAMESPACE: 1} if self.plugin else {})}
        model = helper.make_model(
            graph,
            functions=[plugin_node.attention_function(spec, OPSET, self.half)] if self.plugin else [],
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
            ir_version=IR_VERSION,
            producer_name="hrm-edge",
            producer_version=__version__,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
