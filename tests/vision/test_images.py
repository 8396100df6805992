"""What is no picture, torn, tiny or huge is refused in words, before anything is decoded; nothing crashes."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.vision.formats import read_header
from hrm_edge.vision.images import _decode_image, decode_upload, load_image
from hrm_edge.vision.locate import locate
from tests.vision.rendered import photo

SMALL = cv2.resize(photo(9, cell=20).image, (160, 120))
FORMATS = {end: cv2.imencode(end, SMALL)[1].tobytes() for end in (".jpg", ".png", ".webp", ".bmp")}


def chunk(kind: bytes, body: bytes) -> bytes:
    """One of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("end", FORMATS)
def test_a_picture_is_decoded(end):
    image = _decode_image(FORMATS[end], "x")
    assert image.shape == (120, 160, 3)
    assert np.abs(image.astype(int) - SMALL).mean() < 6


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "x is no picture"),
        (b"just some text", "x is no picture"),
        (b"GIF89a" + b"\0" * 40, "x: the picture has 0x0 pixels, too small"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "x: HEIC and AVIF pictures cannot be read"),
        (b"\xff\xd8", "x: the picture is damaged or cut off"),
        (FORMATS[".png"][:200], "x: the picture is damaged or cut off"),
        (png_header(10_000, 10_000), "x: the picture has 10000x10000 pixels, more than 64 megapixels"),
        (png_header(2_000_000_000, 2_000_000_000), "x: the picture has 2000000000x2000000000 pixels"),
        (cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes(), "x: the picture has 1x1 pixels, too small"),
        (png_header(0, 0), "x: the picture has 0x0 pixels, too small"),
    ],
    ids=["empty", "text", "gif", "heic", "stub", "torn", "100 megapixels", "bomb", "1x1", "0x0"],
)
def test_bad_bytes_are_refused_in_words(data, what):
    with pytest.raises(UserError) as caught:
        _decode_image(data, "x")
    assert caught.value.problem.startswith(what)
    assert caught.value.hint


def test_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothere\.jpg: No such file"):
        load_image(tmp_path / "nothere.jpg")
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match=r"a\.jpg is no picture"):
        load_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="a folder stands where a file is needed"):
        load_image(tmp_path)


def with_exif(end: str, picture: bytes, orientation: int, order: str = "<") -> bytes:
    """A picture file with an EXIF note that says how it lies, in the byte order ``order``."""
    note = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHHHHIHHI", 8, 2, 0x0100, 3, 1, 160, 0, 0x0112, 3, 1, orientation, 0, 0
    )
    if end == ".jpg":
        note = b"Exif\0\0" + note
        return picture[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + picture[2:]
    if end == ".png":
        return picture[:33] + chunk(b"eXIf", note) + picture[33:]
    height, width = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0x08) + sizes + picture[12:]  # 0x08: there is an EXIF note
    body += b"EXIF" + struct.pack("<I", len(note)) + note
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("end", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    ("orientation", "first", "end_of_row"),  # where the first pixel of the file is seen, and the last of its first row
    [
        (1, "top left", "top right"), (2, "top right", "top left"), (3, "bottom right", "bottom left"),
        (4, "bottom left", "bottom right"), (5, "top left", "bottom left"), (6, "top right", "bottom right"),
        (7, "bottom right", "top right"), (8, "bottom left", "top left"), (9, "top left", "top right"),
    ],
)  # fmt: skip
def test_the_exif_turn_is_for_people_and_not_for_labels(tmp_path, end, orientation, first, end_of_row, order):
    stored = np.full((120, 160, 3), 255, np.uint8)
    stored[:60, :80], stored[:60, 80:] = (0, 0, 255), (255, 0, 0)  # red, blue
    path = tmp_path / f"a{end}"
    path.write_bytes(with_exif(end, cv2.imencode(end, stored)[1].tobytes(), orientation, order))
    seen = load_image(path).astype(int)
    assert seen.shape == ((160, 120, 3) if orientation in (5, 6, 7, 8) else (120, 160, 3))
    corners = {
        "top left": seen[9, 9],
        "top right": seen[9, -9],
        "bottom left": seen[-9, 9],
        "bottom right": seen[-9, -9],
    }
    assert np.abs(corners[first] - (0, 0, 255)).max() < 40
    assert np.abs(corners[end_of_row] - (255, 0, 0)).max() < 40
    assert np.abs(load_image(path, upright=False).astype(int) - stored).mean() < 6


def test_a_transparent_picture_and_an_upload_are_turned_too():
    clear = np.dstack([SMALL, np.full(SMALL.shape[:2], 128, np.uint8)])
    assert _decode_image(with_exif(".png", cv2.imencode(".png", clear)[1].tobytes(), 6), "x").shape == (160, 120, 3)
    assert decode_upload(with_exif(".webp", FORMATS[".webp"], 8)).shape == (160, 120, 3)


def test_a_damaged_exif_note_turns_nothing():
    png = with_exif(".png", FORMATS[".png"], 6)
    at = png.index(b"eXIf") + 4
    for cut in range(40):  # a note that ends early, or names a table beyond its end
        note = png[at : at + cut]
        whole = FORMATS[".png"][:33] + chunk(b"eXIf", note) + FORMATS[".png"][33:]
        assert _decode_image(whole, "x").shape in ((120, 160, 3), (160, 120, 3))
    far = png[:at] + b"II*\0" + b"\xff" * 4 + png[at + 8 :]
    assert read_header(far).orientation == 1


def hostile(rng: np.random.Generator) -> bytes:
    """A picture file with bytes changed, cut, repeated or put in, or no picture at all."""
    data = bytearray(list(FORMATS.values())[rng.integers(4)])
    kind = rng.integers(6)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 3000)))
    if kind == 1:
        return bytes(data[: rng.integers(0, len(data))])
    if kind == 2:  # the header, where sizes and tables are
        for place in rng.integers(0, min(64, len(data)), 4):
            data[place] = rng.integers(256)
    elif kind == 3:
        for place in rng.integers(0, len(data), int(rng.integers(1, 60))):
            data[place] = rng.integers(256)
    elif kind == 4:
        start, end = np.sort(rng.integers(0, len(data), 2))
        data[start:end] = data[start:end] * int(rng.integers(0, 3))
    else:
        place = int(rng.integers(0, len(data)))
        data[place:place] = rng.bytes(int(rng.integers(1, 200)))
    return bytes(data)


def survive(cases: int, seed: int) -> int:
    """Decode hostile files and look for grids in what comes out; how many were pictures nevertheless."""
    rng, decoded = np.random.default_rng(seed), 0
    for _ in range(cases):
        try:
            image = _decode_image(hostile(rng), "x")
        except UserError:
            continue
        assert image.dtype == np.uint8
        assert image.ndim == 3
        if decoded % 20 == 0:
            locate(image)
        decoded += 1
    return decoded


def test_a_few_hundred_hostile_files():
    assert survive(400, 0) > 20


@pytest.mark.slow
def test_ten_thousand_hostile_files():
    assert survive(10_000, 1) > 500
