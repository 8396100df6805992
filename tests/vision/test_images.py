"""What is no picture, torn, tiny or huge is refused in words, before anything is decoded; nothing crashes."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.vision.images import decode_image, load_image
from hrm_edge.vision.locate import locate
from tests.vision.rendered import photo

SMALL = cv2.resize(photo(9, cell=20).image, (160, 120))
FORMATS = {end: cv2.imencode(end, SMALL)[1].tobytes() for end in (".jpg", ".png", ".webp", ".bmp")}


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("end", FORMATS)
def test_a_picture_is_decoded(end):
    image = decode_image(FORMATS[end], "x")
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
        decode_image(data, "x")
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


def test_the_exif_turn_is_for_people_and_not_for_labels(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(FORMATS[".jpg"][:2] + segment + FORMATS[".jpg"][2:])
    assert load_image(tmp_path / "a.jpg").shape == (160, 120, 3)
    assert load_image(tmp_path / "a.jpg", upright=False).shape == (120, 160, 3)


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
            image = decode_image(hostile(rng), "x")
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
