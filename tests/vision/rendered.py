"""Photos of puzzles that the tests make themselves: a sheet drawn and photographed by program, with the truth known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.digits.camera import photograph
from hrm_edge.digits.fonts import Font, Mask
from hrm_edge.digits.sheet import Content, draw_sheet
from hrm_edge.tasks.sudoku import Sudoku

NINE = Sudoku(3, 3)
# Norvig's first easy puzzles
PUZZLES = (
    "003020600900305001001806400008102900700000008006708200002609500800203009005010300",
    "200080300060070084030500209000105408000000000402706000301007040720040060004010003",
)
# of photos that a person reads at a glance: shadow, bent paper, noise, blur, thick and thin lines
SEEDS = (9, 8, 19, 12, 4, 21, 14, 0, 6, 2)


def drawn_font(thickness: int = 7) -> Font:
    """Digits of OpenCV's own strokes: no font has to be installed."""
    masks: list[Mask] = []
    for digit in range(1, 10):
        canvas = np.zeros((110, 110), np.uint8)
        cv2.putText(canvas, str(digit), (20, 90), cv2.FONT_HERSHEY_SIMPLEX, 3.2, 255, thickness, cv2.LINE_AA)
        rows, columns = np.nonzero(canvas)
        masks.append(canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    return Font("drawn", tuple(masks))


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture, where its lines truly cross [10, 10, 2], and its digits [81]."""

    image: NDArray[np.uint8]
    mesh: NDArray[np.float32]
    labels: NDArray[np.uint8]


def photo(seed: int, cell: float = 30.0, puzzle: str = PUZZLES[0], turn: int = 0) -> Photo:
    """A photo of ``puzzle`` with about ``cell`` pixels a cell on a grey table, turned clockwise by ``turn`` degrees."""
    rng = np.random.default_rng(seed)
    labels = np.array([int(c) for c in puzzle], np.uint8)
    sheet = draw_sheet(rng, [drawn_font(int(rng.integers(5, 12)))], [drawn_font()], Content(labels))
    gray, mesh = photograph(rng, sheet, cell)
    steps = turn // 90
    turned = np.rot90(gray, -steps)
    height, width = turned.shape
    for _ in range(steps):  # a quarter clockwise takes (x, y) to (h - 1 - y, x)
        mesh = np.stack([gray.shape[0] - 1 - mesh[..., 1], mesh[..., 0]], axis=-1)
    table = np.full((height + 60, width + 90), 70, np.uint8)
    table[20 : 20 + height, 50 : 50 + width] = turned
    return Photo(cv2.cvtColor(table, cv2.COLOR_GRAY2BGR), mesh + np.float32([50, 20]), labels)
