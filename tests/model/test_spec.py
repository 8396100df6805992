"""The parameter tables of the variants, and that torch builds exactly what the spec says."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from hrm_edge.costs import flops_per_step, parameter_table
from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.spec import ModelSpec, buffer_shapes, parameter_shapes, step_io, variant_spec

GRID = (9, 9, 3, 3)
EVERYTHING = {"positions": "learned", "grid_positions": True, "puzzle_dim": 5, "puzzles": 3}


@pytest.mark.parametrize(("vocab", "parameters"), [(14, 27_278_338), (11, 27_275_266)])
def test_full_has_the_published_parameters(vocab: int, parameters: int) -> None:
    table = parameter_table(variant_spec("full", vocab=vocab, seq_len=81))
    assert table["trainable"] == parameters
    assert table["tensors"] == 36


def test_reduced_has_the_table_line_by_line() -> None:
    table = parameter_table(variant_spec("reduced", vocab=12, seq_len=900))
    assert {row["name"]: row["count"] for row in table["table"]} == {
        "token embedding": 3_072,
        "H-layers (4)": 3_159_040,
        "L-layers (3)": 2_369_280,
        "H<->L connections": 131_584,
        "halt predictor": 513,
        "output layer": 3_084,
        "layer norms": 1_024,
        "position encoding": 1_280_000,
    }
    assert table["trainable"] == 5_667_597
    assert table["state_dict"] == 6_947_597


def test_nano_stays_under_a_million() -> None:
    assert parameter_table(variant_spec("nano", vocab=11, seq_len=81, grid=GRID))["trainable"] < 1_000_000


@pytest.mark.parametrize("variant", ["full", "reduced", "nano"])
@pytest.mark.parametrize(
    "options",
    [{}, {"positions": "learned", "grid_positions": True, "grid_heads": False, "puzzle_dim": 5, "puzzles": 3}],
)
def test_torch_builds_what_the_spec_says(variant: str, options: dict[str, object]) -> None:
    small = {"hidden": 32, "heads": 4, "h_layers": 2, "l_layers": 1}
    spec = variant_spec(variant, vocab=11, seq_len=81, grid=GRID, **{**small, **options})
    model = HRM(spec)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == parameter_shapes(spec)
    everything = {**parameter_shapes(spec), **buffer_shapes(spec)}
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == everything


@pytest.mark.parametrize("variant", ["full", "reduced"])
def test_real_sizes_in_torch_too(variant: str) -> None:
    spec = variant_spec(variant, vocab=12, seq_len=81)
    with torch.device("meta"):
        model = HRM(spec)
    assert sum(p.numel() for p in model.parameters()) == parameter_table(spec)["trainable"]


def test_flops_of_full_on_sudoku() -> None:
    # 8 blocks' weights, each block run by hand: 24 passes of 3,407,872 weights over 82 positions, and attention
    expected = 24 * (2 * 3_407_872 * 82 + 4 * 82 * 82 * 512)
    assert math.isclose(flops_per_step(variant_spec("full", vocab=11, seq_len=81)), expected, rel_tol=1e-3)


def test_step_io_names_the_puzzle_only_where_there_is_one() -> None:
    assert "puzzle" in step_io(variant_spec("full", vocab=11, seq_len=81))
    assert "puzzle" not in step_io(variant_spec("reduced", vocab=11, seq_len=81))


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'reduced'"):
        variant_spec("reduce", vocab=11, seq_len=81)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"hidden": 100, "heads": 8}, "not divisible"),
        ({"grid_positions": True}, "needs a task with a board"),
        ({"grid_heads": True}, "grid_heads needs a task with a board"),
        ({"grid_heads": True, "grid": GRID, "heads": 6, "hidden": 96}, "heads in fours"),
        ({"grid": (4, 4, 2, 2)}, "does not have seq_len=81"),
        ({"positions": "sinusoidal", "puzzle_dim": 512 * 4920}, "sinusoidal positions end at 5000"),
    ],
)
def test_inconsistent_specs_are_refused(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        variant_spec("full", vocab=11, seq_len=81, **wrong)


def test_spec_is_closed_and_frozen() -> None:
    spec = variant_spec("nano", vocab=11, seq_len=81, grid=GRID)
    with pytest.raises(ValidationError):
        ModelSpec(**{**spec.model_dump(), "colour": "red"})
    with pytest.raises(ValidationError):
        spec.hidden = 1  # type: ignore[misc]
