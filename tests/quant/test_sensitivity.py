"""Rounding in torch is the exported graph's; the ranking finds the layer that was made to suffer; policy files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto

from hrm_edge.errors import UserError
from hrm_edge.export.graph import StepGraph
from hrm_edge.graph.nodes import _quantize_weight
from hrm_edge.model.fake_quant import fake_quantized, fake_quantized_rows
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import Policy, exceptions, int8_layers, read_policy, write_policy
from hrm_edge.quant.sensitivity import Final, final, find_policy, rounded, sqnr_db
from hrm_edge.recipe import Quantization
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from tests.artifacts import exact_session

SUDOKU = get_task("sudoku")
HARMED = "L_level.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def puzzles() -> Puzzles:
    tokens = np.random.default_rng(0).integers(1, 11, (16, 81)).astype(np.uint8)
    return Puzzles.of(SUDOKU, tokens, called="random boards")


@pytest.fixture(scope="module")
def model() -> HRM:
    """One loud channel into one layer, as outliers are: per-tensor scales round its other inputs away."""
    torch.manual_seed(0)
    spec = variant_spec("full", vocab=11, seq_len=81, hidden=32, heads=2, h_layers=1, l_layers=1, puzzle_dim=0)
    made = HRM(spec).eval()
    with torch.no_grad():
        made.get_parameter("L_level.layers.0.mlp.gate_up_proj.weight")[spec.inner + 7] *= 300
        made.get_parameter(f"{HARMED}.weight")[:, 7] /= 300
    return made


@pytest.fixture(scope="module")
def scales(model: HRM, puzzles: Puzzles) -> dict[str, float]:
    return activation_scales(model, puzzles, Quantization(observer="max"), 3)


def test_rounding_has_the_gradient_of_the_identity_inside_the_range():
    x = torch.tensor([0.26, -0.74, 200.0, -200.0], requires_grad=True)
    y = fake_quantized(x, torch.tensor(0.5))
    assert y.tolist() == [0.5, -0.5, 63.5, -63.5]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_rounded_rows_are_the_exported_integers():
    weight = np.random.default_rng(0).normal(size=(5, 17)).astype(np.float32)
    values, scale = _quantize_weight(weight)
    np.testing.assert_allclose(
        fake_quantized_rows(torch.from_numpy(weight)).numpy(), values * scale[:, None], rtol=1e-5
    )


def test_a_rounded_model_is_the_int8_graph(model: HRM, puzzles: Puzzles, scales: dict[str, float]):
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    graph = StepGraph(model.spec, weights, activation_scales=scales).build()
    session = exact_session(graph.SerializeToString())
    z_h, z_l = (z.numpy() for z in model.initial_state(16, torch.float32))
    feeds = {"tokens": puzzles.givens.astype(np.int32), "z_h": z_h, "z_l": z_l}
    (exported,) = session.run(["logits"], feeds)
    with rounded(model, scales):
        found = final(model, puzzles, 1).logits
    plain = final(model, puzzles, 1).logits
    assert sqnr_db(exported, found) > sqnr_db(exported, plain) + 10  # rare roundings to the next integer are left
    assert all(layer.input_scale is None for layer in int8_layers(model).values())


def test_a_layer_out_of_int8_keeps_int8_weights(model: HRM, puzzles: Puzzles, scales: dict[str, float]):
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    rest = {name: scale for name, scale in scales.items() if name != HARMED}
    graphs = [
        StepGraph(model.spec, weights, activation_scales=rest, int8_weights=names).build() for names in ((), [HARMED])
    ]
    stored = [{i.name: i for i in graph.graph.initializer} for graph in graphs]
    assert f"{HARMED}.weight" in stored[0]
    assert f"{HARMED}.weight" not in stored[1]
    assert stored[1][f"{HARMED}.weight_int8"].data_type == TensorProto.INT8
    assert f"{HARMED}.input_scale" not in stored[1]
    session = exact_session(graphs[1].SerializeToString())
    z_h, z_l = (z.numpy() for z in model.initial_state(16, torch.float32))
    feeds = {"tokens": puzzles.givens.astype(np.int32), "z_h": z_h, "z_l": z_l}
    (exported,) = session.run(["logits"], feeds)
    before = model.get_parameter(f"{HARMED}.weight").clone()
    with rounded(model, rest, [HARMED]):
        found = final(model, puzzles, 1).logits
    assert sqnr_db(exported, found) > 30
    assert torch.equal(model.get_parameter(f"{HARMED}.weight"), before)


def test_sqnr_is_that_of_the_puzzles_that_both_settle():
    logits = np.ones((3, 1, 2), np.float32)
    wrong = logits.copy()
    wrong[2] = 7
    wrong[:2] += 0.1
    reference, found = Final(logits, np.array([True, True, True])), Final(wrong, np.array([True, True, False]))
    assert reference.sqnr_db(found) == pytest.approx(20, abs=1e-3)
    nobody = Final(wrong, np.zeros(3, bool))
    assert reference.sqnr_db(nobody) < 0


def test_the_layer_that_suffers_is_first_and_kept_in_float(model: HRM, puzzles: Puzzles, scales: dict[str, float]):
    told: list[str] = []
    everything = find_policy(model, scales, puzzles, steps=3, floor_db=-100, on_message=told.append)
    assert everything.float_layers == {}
    assert everything.ranking[0].layer == HARMED
    assert [r.sqnr_db for r in everything.ranking] == sorted(r.sqnr_db for r in everything.ranking)
    assert len(told) == len(scales) == len(everything.ranking)
    assert everything.sqnr_db is not None
    floor = everything.sqnr_db + 1
    policy = find_policy(model, scales, puzzles, steps=3, floor_db=floor, on_message=told.append)
    assert next(iter(policy.float_layers)) == HARMED
    assert "rank 1 of 8: in INT8 alone it leaves" in policy.float_layers[HARMED]
    assert policy.sqnr_db is not None
    assert policy.sqnr_db > floor


def test_a_policy_round_trips_and_export_obeys_it(tmp_path, model: HRM, puzzles: Puzzles):
    policy = Policy(task="sudoku", variant="full", float_layers={HARMED: "outliers"})
    write_policy(tmp_path / "p.yaml", policy)
    again = read_policy(tmp_path / "p.yaml", "sudoku", model)
    assert again == policy
    assert HARMED not in int8_layers(model, again)
    assert exceptions(model, again)[HARMED] == "outliers"
    found = activation_scales(model, puzzles, Quantization(), 1, again)
    assert len(found) == len(int8_layers(model)) - 1


BAD = [
    ("task: maze\nvariant: full\n", "is for maze full, the model is sudoku full"),
    ("task: sudoku\nvariant: full\nfloat_layers: {L_level.layers.0.mlp.down: x}\n", "the model has no layer 'L_level"),
    ("task: sudoku\nvariant: full\nfloat_layer: {}\n", "float_layer: Extra inputs are not permitted"),
    ("task: [\n", "is not valid YAML"),
    (None, "No such file"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_policy_that_does_not_fit(tmp_path, model, text, words):
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_policy(path, "sudoku", model)
