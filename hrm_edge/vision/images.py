"""Pictures from files and uploads: what is no picture, too large or torn is refused before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, read_bytes
from hrm_edge.vision.formats import FORMATS, READABLE, Header, pictures_of, read_header

Image = NDArray[np.uint8]  # [h, w, 3] BGR
Gray = NDArray[np.uint8]  # [h, w]
Floats = NDArray[np.float32]

_MAX_BYTES = 64 << 20
_MAX_PIXELS = 64_000_000  # above what phones save; decoded it takes 3 bytes a pixel
_UPLOAD_PIXELS = 16_000_000  # of a picture that somebody sends to the page
_MIN_SIDE = 64  # pixels: below, the cells of a grid are too small to hold a digit
_DARKEST, _LIGHT = 0.02, 110  # share of the pixels, and how bright they are where all that is seen is light
_SMALLER = "make it smaller, or send a part of it"


def load_image(path: Path | str, upright: bool = True) -> Image:
    """Load a picture file as BGR uint8 [h, w, 3], turned as its EXIF note says unless ``upright`` is False.

    Raises ``UserError`` naming the file: see :func:`_decode_image`.
    """
    return _decode_image(read_bytes(path, _MAX_BYTES), str(path), upright)


def decode_upload(data: bytes) -> Image:
    """Decode a picture that somebody sent, in at most ``_UPLOAD_PIXELS``: a JPEG of more is read at a half or a quarter
    of its size, as JPEG allows; another picture of more is refused, since a small file may hold it."""
    name = "the upload"
    header = _read_header(data, name)
    width, height = header.size or (0, 0)
    flags = cv2.IMREAD_COLOR
    if width * height > _UPLOAD_PIXELS:
        if header.kind != "jpeg":
            raise UserError(
                f"{name}: the picture has {width}x{height} pixels, more than {_UPLOAD_PIXELS // 10**6} megapixels",
                _SMALLER,
            )
        half = width * height <= 4 * _UPLOAD_PIXELS
        flags = cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_REDUCED_COLOR_4
    return _decode_image(data, name, flags=flags)


def _decode_image(data: bytes, name: str, upright: bool = True, flags: int = cv2.IMREAD_COLOR) -> Image:
    """Decode a JPEG, PNG, WebP, BMP or GIF file to BGR uint8 [h, w, 3]; errors call it ``name``.

    Of an animation it is the first picture; what is transparent becomes paper.

    Raises ``UserError`` for what is no picture, is torn, or has more than ``_MAX_PIXELS`` pixels or less than
    ``_MIN_SIDE`` a side. The size is taken from the header, before anything is decoded. ``flags``: of OpenCV, which
    turns only some kinds of files by their EXIF note.
    """
    if len(data) > _MAX_BYTES:
        raise _too_large(name)
    header = _read_header(data, name)
    if header.size is None:
        raise _torn(name)
    _check_size(*header.size, name)
    if header.transparent:
        flags = cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _torn(name) from error
    if image is None and header.kind == "gif" and _opencv() < (4, 11):
        raise UserError(f"{name}: OpenCV {cv2.__version__} reads no GIF", "save it as PNG, or update OpenCV")
    if image is None:
        raise _torn(name)
    _check_size(image.shape[1], image.shape[0], name)
    image = _on_paper(image)
    return _turned(image, header.orientation) if upright else image


def _turned(image: Image, orientation: int) -> Image:
    """Turn a picture [h, w, 3] as it is meant to be seen, by its EXIF ``orientation`` (TIFF 6.0, tag 274)."""
    if orientation in (5, 6, 7, 8):  # its first row is at the left or the right
        image = np.asarray(cv2.transpose(image), np.uint8)
    flip = {2: 1, 6: 1, 3: -1, 7: -1, 4: 0, 8: 0}.get(orientation)  # in OpenCV: 1 left and right, 0 up and down
    return image if flip is None else np.asarray(cv2.flip(image, flip), np.uint8)


def _opencv() -> tuple[int, ...]:
    return tuple(int(part) for part in cv2.__version__.split(".")[:2])


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > _MAX_PIXELS:
        raise UserError(
            f"{name}: the picture has {width}x{height} pixels, more than {_MAX_PIXELS // 10**6} megapixels", _SMALLER
        )
    if min(width, height) < _MIN_SIDE:
        raise UserError(
            f"{name}: the picture has {width}x{height} pixels, too small to hold a puzzle",
            f"take one of at least {_MIN_SIDE} pixels a side",
        )


def _too_large(name: str) -> UserError:
    return UserError(f"{name}: the file is larger than {_MAX_BYTES >> 20} MiB", _SMALLER)


def _torn(name: str) -> UserError:
    return UserError(f"{name}: the picture is damaged or cut off", "copy or take it again")


def _read_header(data: bytes, name: str) -> Header:
    """Return what the header says; ``UserError`` where it is no picture that is read."""
    header = read_header(data)
    if header is None:
        raise UserError(f"{name} is no picture", f"give a {READABLE} file")
    if header.kind == "heif":
        raise UserError(
            f"{name}: HEIC and AVIF pictures cannot be read",
            "save it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)",
        )
    return header


def _on_paper(image: NDArray[Any]) -> Image:
    """Convert a decoded picture [h, w, 1 to 4] of any depth to BGR uint8: transparent places become paper.

    Paper is white, or black where everything that can be seen is light: it was made for a dark page.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    if image.shape[2] < 4:
        return np.asarray(image, np.uint8)
    color, alpha = image[..., :3], image[..., 3:]
    seen = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)[alpha[..., 0] > 127]
    paper = 0.0 if seen.size and np.quantile(seen, _DARKEST) > _LIGHT else 255.0
    share = alpha.astype(np.float32) / 255
    return np.asarray(color * share + paper * (1 - share) + 0.5, np.uint8)


def save_image(image: Image, path: Path) -> None:
    """Write a BGR picture in the format that the ending of ``path`` names, JPEG where it names none; whole or not.

    Raises ``UserError`` where this OpenCV cannot write that format.
    """
    ending = FORMATS.get(path.suffix.lower(), ".jpg")
    try:
        done, data = cv2.imencode(ending, image)
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"{path}: OpenCV {cv2.__version__} cannot write {ending[1:].upper()}", "end it in .png or .jpg")
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def image_files(folder: Path) -> list[Path]:
    """List the pictures of a folder by name; ``UserError`` where it holds none."""
    paths = pictures_of(folder)
    if not paths:
        raise UserError(f"{folder} holds no pictures", f"put {READABLE} files in it")
    return paths
