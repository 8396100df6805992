"""The written graph is the torch model, for every option of the family, at every batch size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hrm_edge.export.graph import StepGraph
from hrm_edge.graph.nodes import _quantize_weight
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import int8_layers
from hrm_edge.quant.sensitivity import final, rounded, sqnr_db
from hrm_edge.quant.smooth import smoothed
from hrm_edge.recipe import Quantization
from hrm_edge.spec import ModelSpec, step_io, variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from tests.artifacts import as_puzzles, exact_session

Feeds = dict[str, NDArray[np.generic]]
SMALL = {"hidden": 32, "heads": 4, "h_layers": 1, "l_layers": 2}
TRM = {"hidden": 32, "heads": 4, "l_layers": 1, "h_cycles": 2, "l_cycles": 2, "puzzle_dim": 40, "puzzles": 3,
       "puzzle_len": 3}  # fmt: skip
SPECS = {
    "full": variant_spec("full", vocab=11, seq_len=81, **{**SMALL, "puzzle_dim": 40, "puzzles": 3}),
    "full without puzzle": variant_spec("full", vocab=11, seq_len=81, **{**SMALL, "puzzle_dim": 0}),
    "learned positions": variant_spec("full", vocab=11, seq_len=81, **SMALL, positions="learned"),
    "reduced": variant_spec("reduced", vocab=11, seq_len=81, **SMALL),
    "nano": variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3), **{**SMALL, "heads": 4}),
    "nano 2x3 boxes": variant_spec("nano", vocab=8, seq_len=36, grid=(6, 6, 2, 3), **{**SMALL, "heads": 4}),
    "trm": variant_spec("trm", vocab=11, seq_len=81, **TRM),
    "trm-mixer": variant_spec("trm-mixer", vocab=11, seq_len=81, **TRM),
    "lattice": variant_spec("lattice", vocab=11, seq_len=81, grid=(9, 9, 3, 3), symbol_width=8),
    "lattice 2x3 boxes": variant_spec("lattice", vocab=8, seq_len=36, grid=(6, 6, 2, 3), symbol_width=16, l_layers=2),
    "reduced, 3x3 cycles": variant_spec("reduced", vocab=6, seq_len=16, **SMALL, h_cycles=3, l_cycles=3),
}


def make(spec: ModelSpec) -> HRM:
    torch.manual_seed(0)
    model = HRM(spec).eval()
    with torch.no_grad():
        model.q_head.weight.normal_()  # zero in a fresh model: a wrong q would not show
        if spec.puzzle_dim:
            model.puzzle_emb.weights.normal_()
    return model


def weights(model: HRM) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items()}


def open_graph(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return exact_session(graph.SerializeToString())


def tokens_of(spec: ModelSpec, batch: int) -> NDArray[np.int32]:
    return np.random.default_rng(batch).integers(1, spec.vocab, (batch, spec.seq_len)).astype(np.int32)


def differences(model: HRM, graph: onnx.ModelProto, batch: int, steps: int) -> list[tuple[float, float]]:
    """(largest logits, largest q difference) to torch after each of ``steps`` steps, both running freely."""
    spec, session = model.spec, open_graph(graph)
    tokens, ids = tokens_of(spec, batch), torch.arange(batch) % spec.puzzles
    z_h, z_l = model.initial_state(batch, torch.float32)
    puzzle = model.puzzle_vectors(ids)
    feeds: Feeds = {"tokens": tokens, "z_h": z_h.numpy(), "z_l": z_l.numpy()}
    if puzzle is not None:
        feeds["puzzle"] = puzzle.numpy()
    found = []
    for _ in range(steps):
        with torch.no_grad():
            z_h, z_l, logits, q = model(torch.from_numpy(tokens), puzzle, z_h, z_l)
        feeds["z_h"], feeds["z_l"], onnx_logits, onnx_q = session.run(["z_h_next", "z_l_next", "logits", "q"], feeds)
        assert onnx_logits.shape == (batch, spec.seq_len, spec.vocab)
        assert onnx_q.shape == (batch, spec.q_outputs)
        found.append((float(np.abs(logits.numpy() - onnx_logits).max()), float(np.abs(q.numpy() - onnx_q).max())))
    return found


@pytest.mark.parametrize("name", SPECS)
def test_float_graph_is_the_torch_model(name: str) -> None:
    model = make(SPECS[name])
    graph = StepGraph(model.spec, weights(model)).build()
    for batch in (1, 3):
        first, second = differences(model, graph, batch, 2)
        assert max(first) < 1e-4
        assert max(second) < 1e-3  # the weights are random, so the recurrence enlarges rounding


def test_reduced_stays_within_1e_4_after_all_steps() -> None:
    model = make(variant_spec("reduced", vocab=11, seq_len=81))
    logits, q = differences(model, StepGraph(model.spec, weights(model)).build(), 1, 16)[-1]
    assert logits < 1e-4
    assert q < 1e-4


@pytest.mark.parametrize("name", SPECS)
def test_graph_has_the_contracts_inputs_and_no_shape_arithmetic(name: str) -> None:
    spec = SPECS[name]
    graph = StepGraph(spec, weights(make(spec))).build()
    named = {value.name: value for value in [*graph.graph.input, *graph.graph.output]}
    assert set(named) == set(step_io(spec))
    for tensor, (_, shape) in step_io(spec).items():
        dims = named[tensor].type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == list(shape)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert not kinds.keys() & {"Shape", "Size", "Expand", "Loop", "If", "ConstantOfShape"}


def quantize(name: str) -> tuple[HRM, dict[str, float], onnx.ModelProto]:
    model = make(SPECS[name])
    tokens = tokens_of(model.spec, 32).astype(np.uint8)
    scales = activation_scales(model, as_puzzles(tokens), Quantization(), 4)
    return model, scales, StepGraph(model.spec, weights(model), activation_scales=scales).build()


@pytest.mark.parametrize("name", ["reduced", "trm", "trm-mixer"])
def test_int8_graph_is_symmetric_with_per_channel_weights(name: str) -> None:
    model, scales, graph = quantize(name)
    assert set(scales) == set(int8_layers(model))
    constants = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    seen = 0
    for node in graph.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            values, scale = constants[node.input[0]], constants[node.input[1]]
            assert values.dtype == np.int8
            assert scale.shape == (values.shape[1],)
            assert next(a.i for a in node.attribute if a.name == "axis") == 1
            seen += 1
    assert seen == len(scales)  # each weight once, however often the cycles use it


def test_int8_graph_follows_the_float_model() -> None:
    model, _, graph = quantize("reduced")
    found = differences(model, graph, 4, 4)
    with torch.no_grad():
        z_h, z_l = model.initial_state(4, torch.float32)
        logits = model(torch.from_numpy(tokens_of(model.spec, 4)), None, z_h, z_l)[2]
    assert 0 < found[0][0] < 0.2 * float(logits.abs().max())


def test_int8_mixing_over_positions_has_a_scale_per_position_and_one_per_row() -> None:
    """The weights' scales are along the positions that the transposed product makes; a row's own scale is its peak."""
    spec = SPECS["trm-mixer"]
    model = make(spec)
    tokens = tokens_of(spec, 32).astype(np.uint8)
    scales = activation_scales(model, as_puzzles(tokens), Quantization(), 2)
    graph = StepGraph(spec, weights(model), activation_scales=scales).build()
    constants = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    block = "L_level.layers.0.mlp_t"
    assert constants[f"{block}.down_proj.weight_scale"].shape == (spec.total_len,)
    assert constants[f"{block}.gate_up_proj.weight_scale"].shape == (2 * spec.mixing_inner,)
    assert scales[f"{block}.down_proj"] == scales[f"{block}.gate_up_proj"] == pytest.approx(1 / 127)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["ReduceMax"] == 2 * sum(spec.block_passes), "both products of every pass"


def calm(model: HRM) -> HRM:
    """What each layer adds made small, so that a model of random weights comes to rest, as trained ones do."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("down_proj.weight", "o_proj.weight")):
                parameter.mul_(0.05)
    return model


