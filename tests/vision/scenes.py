"""Puzzles on paper, seen by a camera: rendered here, so that no photo is needed. Deterministic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
# The first of Norvig's easy puzzles, and another one of the package's samples' kind: naked singles suffice.
EASY = "003020600900305001001806400008102900700000008006708200002609500800203009005010300"
OTHER = "200080300060070084030500209000105408000000000402706000301007040720040060004010003"
CELL = 48  # pixels of a cell on the paper


def paper(puzzle: str, side: int = 9) -> Image:
    """A sheet with ``puzzle`` (side² characters, 0 blank) in the middle, [H, W, 3]."""
    margin, size, box = 2 * CELL, side * CELL, round(side**0.5)
    sheet = np.full((size + 2 * margin, size + 2 * margin, 3), 246, np.uint8)
    for line in range(side + 1):
        at, width = margin + line * CELL, 4 if line % box == 0 else 1
        cv2.line(sheet, (at, margin), (at, margin + size), (30, 30, 30), width, cv2.LINE_AA)
        cv2.line(sheet, (margin, at), (margin + size, at), (30, 30, 30), width, cv2.LINE_AA)
    for cell, digit in enumerate(puzzle):
        if digit != "0":
            row, column = divmod(cell, side)
            (wide, high), _ = cv2.getTextSize(digit, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 2)
            x, y = margin + column * CELL + (CELL - wide) // 2, margin + row * CELL + (CELL + high) // 2
            cv2.putText(sheet, digit, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (25, 25, 25), 2, cv2.LINE_AA)
    return sheet


def scene(sheet: Image, size: tuple[int, int] = (640, 480), *, at: float = 0.0, turn: float = 0.0) -> Image:
    """``sheet`` on a table. ``at``: where on its path the hand-held camera is (a period is 1); ``turn``: degrees."""
    width, height = size
    half = 0.46 * height
    angle, phase = np.radians(turn + 4 * np.sin(2 * np.pi * at)), 2 * np.pi * at
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * half
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = corners @ spin.T
    depth = 1 + 0.12 * np.sin(phase + 1) * corners[:, :1] / half + 0.15 * np.cos(phase) * corners[:, 1:] / half
    shift = np.array([width / 2 + 12 * np.cos(phase), height / 2 + 8 * np.sin(2 * phase)])
    there = (corners / depth + shift).astype(np.float32)
    rows, columns = sheet.shape[:2]
    here = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    table = np.linspace(70, 120, width)[None, :, None] * np.array([0.7, 0.85, 1.0]) * np.ones((height, 1, 1))
    matrix = cv2.getPerspectiveTransform(here, there)
    seen = cv2.warpPerspective(sheet, matrix, size, flags=cv2.INTER_AREA)
    mask = cv2.warpPerspective(np.full((rows, columns), 255, np.uint8), matrix, size)[..., None] / 255
    light = np.linspace(1.0, 0.75, width)[None, :, None]
    noise = np.random.default_rng(round(1000 * at)).normal(0, 3, (height, width, 1))
    image = (table * (1 - mask) + seen * mask) * light + noise
    return cv2.GaussianBlur(np.clip(image, 0, 255).astype(np.uint8), (3, 3), 0.6)


def walk(puzzle: str, frames: int, size: tuple[int, int] = (640, 480), turn: float = 0.0) -> Iterator[Image]:
    """Frames of a hand-held camera over ``puzzle``; the last one leads back to the first."""
    sheet = paper(puzzle)
    for frame in range(frames):
        yield scene(sheet, size, at=frame / frames, turn=turn)


def write_video(path: Path, frames: Iterator[Image], fps: float = 30.0) -> Path:
    """Motion JPEG: in AVI for OpenCV, or a bare stream (``.mjpeg``), which Chromium's fake camera plays."""
    if path.suffix == ".mjpeg":
        encoded = (cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for frame in frames)
        path.write_bytes(b"".join(encoded))
        return path
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, frame.shape[1::-1])
            assert writer.isOpened()
        writer.write(frame)
    assert writer is not None
    writer.release()
    return path
