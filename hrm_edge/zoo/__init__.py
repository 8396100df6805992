"""Pretrained models that ship with the package: an artifact folder and a card each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_json
from hrm_edge.manifest import MANIFEST

ZOO = Path(__file__).parent
CARD = ".card.json"
_REINSTALL = "the installation is damaged: install hrm-edge again"


class Measured(BaseModel):
    """Exact accuracy on one set, from the results file that ``hrm-edge eval`` wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    puzzles: int
    views: int
    exact_accuracy: float
    interval_95: tuple[float, float]
    false_verified: int
    results: str


class Card(BaseModel):
    """What a model is, how it was made, what it can do, and what it cannot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    variant: str
    precision: str
    parameters: int
    recipe: str
    data: str
    seed: int
    samples: int
    training: str
    date: str
    fails_on: str
    accuracy: list[Measured]


def names() -> list[str]:
    """Names of the shipped models."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{MANIFEST}"))


def folder_of(name: str) -> Path | None:
    """The artifact folder of a shipped model, or None where ``name`` is none."""
    return ZOO / name if name in names() else None


def default_for(task: str) -> str | None:
    """Name of the shipped model that solves ``task`` by default: the first of its cards."""
    return next((name for name in names() if card(name).task == task), None)


def card(name: str) -> Card:
    """The card of a shipped model; ``UserError`` where there is no such model."""
    if name not in names():
        raise UserError(f"no shipped model '{name}'", nearest(name, names()))
    path = ZOO / f"{name}{CARD}"
    try:
        return Card.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is no model card: {error.errors()[0]['msg']}", _REINSTALL) from error


def cards() -> list[dict[str, Any]]:
    """All cards, ready for JSON."""
    return [card(name).model_dump(mode="json") for name in names()]
