"""A finding: what is wrong, how bad it is, and the command that mends it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["fail", "warn", "note"]
LEVELS: tuple[Level, ...] = ("fail", "warn", "note")  # worst first


class Finding(BaseModel):
    """``fail``: the default road does not work, or no engine can run on a Jetson whose TensorRT loads. ``warn``:
    something people expect here does not, or figures will be off. ``note``: good to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    name: str = Field(description="stable, for programs")
    what: str
    mend: str = Field(description="a command where one mends it, else what to do")


def fail(name: str, what: str, mend: str) -> Finding:
    return Finding(level="fail", name=name, what=what, mend=mend)


def warn(name: str, what: str, mend: str) -> Finding:
    return Finding(level="warn", name=name, what=what, mend=mend)


def note(name: str, what: str, mend: str) -> Finding:
    return Finding(level="note", name=name, what=what, mend=mend)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """By level; within a level in the order in which they were found."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
