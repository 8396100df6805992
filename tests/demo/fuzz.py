"""Pictures as an attacker sends them: torn, bent, spliced, with lies in their headers. Deterministic."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from tests.vision.scenes import EASY, paper, scene


def _seeds() -> list[bytes]:
    """Small whole pictures of every format that is read, and heads of some that are not."""
    small = scene(paper(EASY), (160, 120))
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    whole = [
        cv2.imencode(suffix, image)[1].tobytes()
        for suffix in (".jpg", ".png", ".webp", ".bmp")
        for image in (small, noise)
    ]
    whole.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    return [
        *whole,
        b"GIF89a" + bytes(60),
        b"II*\0" + bytes(60),
        b"\0\0\0\x18ftypheic" + bytes(60),
        b"%PDF-1.7\n",
        b"PK\3\4",
    ]


def hostile(count: int, seed: int) -> Iterator[bytes]:
    """``count`` bodies: one in ten is a whole picture, the others have one to four things done to them."""
    rng, seeds = np.random.default_rng(seed), _seeds()
    for number in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        if number % 10:
            for _ in range(rng.integers(1, 5)):
                data = _changes[rng.integers(len(_changes))](data, rng, seeds)
        yield bytes(data)


def _cut(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    return data[: rng.integers(len(data) + 1)]


def _flip(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    for at in rng.integers(0, max(1, len(data)), rng.integers(1, 30)):
        if data:
            data[at] ^= 1 << int(rng.integers(8))
    return data


def _bend_head(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    """Sizes, lengths and tables are in the first bytes."""
    for at in rng.integers(0, max(1, min(64, len(data))), 6):
        if data:
            data[at] = int(rng.choice([0, 1, 127, 128, 254, 255]))
    return data


def _large_number(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    data[at : at + 4] = bytes(rng.choice([0, 127, 255], 4).astype(np.uint8))
    return data


def _splice(data: bytearray, rng: np.random.Generator, seeds: list[bytes]) -> bytearray:
    other = seeds[rng.integers(len(seeds))]
    at, there = int(rng.integers(len(data) + 1)), int(rng.integers(len(other) + 1))
    return data[:at] + other[there:]


def _repeat(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + data[at : at + 40] * int(rng.integers(1, 200)) + data[at:]


def _noise(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 2000))) + data[at:]


_changes = [_cut, _flip, _bend_head, _large_number, _splice, _repeat, _noise]
