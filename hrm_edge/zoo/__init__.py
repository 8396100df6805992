"""Pretrained models by name: those that ship with the package, and those pulled from elsewhere.

A shelf is a folder with an artifact folder NAME and a file NAME.card.json for each model. The package is one, the
user's cache another; ``hrm_edge.zoo.remote`` copies from a third: a folder, a web address or a hub repository.
"""

from __future__ import annotations

import re
from pathlib import Path

from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_json, user_cache
from hrm_edge.manifest import MANIFEST
from hrm_edge.records import Record, parse_record

ZOO = Path(__file__).parent
CARD = ".card.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_AGAIN = "install hrm-edge again, or pull the model again"


class Measured(Record):
    """Exact accuracy on one data set, from the results file of ``hrm-edge eval``."""

    data: str
    puzzles: int
    views: int
    exact_accuracy: float
    interval_95: tuple[float, float]
    false_verified: int
    results: str


class Card(Record):
    """Description of a model: how it was made, its accuracy, and what it fails on."""

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
    """Return the shelf of pulled models, in the user's cache."""
    return user_cache() / "models"


def is_name(name: str) -> bool:
    """Return whether ``name`` may be a model's: letters, digits, dot, dash and underscore, and no dot in front."""
    return bool(_NAME.fullmatch(name))


def names() -> list[str]:
    """Return the names of the local models, shipped and pulled; a folder without a card is an interrupted pull."""
    folders = {path.parent for shelf in (ZOO, pulled()) for path in shelf.glob(f"*/{MANIFEST}")}
    return sorted({folder.name for folder in folders if is_name(folder.name) and card_of(folder).is_file()})


def card_of(folder: Path) -> Path:
    """Return the path of the card that belongs to an artifact folder."""
    return folder.with_name(f"{folder.name}{CARD}")


def folder_of(name: str) -> Path | None:
    """Return the artifact folder of a local model, or None for another ``name``."""
    if name not in names():
        return None
    return next(shelf / name for shelf in (ZOO, pulled()) if (shelf / name / MANIFEST).is_file())


def path_of(name: str) -> Path:
    """Return the file or folder that the user means by ``name``: the one of that path, else the local model.

    An empty folder does not hide a model of its name.
    """
    path = Path(name)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        return path
    return folder_of(name) or path


_PREFERRED = ("sudoku-lattice",)  # solves the most of what ships; the smallest of them too


def default_for(task: str) -> str | None:
    """Return the name of the default model for ``task``: a preferred, else a shipped, else a pulled one."""
    shipped_first = sorted(names(), key=lambda name: (name not in _PREFERRED, not (ZOO / name).is_dir()))
    return next((name for name in shipped_first if card(name).task == task), None)


def card(name: str) -> Card:
    """Return the card of a local model. Raises ``UserError`` where there is no such model."""
    folder = folder_of(name)
    if folder is None:
        raise UserError(f"no model '{name}'", nearest(name, names()))
    return read_card(card_of(folder))


def read_card(path: Path) -> Card:
    """Return the card in a file. Raises ``UserError`` where it is invalid."""
    return parse_record(read_json(path), Card, f"{path} is no model card", _AGAIN)
