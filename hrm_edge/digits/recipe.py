"""The recipe of the digit network: like every recipe closed, and a value is changed with ``--set``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hrm_edge.recipe import MOST, Section


class Fonts(Section):
    """File names without suffix, ``*`` for any text; each pattern has to match an installed font."""

    printed: tuple[str, ...] = Field(min_length=1)
    hand: tuple[str, ...] = Field(min_length=1)


class _DigitsTrain(Section):
    steps: int = Field(default=2500, ge=1, le=MOST, description="optimizer steps")
    sheets: int = Field(default=8, ge=1, le=MOST, description="puzzles of a batch; 81 cells each")
    photo_share: float = Field(
        default=0.3, ge=0, lt=1, description="of the batch, cells of photos, where there are any"
    )
    bf16: bool = Field(default=False, description="convolutions in bfloat16: twice as fast where the CPU has them")
    lr: float = Field(default=3e-3, gt=0, description="peak of one cycle")
    weight_decay: float = Field(default=1e-2, ge=0)
    ema: float = Field(default=0.995, ge=0, lt=1, description="decay of the weight average that is kept")


class DigitsRecipe(Section):
    """One training of the digit network."""

    task: Literal["digits"]
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    fonts: Fonts
    writing: str = Field(default="", description="CSV of handwritten digits: 784 grey values and the digit a row")
    photos: str = Field(default="", description="folder of labelled photos with metadata.csv; empty: renderings only")
    train: _DigitsTrain = _DigitsTrain()
    check_sheets: int = Field(
        default=100, ge=1, le=MOST, description="rendered puzzles of another seed for the final figure"
    )
