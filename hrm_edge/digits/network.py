"""The digit network, and its ONNX file with batch normalisation folded into the convolutions.

Axes: N cells, C classes (0 blank, 1 to 9); a cell is 32x32, 0 paper, about 1 ink.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hrm_edge.files import atomic_file
from hrm_edge.vision.cells import CELL
from hrm_edge.vision.read import CLASSES

_OPSET = 17
# (channels, kernel, stride, max pool after it)
_LAYERS = ((16, 5, 2, False), (32, 3, 1, True), (56, 3, 1, True), (96, 3, 1, False))


class DigitNet(nn.Module):
    """Four convolutions, and a linear layer for each question: which digit, and was it written by hand."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, side = 1, CELL
        for channels, kernel, stride, pool in _LAYERS:
            layers += [nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(channels)]
            layers += [nn.ReLU()] + [nn.MaxPool2d(2)] * pool
            before, side = channels, side // (stride * (1 + pool))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.classes = nn.Linear(before * side * side, CLASSES)
        self.written = nn.Linear(before * side * side, 1)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:  # [N, 1, 32, 32] -> [N, C], [N]
        """Return logits of the classes, and of the digit being written by hand rather than printed."""
        seen = self.dropout(self.features(cells).flatten(1))
        return self.classes(seen), self.written(seen).flatten()


def _folded(network: DigitNet) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return weights and biases of each convolution with its batch normalisation folded in."""
    modules = list(network.features)
    layers = []
    for conv, norm in itertools.pairwise(modules):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight = conv.weight * scale[:, None, None, None]
            bias = norm.bias - norm.running_mean * scale
            layers.append((weight.detach().numpy(), bias.detach().numpy()))
    return layers


def write_onnx(network: DigitNet, path: Path | str, about: dict[str, str]) -> None:
    """Write the graph: ``cells`` float32 [N, 1, 32, 32] to ``logits`` float32 [N, 10] and ``written`` [N, 1].

    ``about`` becomes metadata.
    """
    nodes, weights, name = [], [], "cells"
    for index, ((weight, bias), (_, kernel, stride, pool)) in enumerate(zip(_folded(network), _LAYERS, strict=True)):
        weights += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [name, f"w{index}", f"b{index}"], [f"c{index}"], **window))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name = f"r{index}"
        if pool:
            nodes.append(helper.make_node("MaxPool", [name], [f"p{index}"], kernel_shape=[2, 2], strides=[2, 2]))
            name = f"p{index}"
    nodes.append(helper.make_node("Flatten", [name], ["flat"]))
    for layer, output in ((network.classes, "logits"), (network.written, "written")):
        weights.append(numpy_helper.from_array(layer.weight.detach().numpy(), f"{output}_w"))
        weights.append(numpy_helper.from_array(layer.bias.detach().numpy(), f"{output}_b"))
        nodes.append(helper.make_node("Gemm", ["flat", f"{output}_w", f"{output}_b"], [output], transB=1))
    cells = helper.make_tensor_value_info("cells", TensorProto.FLOAT, ["N", 1, CELL, CELL])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    written = helper.make_tensor_value_info("written", TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes, "digits", [cells], [logits, written], weights)
    model = helper.make_model(graph, producer_name="hrm-edge", opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 8  # what ONNX Runtime 1.18 reads
    helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
