"""The recipes that ship with the package, by name, and what the comment on top of each says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.errors import UserError, nearest

_PACKAGE = Path(__file__).parent
# A wheel has the folder inside the package; a checkout has it beside the package.
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
SUFFIXES = (".yaml", ".yml")
_FIELD = re.compile(r"([A-Z][a-z]+): +(.*)")


@dataclass(frozen=True)
class Entry:
    """What the comment on top of a recipe says. A field that it lacks is empty."""

    name: str
    summary: str
    command: str = ""
    data: str = ""
    hardware: str = ""
    time: str = ""
    accuracy: str = ""


def names() -> list[str]:
    """Return the names of the shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find(name: str | Path) -> Path:
    """Return the file that ``name`` means: that path where it is one, else the shipped recipe of that name.

    Raises ``UserError`` with the nearest name where it is neither.
    """
    path, text = Path(name), str(name)
    if path.exists() and not path.is_dir():
        return path
    if text in names():
        return RECIPES / f"{text}.yaml"
    if path.is_dir():
        raise UserError(f"{name} is a folder", "a recipe is a YAML file, or a name that 'hrm-edge recipes' lists")
    if path.suffix in SUFFIXES or "/" in text:
        shipped = f"; as a shipped recipe it is called {path.stem}" if path.stem in names() else ""
        raise UserError(f"{name}: No such file or directory", f"check the path{shipped}")
    raise UserError(f"no recipe '{name}'", f"{nearest(text, names())} 'hrm-edge recipes' lists them")


def read_entry(path: Path) -> Entry:
    """Read the comment on top of a recipe: a summary, then lines ``Field: text``, continued by indented ones."""
    summary: list[str] = []
    fields: dict[str, list[str]] = {}
    current: list[str] | None = summary
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line[1:].removeprefix(" ")
        if match := _FIELD.fullmatch(text):
            current = fields.setdefault(match[1].lower(), [])
            text = match[2]
        elif fields and not text.startswith(" "):
            current = None  # a remark between the fields
        if current is not None:
            current.append(text.strip())
    kept = {name: " ".join(lines) for name, lines in fields.items() if name in Entry.__dataclass_fields__}
    return Entry(path.stem, " ".join(summary), **kept)


def entries() -> list[Entry]:
    """Return what is said of every shipped recipe."""
    return [read_entry(find(name)) for name in names()]
