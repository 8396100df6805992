"""The shipped models: every one opens, has a card, and solves from its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hrm_edge import zoo
from hrm_edge.cli.models import models
from hrm_edge.costs import parameter_table
from hrm_edge.errors import UserError
from hrm_edge.manifest import read_manifest
from hrm_edge.runtime import open_artifact

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 60_000_000  # of all shipped weights together


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_model_opens_and_its_card_tells_the_truth(name):
    folder = zoo.folder_of(name)
    assert folder is not None
    session, manifest = open_artifact(folder)
    card = zoo.card(name)
    assert (card.task, card.precision, card.variant) == (manifest.task, manifest.precision, session.spec.variant)
    assert card.parameters == parameter_table(session.spec)["trainable"]
    assert card.accuracy
    assert all(row.false_verified == 0 for row in card.accuracy)


def paired_report(name: str) -> dict[str, Any]:
    """The results file of a precision, in which the float32 artifact answered the same puzzles."""
    report: dict[str, Any] = json.loads((ROOT / zoo.card(name).accuracy[0].results).read_text())
    return report


def weights_of(name: str) -> tuple[int, int, str]:
    """Which weights a shipped artifact holds: the step, the samples, and the hash of their float32 artifact."""
    manifest = read_manifest(zoo.ZOO / name)
    fp32 = manifest.files["step.onnx"].sha256 if manifest.precision == "fp32" else None
    step = manifest.provenance["checkpoint"]["step"]
    return step, zoo.card(name).samples, fp32 or paired_report(name)["paired"]["model"]["sha256"]


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.card(name).precision != "fp32"])
def test_another_precision_is_of_the_same_weights_and_proven(name):
    """Made from one float32 artifact, shipped or too large to be, within its gate, and on 2,000 puzzles paired."""
    manifest, of = read_manifest(zoo.ZOO / name), name.rpartition("-")[0]
    others = [other for other in zoo.names() if other != name and other.removeprefix(of) in ("", "-fp16", "-int8")]
    assert others
    assert {weights_of(other) for other in others} == {weights_of(name)}
    assert manifest.gate.passed
    assert manifest.provenance["checkpoint"]["artifact"] == of
    held = next(row for row in manifest.parity_apart if row.over == "both settle")
    assert held.carry_cosine_mean is not None
    assert held.carry_cosine_mean >= 0.995
    assert held.logits_sqnr_db >= manifest.gate.limits["logits_sqnr_db"]
    if manifest.precision == "int8":
        assert manifest.quantization is not None
        assert manifest.quantization["bytes"]["weights_of_fp32"] <= 0.30
    report = paired_report(name)
    assert report["model"]["sha256"] == manifest.files["step.onnx"].sha256
    assert report["count"] >= 2000
    assert report["paired"]["lost_points"] <= manifest.gate.limits["accuracy_drop_points"]


def test_shipped_models_are_small():
    assert sum(file.stat().st_size for file in zoo.ZOO.rglob("*") if file.is_file()) < MOST_BYTES


def test_models_lists_cards_as_json():
    result = CliRunner().invoke(models, ["--json"])
    assert result.exit_code == 0
    assert [card["name"] for card in json.loads(result.output)["models"]] == zoo.names()


def test_models_lists_what_each_reaches_on_every_set():
    """A row for every set, with the default model marked and the accuracies of the cards."""
    result = CliRunner().invoke(models, [])
    assert result.exit_code == 0
    for name in zoo.names():
        card = zoo.card(name)
        star = " *" if name == zoo.default_for(card.task) else ""
        (start,) = (at for at, line in enumerate(result.output.splitlines()) if line.startswith(f"{name}{star}  "))
        for at, data in enumerate(dict.fromkeys(row.data for row in card.accuracy)):
            line = result.output.splitlines()[start + at]
            rows = [row for row in card.accuracy if row.data == data]
            assert f" {data} " in line
            assert f" {rows[0].exact_accuracy:.1%} " in line
            assert (f"{rows[-1].exact_accuracy:.1%} ({rows[-1].views})" in line) == (len(rows) > 1)


def test_an_unknown_name_is_refused():
    assert zoo.folder_of("sudoku-nanno") is None
    with pytest.raises(UserError, match="no model 'sudoku-nanno'"):
        zoo.card("sudoku-nanno")
