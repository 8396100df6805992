"""Kind, size, transparency and turn of a picture file by its header; nothing is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
_MOST_PARTS = 100_000  # of a file, looked through for its EXIF note: a PNG of 64 MiB has some 8,000
_ORIENTATION, _SHORT = 0x0112, 3  # tag and type in TIFF 6.0, which EXIF is written in


@dataclass(frozen=True)
class Header:
    """Header of a picture file."""

    kind: str
    """"jpeg", "png", "webp", "bmp", "gif", or "heif", which is not read."""
    size: tuple[int, int] | None
    """Width and height in pixels; None where the header is cut off, and for HEIF."""
    transparent: bool = False
    """Whether pixels may be transparent."""
    orientation: int = 1
    """1 to 8: how the picture lies, by its EXIF note (TIFF 6.0, tag 274); 1 is upright."""


def _picture_kind(data: bytes) -> str | None:
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
    """Return whether a file is a picture by its first bytes; False where it is none that can be opened."""
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            return _picture_kind(stream.read(_HEADER)) is not None
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
    kind = _picture_kind(data)
    if kind is None:
        return None
    try:
        if kind == "png":
            header = _png(data)
        elif kind == "jpeg":
            header = Header(kind, _jpeg_size(data))
        elif kind == "webp":
            header = _webp(data)
        elif kind == "gif":
            header = Header(kind, struct.unpack("<HH", data[6:10]), True)
        elif kind == "bmp":
            width, height = struct.unpack("<ii", data[18:26])
            header = Header(kind, (abs(width), abs(height)))
        else:
            return Header(kind, None)
    except (struct.error, IndexError):
        return Header(kind, None)
    return replace(header, orientation=_orientation(data, kind))


def _orientation(data: bytes, kind: str) -> int:
    """Read the orientation of the first EXIF note of a JPEG, PNG or WebP file; 1 where none says another."""
    if kind not in ("jpeg", "png", "webp"):
        return 1
    try:
        for name, start, size in _jpeg_parts(data) if kind == "jpeg" else _chunks(data, kind):
            if name in (b"\xff\xe1", b"eXIf", b"EXIF"):
                note = data[start : start + size]
                if note[:6] == b"Exif\0\0":
                    note = note[6:]
                elif kind == "jpeg":  # another note of that name, e.g. XMP
                    continue
                return _tiff_orientation(note)
    except struct.error:  # cut off
        pass
    return 1


def _tiff_orientation(note: bytes) -> int:
    """Read the orientation in an EXIF note: a TIFF header, then a table of (tag, type, count, value), 12 bytes each."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(note[:4])
    if order is None:
        return 1
    (table,) = struct.unpack_from(order + "I", note, 4)
    (entries,) = struct.unpack_from(order + "H", note, table)
    for entry in range(entries):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", note, table + 2 + 12 * entry)
        if (tag, kind) == (_ORIENTATION, _SHORT):
            return int(value) if 1 <= value <= 8 else 1
    return 1


_Part = tuple[bytes, int, int]  # name, where its content begins, bytes of that


def _jpeg_parts(data: bytes) -> Iterator[_Part]:
    """List the segments of a JPEG file, up to where its pixels begin."""
    at = 2
    for _ in range(_MOST_PARTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == 0xDA:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no length
            at += 2
        else:
            size = max(2, struct.unpack_from(">H", data, at + 2)[0])
            yield data[at : at + 2], at + 4, size - 2
            at += 2 + size


def _chunks(data: bytes, kind: str) -> Iterator[_Part]:
    """List the chunks of a PNG file, each with a checksum behind it, or of a WebP file, each of an even size."""
    at = 8 if kind == "png" else 12
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            return
        if kind == "png":
            size, name = struct.unpack_from(">I4s", data, at)
            behind = 4
        else:
            name, size = struct.unpack_from("<4sI", data, at)
            behind = size % 2
        yield name, at + 8, size
        at += 8 + size + behind


def _png(data: bytes) -> Header:
    size = struct.unpack(">II", data[16:24])
    return Header("png", size, data[25] in (4, 6) or b"tRNS" in data[: max(0, data.find(b"IDAT"))])


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for name, start, _ in _jpeg_parts(data):
        if 0xC0 <= name[1] <= 0xCF and name[1] not in (0xC4, 0xC8, 0xCC) and start + 5 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 1)
            return width, height
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