@pytest.mark.parametrize(("cycles", "steps"), [((1, 1), 1), ((3, 6), 16)])
@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_int8_of_random_weights_keeps_20_db(variant: str, cycles: tuple[int, int], steps: int) -> None:
    """After one L and one H update; with the published cycles only where the model is calm (see test_trm.py)."""
    torch.manual_seed(0)
    sizes = {"hidden": 64, "heads": 4, "puzzle_dim": 64, "h_cycles": cycles[0], "l_cycles": cycles[1]}
    spec = variant_spec(variant, vocab=6, seq_len=16, puzzle_len=1, **sizes)
    model = HRM(spec).eval() if steps == 1 else calm(HRM(spec).eval())
    count = 32 if steps == 1 else 4
    tokens = tokens_of(spec, count).astype(np.uint8)
    puzzles = Puzzles.of(get_task("mini-sudoku"), tokens, called="random")
    written = smoothed(model, puzzles, 0.8, steps)
    scales = activation_scales(written, puzzles, Quantization(), steps)
    expected = final(model, puzzles, steps)
    with rounded(written, scales):
        in_torch = final(written, puzzles, steps)
    assert sqnr_db(expected.logits, in_torch.logits) > 20
    session = open_graph(StepGraph(spec, weights(written), activation_scales=scales).build())
    vectors = written.puzzle_vectors(torch.zeros(count, dtype=torch.int32))
    assert vectors is not None
    z_h, z_l = (state.numpy() for state in written.initial_state(count, torch.float32))
    feeds = {"tokens": tokens.astype(np.int32), "puzzle": vectors.numpy(), "z_h": z_h, "z_l": z_l}
    for _ in range(steps):
        feeds["z_h"], feeds["z_l"], exported = session.run(["z_h_next", "z_l_next", "logits"], feeds)
    assert sqnr_db(expected.logits, exported) > 20
    if steps == 1:  # later a value that rounds to the next integer in one of them has come back many times
        assert sqnr_db(in_torch.logits, exported) > 30, "rounding in torch is the graph's"


