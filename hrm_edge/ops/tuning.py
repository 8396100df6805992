"""Tile sizes of the fused kernel: a table per GPU architecture, as data in a file next to this one.

``tuning.json`` holds per SM a list of rows, each a condition (``dtype``, ``head_dim``, ``max_length``,
``max_sequences`` = batch * heads; null: any) and a configuration; the first row that fits decides. ``measured`` says
whether ``scripts/autotune.py`` wrote an SM's rows on such a GPU or they are the defaults. ``80`` is the base: its PTX
serves every architecture that has no rows of its own.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.errors import UserError

TABLE = Path(__file__).with_name("tuning.json")
BASE_SM = 80
# Ampere RTX, Orin, Ada, Hopper, Blackwell, Thor (10.1 before CUDA 13), Blackwell RTX; others run the base.
SMS = (86, 87, 89, 90, 100, 110, 120)


@dataclass(frozen=True)
class Config:
    """Tile sizes of queries and keys, warps per program, and depth of the pipeline of loads."""

    block_m: int
    block_n: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"m{self.block_m}n{self.block_n}w{self.warps}s{self.stages}"


@dataclass(frozen=True)
class Row:
    """A configuration and when it holds; None: always."""

    config: Config
    dtype: str | None = None
    head_dim: int | None = None
    max_length: int | None = None
    max_sequences: int | None = None

    def serves(self, dtype: str, head_dim: int) -> bool:
        return self.dtype in (None, dtype) and self.head_dim in (None, head_dim)

    def fits(self, dtype: str, head_dim: int, length: int, sequences: int) -> bool:
        return (
            self.serves(dtype, head_dim)
            and (self.max_length is None or length <= self.max_length)
            and (self.max_sequences is None or sequences <= self.max_sequences)
        )


@dataclass(frozen=True)
class SmTable:
    """Rows of one architecture in the order they are tried, and where they come from."""

    measured: bool
    source: str
    rows: tuple[Row, ...]


@functools.cache
def read_table(path: Path = TABLE) -> dict[int, SmTable]:
    """Read SM → rows. Raises ``UserError`` where a file is no such table."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {int(sm): _sm_table(table) for sm, table in raw["sm"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a tuning table: {error}", "write it with scripts/autotune.py") from error


def _sm_table(raw: dict) -> SmTable:
    rows = []
    for row in raw["rows"]:
        config = Config(*(int(row[key]) for key in ("block_m", "block_n", "warps", "stages")))
        rows.append(Row(config, *(row[key] for key in ("dtype", "head_dim", "max_length", "max_sequences"))))
    return SmTable(bool(raw["measured"]), str(raw["source"]), tuple(rows))


@functools.lru_cache(maxsize=1024)
def choose(sm: int, dtype: str, head_dim: int, length: int, sequences: int, path: Path = TABLE) -> Config:
    """Return the configuration for a call on architecture ``sm`` (90 for 9.0); one without rows takes the base's."""
    table = read_table(path)
    for row in table.get(sm, table[BASE_SM]).rows:
        if row.fits(dtype, head_dim, length, sequences):
            return row.config
    raise UserError(
        f"{path.name}: no row for sm_{sm}, {dtype}, head size {head_dim}, length {length}",
        "its last row per type should have no limits; write the table with scripts/autotune.py",
    )
