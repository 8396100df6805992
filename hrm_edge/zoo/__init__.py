"""Pretrained models by name: those that ship with the package, and those pulled from elsewhere.

A shelf is a folder with, for each model, an artifact folder NAME and beside it NAME.card.json. The package is one, the
user's cache another; ``hrm_edge.zoo.remote`` copies from a third, a folder, a web address or a hub repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_json, user_cache
from hrm_edge.manifest import MANIFEST

ZOO = Path(__file__).parent
CARD = ".card.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_AGAIN = "install hrm-edge again, or pull the model again"


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


def pulled() -> Path:
    """The shelf of pulled models, in the user's cache."""
    return user_cache() / "models"


def is_name(name: str) -> bool:
    """Whether ``name`` may be a model's: letters, digits, dot, dash and underscore, and no dot in front."""
    return bool(_NAME.fullmatch(name))


def names() -> list[str]:
    """Names of the models at hand: shipped and pulled. A folder without its card is none: its pull was cut off."""
    found = {path.parent for shelf in (ZOO, pulled()) for path in shelf.glob(f"*/{MANIFEST}")}
    return sorted({folder.name for folder in found if is_name(folder.name) and card_of(folder).is_file()})


def card_of(folder: Path) -> Path:
    """Where the card of an artifact folder on a shelf is."""
    return folder.with_name(f"{folder.name}{CARD}")


def folder_of(name: str) -> Path | None:
    """The artifact folder of a model at hand, or None where ``name`` is none."""
    if name not in names():
        return None
    return next(shelf / name for shelf in (ZOO, pulled()) if (shelf / name / MANIFEST).is_file())


def path_of(name: str) -> Path:
    """What the user means by ``name``: the file or folder of that path, else the model at hand.

    An empty folder is nobody's model: it does not hide one of its name.
    """
    path = Path(name)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        return path
    return folder_of(name) or path


PREFERRED = ("sudoku-nano",)  # there in every precision, and run by every backend


def default_for(task: str) -> str | None:
    """Name of the model that solves ``task`` by default: a preferred, else a shipped, else a pulled one."""
    shipped_first = sorted(names(), key=lambda name: (name not in PREFERRED, not (ZOO / name).is_dir()))
    return next((name for name in shipped_first if card(name).task == task), None)


def card(name: str) -> Card:
    """The card of a model at hand; ``UserError`` where there is no such model."""
    folder = folder_of(name)
    if folder is None:
        raise UserError(f"no model '{name}'", nearest(name, names()))
    return read_card(card_of(folder))


def read_card(path: Path) -> Card:
    """The card in a file; ``UserError`` where it is none."""
    try:
        return Card.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is no model card: {error.errors()[0]['msg']}", _AGAIN) from error


def cards() -> list[dict[str, Any]]:
    """All cards, ready for JSON."""
    return [card(name).model_dump(mode="json") for name in names()]
