"""Kind, size and transparency of a picture file by its header; nothing is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

# endings that pictures have, with the format that is written under them
FORMATS = {
    ".jpg": ".jpg", ".jpeg": ".jpg", ".jfif": ".jpg", ".png": ".png", ".webp": ".webp", ".bmp": ".bmp", ".gif": ".gif",
}  # fmt: skip
# what people call a picture, also where it cannot be read: the decoder says so
SUFFIXES = frozenset(FORMATS) | {".heic", ".heif", ".avif", ".tif", ".tiff"}
READABLE = "JPEG, PNG, WebP, BMP or GIF"
_HEADER = 64  # bytes that tell the kind
_HEIF = (b"heic", b"heix", b"mif1", b"heif", b"avif")


@dataclass(frozen=True)
class Header:
    """Header of a picture file."""

    kind: str
    """"jpeg", "png", "webp", "bmp", "gif", or "heif", which is not read."""
    size: tuple[int, int] | None
    """Width and height in pixels; None where the header is cut off, and for HEIF."""
    transparent: bool = False
    """Whether pixels may be transparent."""


def picture_kind(data: bytes) -> str | None:
    """Return the kind of picture that ``data`` begins, as in :class:`Header`; None: it is no picture."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:2] == b"\xff\xd8":
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:2] == b"BM" and len(data) >= 26 and data[6:10] == b"\0\0\0\0":
        return "bmp"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        return "heif"
    return None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its first bytes; False where it is none that can be opened."""
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            return picture_kind(stream.read(_HEADER)) is not None
    except OSError:
        return False


def pictures_of(folder: Path) -> list[Path]:
    """Return files of a folder that are pictures by their ending or their content, by name; hidden files are none."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.is_file() and (path.suffix.lower() in SUFFIXES or is_picture(path))
    )


def read_header(data: bytes) -> Header | None:
    """Read a picture file's header; None where ``data`` is no picture."""
    kind = picture_kind(data)
    if kind is None:
        return None
    try:
        if kind == "png":
            return _png(data)
        if kind == "jpeg":
            return Header(kind, _jpeg_size(data))
        if kind == "webp":
            return _webp(data)
        if kind == "gif":
            return Header(kind, struct.unpack("<HH", data[6:10]), True)
        if kind == "bmp":
            width, height = struct.unpack("<ii", data[18:26])
            return Header(kind, (abs(width), abs(height)))
    except (struct.error, IndexError):
        pass
    return Header(kind, None)


def _png(data: bytes) -> Header:
    size = struct.unpack(">II", data[16:24])
    return Header("png", size, data[25] in (4, 6) or b"tRNS" in data[: max(0, data.find(b"IDAT"))])


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


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X":
        size = (1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))
        return Header("webp", size, bool(data[20] & 0x10))
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return Header("webp", (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("webp", (width & 0x3FFF, height & 0x3FFF))
    return Header("webp", None)
