"""The shipped models: every one opens, has a card, and solves from its name."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hrm_edge import zoo
from hrm_edge.cli.models import models
from hrm_edge.errors import UserError
from hrm_edge.runtime import open_artifact
from hrm_edge.spec import parameter_table

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


def test_shipped_models_are_small():
    assert sum(file.stat().st_size for file in zoo.ZOO.rglob("*") if file.is_file()) < MOST_BYTES


def test_models_lists_cards_as_json():
    result = CliRunner().invoke(models, ["--json"])
    assert result.exit_code == 0
    assert [card["name"] for card in json.loads(result.output)["models"]] == zoo.names()


def test_an_unknown_name_is_refused():
    assert zoo.folder_of("sudoku-nanno") is None
    with pytest.raises(UserError, match="no model 'sudoku-nanno'"):
        zoo.card("sudoku-nanno")
