"""Pictures of the kinds that people show, drawn here: apps, odd frames, small digits, entries, bent paper."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Color = tuple[int, int, int]  # BGR

PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX
# paper, digits, lines
SCHEMES: dict[str, tuple[Color, Color, Color]] = {
    "black": (BLACK, WHITE, WHITE),
    "grey": ((40, 40, 40), (220, 220, 220), (90, 90, 90)),
    "navy": ((60, 30, 15), (240, 230, 220), (140, 110, 90)),
    "green": ((20, 50, 20), (200, 255, 200), (80, 140, 80)),
    "amber": (BLACK, (0, 180, 255), (50, 50, 50)),
}


def draw(
    cell: int = 42, margin: int = 30, thin: int = 1, thick: int = 3, paper: Color = WHITE, ink: Color = BLACK,
    lines: Color | None = None, frame: bool = True, height: float = 0.6, tiles: dict[int, Color] | None = None,
    inks: dict[int, Color] | None = None, entries: dict[int, tuple[int, Color]] | None = None,
) -> Image:  # fmt: skip
    """``PUZZLE`` as a program shows it. ``height``: of the digits, in cells; ``tiles``, ``inks``: colours of cells;
    ``entries``: cell → (digit, colour) that a player put in.
    """
    size = 9 * cell
    image = np.full((size + 2 * margin, size + 2 * margin, 3), paper, np.uint8)
    for at, color in (tiles or {}).items():
        y, x = margin + at // 9 * cell, margin + at % 9 * cell
        image[y : y + cell, x : x + cell] = color
    low, high = max(0, margin - thick // 2), margin + size + (thick + 1) // 2
    for line in range(10):
        if not frame and line in (0, 9):
            continue
        width = thick if line % 3 == 0 else thin
        start = margin + line * cell - width // 2
        image[max(0, start) : start + width, low:high] = lines or ink
        image[low:high, max(0, start) : start + width] = lines or ink
    digits = {at: (int(digit), (inks or {}).get(at, ink)) for at, digit in enumerate(PUZZLE) if digit != "0"}
    scale = height * cell / 22  # of OpenCV's strokes, whose digits are 22 pixels high
    weight = max(1, round(2 * scale))
    for at, (digit, color) in {**digits, **(entries or {})}.items():
        (wide, high_), _ = cv2.getTextSize(str(digit), FONT, scale, weight)
        x, y = margin + at % 9 * cell + (cell - wide) // 2, margin + at // 9 * cell + (cell + high_) // 2
        cv2.putText(image, str(digit), (x, y), FONT, scale, color, weight, cv2.LINE_AA)
    return image


def scheme(name: str) -> Image:
    """Light on dark."""
    paper, ink, lines = SCHEMES[name]
    return draw(paper=paper, ink=ink, lines=lines)


def cropped(image: Image, share: float, margin: int = 60) -> Image:
    """A picture drawn with ``margin`` cut to that share of the grid's side around the outer line."""
    side = image.shape[0] - 2 * margin
    edge = margin - 1 - round(share * side)
    return np.ascontiguousarray(image[edge : image.shape[0] - edge, edge : image.shape[1] - edge])


def transparent(ink: Color) -> NDArray[np.uint8]:
    """The ink alone [h, w, 4]: everything else is transparent, and black underneath."""
    coverage = 255 - cv2.cvtColor(draw(), cv2.COLOR_BGR2GRAY)
    color = np.where(coverage[..., None] > 0, np.array(ink, np.uint8), 0)
    return np.concatenate([color, coverage[..., None]], axis=2).astype(np.uint8)


def boxes(one: Color, other: Color) -> dict[int, Color]:
    """Tiles of two brightnesses, by box."""
    return {at: one if (at // 27 + at % 9 // 3) % 2 else other for at in range(81)}


def highlighted() -> dict[int, Color]:
    """A chosen cell with its row and column, as apps show it; cell 30 is dark."""
    tiles = {at: (250, 220, 190) for at in range(81) if at // 9 == 4 or at % 9 == 4}
    return {**tiles, 40: (230, 160, 90), 30: (160, 80, 20)}


def played(slips: dict[int, Color], color: Color = (200, 80, 20)) -> Image:
    """Every second blank filled in by a player; ``slips``: cell → colour of a wrong entry."""
    entries = {at: (int(ANSWER[at]), color) for at in range(0, 81, 2) if PUZZLE[at] == "0"}
    entries |= {at: (int(ANSWER[at]) % 9 + 1, slip) for at, slip in slips.items()}
    return draw(entries=entries)


def bent(image: Image, bulge: float, tilt: float) -> Image:
    """A page that bulges towards the camera, seen from below by ``tilt`` degrees, on a grey table."""
    size, angle, distance = 640, np.radians(tilt), 3.2
    across, down = np.meshgrid(*(2 * [np.linspace(-0.42, 0.42, size)]))
    depth = np.full_like(across, distance)
    for _ in range(30):  # each pixel's ray meets the page where both agree on how far it is
        x = across * depth
        z = bulge * np.cos(np.pi * np.clip(x, -2, 2) / 2)
        y = (down * depth + z * np.sin(angle)) / np.cos(angle)
        depth = distance - (y * np.sin(angle) + z * np.cos(angle))
    place = (np.stack([x, y], axis=-1) + 1) / 2 * (np.array(image.shape[1::-1]) - 1)
    return np.asarray(
        cv2.remap(image, place.astype(np.float32), None, cv2.INTER_LINEAR, borderValue=(120, 120, 120)), np.uint8
    )
