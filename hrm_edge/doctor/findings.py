"""A finding: what is wrong, how bad it is, and the command that fixes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hrm_edge.records import Record

Level = Literal["fail", "warn", "note"]
LEVELS: tuple[Level, ...] = ("fail", "warn", "note")  # worst first


class Finding(Record):
    """``fail``: the default pipeline does not work, or no engine can run on a Jetson whose TensorRT loads. ``warn``:
    something people expect here does not, or figures will be off. ``note``: good to know."""

    level: Level
    name: str = Field(description="stable, for programs")
    problem: str = Field(alias="what")
    hint: str = Field(alias="mend", description="a command that fixes it where there is one, else what to do")


def fail(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="fail", name=name, problem=problem, hint=hint)


def warn(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="warn", name=name, problem=problem, hint=hint)


def note(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="note", name=name, problem=problem, hint=hint)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sort by level; within a level in the order of their appearance."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
