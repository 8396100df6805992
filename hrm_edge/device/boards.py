"""Known boards as data: peak rates for the roofline, and power modes."""

from __future__ import annotations

import functools
from pathlib import Path

from hrm_edge.files import read_json
from hrm_edge.records import Record

_BOARDS_FILE = Path(__file__).with_name("boards.json")


class Board(Record):
    """Board in its highest power mode; the rates are for dense operations."""

    name: str
    parts: list[str]
    """Part numbers of the module, which identify it."""
    match: list[str]
    """Words that a board's name contains, for boards without a part number. Empty: no name identifies this one."""
    super: bool = False
    """Whether the module has the clocks of NVIDIA's Super mode."""
    sm: int
    """Compute capability, without its point."""
    sms: int
    """Number of streaming multiprocessors."""
    gpu_mhz: int
    dram_gb_s: float
    int8_tops: float
    fp16_tflops: float
    power_modes: list[str]

    def peak_ops(self, precision: str) -> float:
        """Return the operations per second of the tensor cores; fp32 runs on them as TF32, at half the rate of fp16."""
        return {"int8": self.int8_tops, "fp16": self.fp16_tflops}.get(precision, self.fp16_tflops / 2) * 1e12


class _Table(Record):
    about: str
    boards: dict[str, Board]


@functools.cache
def boards() -> dict[str, Board]:
    """Return all boards by key; read once per process, not to be changed."""
    return _Table.model_validate(read_json(_BOARDS_FILE)).boards


def board_of(name: str | None, part: str | None = None, *, is_super: bool = False) -> str | None:
    """Return the key of a board by its module's ``part`` number or, without one, by the ``name`` of device or GPU.

    ``is_super``: the device tree says that the module runs in Super mode. None where no board in the table matches.
    """
    if part is not None:
        matching = [key for key, board in boards().items() if part in board.parts and (is_super or not board.super)]
        return max(matching, key=lambda key: boards()[key].super, default=None)
    matching = [k for k, b in boards().items() if name and b.match and all(word in name for word in b.match)]
    return max(matching, key=lambda key: len(boards()[key].match), default=None)
