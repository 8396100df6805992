"""Benchmark protocols as YAML files: the settings that two reports must share to be comparable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hrm_edge.bench.scenarios import BenchOptions
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_yaml, sha256
from hrm_edge.records import Record
from hrm_edge.report.schema import Protocol, Scenario


class _ProtocolFile(Record):
    """One file of ``benchmarks/protocols``."""

    name: str
    about: str
    scenario: Scenario
    duration: float = Field(gt=0, description="seconds at least")
    idle: float = Field(default=10.0, ge=0, description="seconds at rest before it, for the net energy")
    fps: float = Field(default=30.0, gt=0, description="camera: frames per second")
    views: int = Field(default=1, ge=1)
    halt: Literal["rules", "head", "fixed"] = "rules"
    max_steps: int | None = Field(default=None, ge=1)
    slots: int | None = Field(default=None, ge=1)
    seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    strict: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the settings by the names of the command line's options."""
        return self.model_dump(exclude={"name", "about"})


def read_protocol(path: Path | str) -> tuple[_ProtocolFile, str]:
    """Return the protocol in a YAML file and the file's sha256. Raises ``UserError`` naming the key that is wrong."""
    raw = read_yaml(path, "correct the line that is named")
    try:
        return _ProtocolFile.model_validate(raw), sha256(path)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        hint = (
            nearest(key, _ProtocolFile.model_fields)
            if first["type"] == "extra_forbidden"
            else "see benchmarks/protocols"
        )
        raise UserError(f"{path}: {key}: {first['msg']}", hint) from error


def under_protocol(options: BenchOptions, given: Collection[str], path: str) -> tuple[BenchOptions, Protocol]:
    """Return the protocol's settings, except for the options in ``given``; what these change is kept in the report."""
    file, digest = read_protocol(path)
    changed: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in file.settings().items():
        field = name if hasattr(options, name) else f"{name}_s"
        if field in given and getattr(options, field) != value:
            changed[name] = getattr(options, field)
        else:
            settings[field] = value
    return replace(options, **settings), Protocol(name=file.name, sha256=digest, changed=changed)
