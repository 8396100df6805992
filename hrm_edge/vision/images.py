"""Pictures from files and uploads: what is no picture, too large or torn is refused before it costs anything."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, os_error

Image = NDArray[np.uint8]  # [h, w, 3] BGR

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000  # above what phones save; decoded it takes 3 bytes a pixel
UPLOAD_PIXELS = 16_000_000  # of a picture that somebody sends to the page
MIN_SIDE = 64  # pixels: below, the cells of a grid are too small to hold a digit
_JPEG = b"\xff\xd8"
_SMALLER = "make it smaller, or send a part of it"


def load_image(path: Path | str, upright: bool = True) -> Image:
    """A picture file as BGR uint8 [h, w, 3], turned as its EXIF note says unless ``upright`` is False.

    Raises ``UserError`` naming the file: see :func:`decode_image`.
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:  # before it is read
            raise _too_large(str(path))
        data = path.read_bytes()
    except OSError as error:
        raise os_error(error, path) from error
    return decode_image(data, str(path), upright)


def decode_upload(data: bytes) -> Image:
    """Decode a picture that somebody sent, in at most ``UPLOAD_PIXELS``: a JPEG of more is read at a half or a quarter
    of its size, as JPEG allows; another picture of more is refused, since a small file may hold it."""
    name = "the upload"
    width, height = _header_size(data, name) or (0, 0)
    flags = cv2.IMREAD_COLOR
    if width * height > UPLOAD_PIXELS:
        if data[:2] != _JPEG:
            raise UserError(
                f"{name}: the picture has {width}x{height} pixels, more than {UPLOAD_PIXELS // 10**6} megapixels",
                _SMALLER,
            )
        half = width * height <= 4 * UPLOAD_PIXELS
        flags = cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_REDUCED_COLOR_4
    return _decode(data, name, flags)


def decode_image(data: bytes, name: str, upright: bool = True) -> Image:
    """The bytes of a JPEG, PNG, WebP or BMP file as BGR uint8 [h, w, 3]; ``name`` is what errors call it.

    Raises ``UserError`` for what is no picture, is torn, or has more than ``MAX_PIXELS`` pixels or less than
    ``MIN_SIDE`` a side. The size is taken from the header, before anything is decoded.
    """
    return _decode(data, name, cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))


def _decode(data: bytes, name: str, flags: int) -> Image:
    """See :func:`decode_image`; ``flags`` of OpenCV."""
    if len(data) > MAX_BYTES:
        raise _too_large(name)
    size = _header_size(data, name)
    if size is None:
        raise _torn(name)
    _check_size(*size, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _torn(name) from error
    if image is None:
        raise _torn(name)
    _check_size(image.shape[1], image.shape[0], name)
    return np.asarray(image, np.uint8)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name}: the picture has {width}x{height} pixels, more than {MAX_PIXELS // 10**6} megapixels", _SMALLER
        )
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"{name}: the picture has {width}x{height} pixels, too small to hold a puzzle",
            f"take one of at least {MIN_SIDE} pixels a side",
        )


def _too_large(name: str) -> UserError:
    return UserError(f"{name}: the file is larger than {MAX_BYTES >> 20} MiB", _SMALLER)


def _torn(name: str) -> UserError:
    return UserError(f"{name}: the picture is damaged or cut off", "copy or take it again")


def _header_size(data: bytes, name: str) -> tuple[int, int] | None:
    """(width, height) by the file's header; None where it is cut off; ``UserError`` where it is no picture we read."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return struct.unpack(">II", data[16:24])
        if data[:2] == _JPEG:
            return _jpeg_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:2] == b"BM" and len(data) >= 26:
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
    except (struct.error, IndexError):
        return None
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"heif", b"avif"):
        raise UserError(
            f"{name}: HEIC and AVIF pictures cannot be read",
            "save it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)",
        )
    raise UserError(f"{name} is no picture", "give a JPEG, PNG, WebP or BMP file")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        else:
            at += 2 + max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def save_image(image: Image, path: Path) -> None:
    """Write a BGR picture, as PNG where ``path`` ends in .png, else as JPEG; whole or not at all."""
    _, data = cv2.imencode(".png" if path.suffix.lower() == ".png" else ".jpg", image)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder by name; ``UserError`` where it holds none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{folder} holds no pictures", f"put files in it that end in {', '.join(SUFFIXES)}")
    return found
