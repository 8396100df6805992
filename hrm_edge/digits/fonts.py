"""Digits of the fonts that are installed, as masks."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrm_edge.errors import UserError

FOLDERS = tuple(
    Path(folder).expanduser()
    for folder in ("/usr/share/fonts", "/usr/share/texmf/fonts", "/usr/local/share/fonts", "~/.local/share/fonts")
)
_SUFFIXES = (".ttf", ".otf")
HEIGHT = 72  # pixels of the tallest digit of a font
_PACKAGES = (
    "fonts-liberation fonts-freefont-ttf fonts-urw-base35 fonts-texgyre fonts-lato fonts-roboto fonts-noto-core "
    "fonts-open-sans fonts-linuxlibertine fonts-crosextra-carlito fonts-crosextra-caladea fonts-cmu fonts-hack "
    "fonts-dejavu-core fonts-dancingscript fonts-humor-sans fonts-breip fonts-bwht fonts-sjfonts "
    "fonts-comic-neue fonts-tomsontalks fonts-yusei-magic fonts-kristi fonts-tlwg-purisa-otf fonts-rufscript "
    "fonts-dkg-handwriting fonts-yozvox-yozfont fonts-yozvox-yozfont-cute fonts-seto"
)

Mask = NDArray[np.uint8]  # [h, w], 255 is ink


@dataclass(frozen=True, eq=False)
class Font:
    """The digits 1 to 9 of a font file."""

    name: str
    masks: tuple[Mask, ...]
    """Nine masks, trimmed; the tallest is about ``HEIGHT`` pixels high."""


def find_fonts(
    patterns: Sequence[str],
) -> list[Font]:
    """Return the installed fonts whose file name (without suffix) matches a pattern, by name.

    Raises ``UserError`` naming the patterns that nothing matches.
    """
    files = {path.stem: path for folder in FOLDERS for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES}
    missing = [pattern for pattern in patterns if not fnmatch.filter(files, pattern)]
    if missing:
        raise UserError(
            f"no installed font matches {', '.join(missing)}",
            f"apt-get install {_PACKAGES}, or change the recipe's fonts",
        )
    chosen = sorted({name for pattern in patterns for name in fnmatch.filter(files, pattern)})
    return [_load_font(files[name]) for name in chosen]


def _load_font(path: Path) -> Font:
    """Render the digits of a font file."""
    try:
        font = ImageFont.truetype(str(path), 2 * HEIGHT)
    except OSError as error:
        raise UserError(f"{path}: not a font that can be read", "leave it out of the recipe's fonts") from error
    masks = [_mask(font, str(digit)) for digit in range(1, 10)]
    tallest = max(mask.height for mask in masks)
    scale = HEIGHT / tallest
    sized = [
        mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))), Image.Resampling.BOX)
        for mask in masks
    ]
    return Font(path.stem, tuple(np.asarray(mask, np.uint8) for mask in sized))


def _mask(font: ImageFont.FreeTypeFont, text: str) -> Image.Image:
    canvas = Image.new("L", (6 * HEIGHT, 6 * HEIGHT))
    ImageDraw.Draw(canvas).text((2 * HEIGHT, HEIGHT), text, font=font, fill=255)
    box = canvas.getbbox()
    if box is None:
        raise UserError(f"font {font.getname()[0]} has no digit {text}", "leave it out of the recipe's fonts")
    return canvas.crop(box)
