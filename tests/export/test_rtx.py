"""The real TensorRT-RTX builder takes our graphs, without a GPU: real compilation for two consumer architectures."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from hrm_edge.export.graph import StepGraph
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.recipe import Quantization
from hrm_edge.spec import variant_spec

pytestmark = pytest.mark.rtx


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="pip install 'hrm-edge[rtx]'")


@pytest.fixture(scope="module")
def graphs() -> dict[str, onnx.ModelProto]:
    torch.manual_seed(0)
    model = HRM(variant_spec("reduced", vocab=11, seq_len=81)).eval()
    weights = {name: tensor.numpy() for name, tensor in {**model.state_dict()}.items()}
    tokens = np.random.default_rng(0).integers(1, 11, (16, 81)).astype(np.uint8)
    scales = activation_scales(model, tokens, np.zeros(16, np.int32), Quantization(), 1)
    return {
        "fp32": StepGraph(model.spec, weights).build(),
        "int8": StepGraph(model.spec, weights, activation_scales=scales).build(),
    }


@pytest.fixture(scope="module")
def logger(trt: Any) -> Any:
    return trt.Logger(trt.Logger.ERROR)  # the library keeps the first one for the life of the process


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_reduced_builds_an_engine_for_two_architectures(
    trt: Any, logger: Any, graphs: dict[str, onnx.ModelProto], precision: str
) -> None:
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graphs[precision].SerializeToString()), [
        str(parser.get_error(i)) for i in range(parser.num_errors)
    ]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = [[batch if d == -1 else d for d in tensor.shape] for batch in (1, 8, 64)]
        assert tensor.shape[0] == -1
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 2
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.set_compute_capability(trt.ComputeCapability.SM120, 1)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 5_000_000
