"""Records: values with a closed schema that stand in JSON or YAML files, read with one form of error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hrm_edge.errors import UserError
from hrm_edge.files import read_json, write_json


class Record(BaseModel):
    """Immutable value in which an unknown key is an error."""

    # Each is made ready when it is first used: a verb uses few of them, and starts in nine tenths of the time.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    def document(self) -> dict[str, Any]:
        """Return the record as it is written to JSON."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, path: Path | str) -> None:
        """Write the record to a JSON file, atomically."""
        write_json(path, self.document())


Kind = TypeVar("Kind", bound=BaseModel)


def invalid(error: ValidationError, called: Path | str, hint: str) -> UserError:
    """Return the user's view of ``error``: the first field that does not fit the schema; ``called``: what was read."""
    first = error.errors()[0]
    return UserError(": ".join(filter(None, (str(called), ".".join(map(str, first["loc"])), first["msg"]))), hint)


def parse_record(raw: Any, kind: type[Kind], called: Path | str, hint: str) -> Kind:
    """Return ``raw``, from a file, as ``kind``. Raises ``UserError`` with ``hint`` naming the first invalid field."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise invalid(error, called, hint) from error


def read_record(path: Path, kind: type[Kind], version: int | None = None, *, again: str) -> Kind:
    """Read a JSON file as ``kind``; ``version``: the ``schema_version`` it has to have (None: it has none).

    Raises ``UserError`` with the hint ``again`` for another version or an invalid field.
    """
    raw = read_json(path)
    if version is not None:
        check_version(path, raw, version, again)
    return parse_record(raw, kind, path, again)


def check_version(path: Path | str, raw: Any, version: int, again: str) -> None:
    """Raise ``UserError`` unless ``raw``, the JSON of ``path``, has this ``schema_version``."""
    if not isinstance(raw, dict) or "schema_version" not in raw:
        raise UserError(f"{path} was not written by hrm-edge: it has no schema_version", again)
    written = raw["schema_version"]
    if written != version:
        raise UserError(f"{path}: schema_version is {written}, this hrm-edge reads {version}", again)
