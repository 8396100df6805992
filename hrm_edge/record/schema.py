"""The file ``record.json``: which rows a record has, under which settings, on which machine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hrm_edge import __version__
from hrm_edge.device.identity import Device
from hrm_edge.errors import UserError
from hrm_edge.records import Record, parse_record

RECORD_SCHEMA: Literal[1] = 1
KIND: Literal["hrm-edge record"] = "hrm-edge record"
ROW_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,180}"
MOST_ROWS = 500
OWN_PUZZLES = "the package's own puzzles"


class Settings(Record):
    """What is the same for every row; two records with other settings are not compared."""

    quick: bool
    duration_s: float = Field(gt=0, description="measured at least, per row; at least 64 puzzles whatever it is")
    idle_s: float = Field(ge=0, description="at rest before it, where there is a power meter")
    puzzles: str = Field(description="the package's own, or the name of the file of --data")
    lock_clocks: bool = Field(description="the highest clocks were held while a row was measured")


class Row(Record):
    """One model on one backend in one power mode."""

    name: str = Field(pattern=f"^{ROW_NAME}$", description="of its report, rows/NAME.json")
    model: str
    precision: str
    sha256: str = Field(description="of the step's graph")
    backend: str
    power_mode: str | None = Field(description="that was held; null: as the machine was")
    problem: str | None = Field(default=None, description="why it could not be measured; null: it was, or not yet")


class RecordInfo(Record):
    """The file ``record.json``."""

    schema_version: Literal[1] = RECORD_SCHEMA
    kind: Literal["hrm-edge record"] = KIND
    hrm_edge: str = Field(description="version that measured")
    created: str = Field(description="UTC, ISO 8601")
    settings: Settings
    device: Device
    notes: list[str] = Field(description="what was left out, and why")
    rows: list[Row] = Field(max_length=MOST_ROWS)


def parse_about(raw: Any, name: str) -> RecordInfo:
    """Return the record file read as ``raw`` from ``name``. Raises ``UserError`` for another kind or version of it."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind != KIND:
        raise UserError(f"{name} is no record" + (f" but a '{kind}'" if kind else ""), "make one with: hrm-edge record")
    version = raw.get("schema_version")
    if version != RECORD_SCHEMA:
        by = f", of hrm-edge {raw.get('hrm_edge')}" if isinstance(raw.get("hrm_edge"), str) else ""
        raise UserError(
            f"{name}: this record's schema_version is {version}{by}; hrm-edge {__version__} reads "
            f"{RecordInfo.model_fields['schema_version'].default}",
            "use the hrm-edge that made it, or make the record again with this one",
        )
    return parse_record(raw, RecordInfo, name, "it was changed by hand or torn: make it again")
