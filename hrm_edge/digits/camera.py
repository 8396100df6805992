"""A phone's camera by program: perspective, bent paper, light, blur, noise, JPEG. Grey pictures only.

Also what the reader then gets wrong: crossings that are off by a little.
"""

from __future__ import annotations

import cv2
import numpy as np

from hrm_edge.digits.hands import Rng
from hrm_edge.digits.sheet import CELL, MARGIN, SIZE, Sheet
from hrm_edge.vision.cells import SIDE
from hrm_edge.vision.images import Floats, Gray
from hrm_edge.vision.lattice import lattice_points, project

_PULLS = 2.5  # a cell: fewer would only move a digit, more would tear its strokes


def photograph(rng: Rng, sheet: Sheet, cell: float) -> tuple[Gray, Floats]:
    """Photograph a sheet with about ``cell`` pixels a cell; return the picture and its true crossings [10, 10, 2]."""
    side = cell * SIZE / CELL
    size = int(np.ceil(side * 1.25))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + (size - side) / 2 - 0.5
    angle = rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (corners - size / 2) @ turn.T + size / 2 + rng.uniform(-0.07, 0.07, (4, 2)) * side
    flat = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE]], np.float32) - 0.5
    to_sheet = cv2.getPerspectiveTransform(corners.astype(np.float32), flat)
    bend = _Bend(rng)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float32)
    at = bend.apply(project(pixels, to_sheet))
    sharp = cv2.GaussianBlur(sheet.darkness, (0, 0), max(0.3, 0.45 * CELL / cell))
    ink = cv2.remap(sharp, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    crossings = bend.invert(lattice_points(SIDE, SIDE * CELL, MARGIN))
    mesh = project(crossings, np.linalg.inv(to_sheet))
    contrast, paper = rng.uniform(0.4, 0.97), rng.uniform(80, 235)
    return expose(rng, paper * (1 - contrast * ink), cell), mesh


class _Bend:
    """Paper that is not flat: sheet points move by smooth waves of a few pixels."""

    def __init__(self, rng: Rng) -> None:
        size = rng.uniform(0, 0.12) * CELL if rng.random() < 0.6 else 0.0
        self.waves = rng.uniform(0.5, 2.0, (2, 2)) * 2 * np.pi / SIZE
        self.phase = rng.uniform(0, 2 * np.pi, 2)
        self.size = rng.uniform(-size, size, 2)

    def apply(self, points: Floats) -> Floats:
        phase = points @ self.waves.T.astype(np.float32) + self.phase.astype(np.float32)
        return (points + self.size.astype(np.float32) * np.sin(phase)).astype(np.float32)

    def invert(self, points: Floats) -> Floats:
        sheet = points
        for _ in range(4):
            sheet = points - (self.apply(sheet) - sheet)
        return sheet


def expose(rng: Rng, light: Floats, cell: float) -> Gray:
    """Expose light of 0 to 255 [h, w] as a camera does: shadows, blur, noise, sharpening, JPEG. ``cell`` in pixels."""
    height, width = light.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    tilt = rng.uniform(-0.3, 0.3, 2)
    shade = (1 + tilt[0] * x + tilt[1] * y).astype(np.float32)
    picture = light * shade / max(1.0, float(shade.max() * light.max()) / 255)
    for _ in range(int(rng.choice(3, p=(0.45, 0.4, 0.15)))):
        picture = picture * _shadow(rng, x, y)
    picture = _blur(rng, picture.astype(np.float32), cell)
    if rng.random() < 0.25:
        soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 2.0))
        picture = picture + rng.uniform(0.3, 1.5) * (picture - soft)
    noise = rng.standard_normal(picture.shape, np.float32) * (rng.uniform(0, 9) if rng.random() < 0.7 else 0)
    if rng.random() < 0.4:
        noise = 1.8 * cv2.GaussianBlur(noise, (0, 0), 0.8)
    picture = 255 * ((picture + noise).clip(0, 255) / 255) ** rng.uniform(0.7, 1.4)
    gray = np.asarray(picture, np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(18, 96))
        _, coded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])
        gray = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return gray


def _shadow(rng: Rng, x: Floats, y: Floats) -> Floats:
    """Return the light left [h, w], 0 to 1, near the shadow of a hand or a phone, whose edge is a wide arc."""
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.8, 0.8)
    radius = float(np.exp(rng.uniform(np.log(0.15), np.log(20))))
    inside = radius - np.hypot(x - (place + radius) * np.cos(angle), y - (place + radius) * np.sin(angle))
    edge = inside / np.exp(rng.uniform(np.log(0.005), np.log(0.15)))
    return np.asarray(1 - rng.uniform(0.1, 0.6) / (1 + np.exp(-edge.clip(-20, 20))), np.float32)


def _blur(rng: Rng, picture: Floats, cell: float) -> Floats:
    kind = rng.random()
    if kind < 0.35:
        return picture
    if kind < 0.6:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.02, 0.1) * cell)
    if kind < 0.82:  # out of focus: a disc
        radius = rng.uniform(0.03, 0.15) * cell
        half = int(np.ceil(radius))
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    else:  # shaken: a line
        half = max(1, round(rng.uniform(0.04, 0.14) * cell))
        kernel = np.zeros((2 * half + 1, 2 * half + 1))
        angle = rng.uniform(0, np.pi)
        for step in np.linspace(-half, half, 8 * half + 1):
            kernel[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] += 1
    return cv2.filter2D(picture, -1, (kernel / kernel.sum()).astype(np.float32))


def misplaced(rng: Rng, mesh: Floats, cell: float) -> Floats:
    """Move crossings as a locator's errors do: a little shifted, turned, scaled, uneven, at times a corner wrong."""
    corners = rng.normal(0, 0.035, (2, 2, 2)).astype(np.float32)
    if rng.random() < 0.15:
        corners[rng.integers(2), rng.integers(2)] += rng.normal(0, 0.12, 2)
    smooth = cv2.resize(corners, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_LINEAR)
    error = smooth + rng.normal(0, 0.025, 2) + rng.normal(0, 0.015, mesh.shape)
    return (mesh + cell * error).astype(np.float32)


def rewritten(rng: Rng, gray: Gray, cell: float) -> Gray:
    """Distort a picture within its cells of ``cell`` pixels: the same digits as another hand might write them."""
    shape = tuple(max(2, round(_PULLS * side / cell)) for side in gray.shape)
    size, reach = gray.shape[::-1], rng.uniform(0, 0.06) * cell
    pull = [
        cv2.resize(rng.normal(0, reach, shape).astype(np.float32), size, interpolation=cv2.INTER_CUBIC) for _ in "xy"
    ]
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    return np.asarray(
        cv2.remap(gray, x + pull[0], y + pull[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