@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_a_calm_model_stays_within_1e_4_of_torch_over_sixteen_steps(variant: str) -> None:
    """With the published cycles, both running freely; tests/test_quickstart.py shows it of trained weights."""
    sizes = {"hidden": 64, "heads": 4, "puzzle_dim": 64, "puzzle_len": 1}
    model = calm(make(variant_spec(variant, vocab=6, seq_len=16, **sizes)))
    logits, q = differences(model, StepGraph(model.spec, weights(model)).build(), 2, 16)[-1]
    assert logits < 1e-4
    assert q < 1e-4


@pytest.mark.parametrize("variant", ["trm", "trm-mixer"])
def test_each_of_sixteen_steps_is_within_1e_4_of_torch(variant: str) -> None:
    """Both take torch's carry: run freely, a random model would enlarge the last bit to a difference of its own."""
    spec = variant_spec(variant, vocab=6, seq_len=16, hidden=64, heads=4, puzzle_dim=64, l_cycles=2)
    model = make(spec)
    session = open_graph(StepGraph(spec, weights(model)).build())
    tokens, puzzle = tokens_of(spec, 4), model.puzzle_vectors(torch.zeros(4, dtype=torch.int32))
    assert puzzle is not None
    z_h, z_l = model.initial_state(4, torch.float32)
    worst = []
    for _ in range(16):
        feeds = {"tokens": tokens, "puzzle": puzzle.numpy(), "z_h": z_h.numpy(), "z_l": z_l.numpy()}
        with torch.no_grad():
            z_h, z_l, logits, _ = model(torch.from_numpy(tokens), puzzle, z_h, z_l)
        worst.append(float(np.abs(session.run(["logits"], feeds)[0] - logits.numpy()).max()))
    assert float(np.median(worst)) < 1e-4
    assert max(worst) < 1e-2


def test_calibration_sees_every_step() -> None:
    """A layer whose input grows with the steps gets its scale from the last one, not from the first."""
    model = make(SPECS["reduced"])
    puzzles = as_puzzles(tokens_of(model.spec, 16).astype(np.uint8))
    seen: dict[int, float] = {}
    layer = model.get_submodule("l_to_h")
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.update({len(seen): float(inputs[0].abs().max())}))
    activation_scales(model, puzzles, Quantization(observer="max"), 3)
    handle.remove()
    assert len(seen) == 3 * model.spec.h_cycles
    options = Quantization(observer="max")
    short = activation_scales(model, puzzles, options, 1)
    long = activation_scales(model, puzzles, options, 4)
    assert all(long[name] >= short[name] for name in short)
    assert any(long[name] > short[name] for name in short)


def test_percentile_observer_cuts_the_tail_and_max_does_not() -> None:
    model = make(SPECS["reduced"])
    puzzles = as_puzzles(tokens_of(model.spec, 16).astype(np.uint8))
    top = activation_scales(model, puzzles, Quantization(observer="max"), 2)
    cut = activation_scales(model, puzzles, Quantization(percentile=99.0), 2)
    assert all(cut[name] < top[name] for name in top)


def test_weight_quantization_is_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32)
    weight[3] = 0
    values, scale = _quantize_weight(weight)
    assert values.min() >= -127  # -128 would make the range lopsided
    assert np.abs(values * scale[:, None] - weight).max() <= 0.5 * scale.max() * (1 + 1e-5)
    assert not values[3].any()


@pytest.mark.parametrize("name", ["reduced", "trm", "trm-mixer"])
def test_fp16_graph_keeps_float32_logits(name: str) -> None:
    model = make(SPECS[name])
    graph = StepGraph(model.spec, weights(model), half=True).build()
    session = open_graph(graph)
    tokens, puzzle = tokens_of(model.spec, 2), model.puzzle_vectors(torch.zeros(2, dtype=torch.int32))
    z_h, z_l = model.initial_state(2, torch.float32)
    feeds = {"tokens": tokens, "z_h": z_h.half().numpy(), "z_l": z_l.half().numpy()}
    if puzzle is not None:
        feeds["puzzle"] = puzzle.half().numpy()
    logits, q = session.run(["logits", "q"], feeds)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens), puzzle, z_h, z_l)[2].numpy()
    assert logits.dtype == q.dtype == np.float32
    assert sqnr_db(expected, logits) > 40
