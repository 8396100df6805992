"""Boards we know, as data: peak rates for the roofline and power modes."""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hrm_edge.files import read_json

BOARDS_FILE = Path(__file__).with_name("boards.json")


class Board(BaseModel):
    """One board at its highest power mode; rates are dense."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    match: list[str]
    """Words that a device tree's model line has, all of them."""
    sm: int
    sms: int
    gpu_mhz: int
    dram_gb_s: float
    int8_tops: float
    fp16_tflops: float
    power_modes: list[str]

    def peak_ops(self, precision: str) -> float:
        """Operations per second of the tensor cores; fp32 runs as TF32 there, at half the rate of fp16."""
        return {"int8": self.int8_tops, "fp16": self.fp16_tflops}.get(precision, self.fp16_tflops / 2) * 1e12


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    boards: dict[str, Board]


@functools.cache
def _table() -> _Table:
    return _Table.model_validate(read_json(BOARDS_FILE))


def boards() -> dict[str, Board]:
    """All boards by key."""
    return dict(_table().boards)


def board_of(machine: str | None) -> str | None:
    """Key of the board that a device tree's or a GPU's name means, the one with most matching words first."""
    found = [key for key, board in boards().items() if machine and all(word in machine for word in board.match)]
    return max(found, key=lambda key: len(boards()[key].match), default=None)
