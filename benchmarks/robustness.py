"""How far reading a photo stands being made worse: whole grids read rightly against the strength of each distortion.

    python benchmarks/robustness.py PATH [--every 3] [--json FILE] [--plot FILE.png]

PATH is a folder of labelled photos (see photos.py). Each --every'th one is reduced to 640 pixels, distorted in one way
at a time, then located, read and judged. The first point of every curve leaves the photo as it is; turning and tilting
put a grey border around it even there. The plot needs matplotlib (pip install 'hrm-edge[report]').
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from photos import labelled
from program import program

from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, sha256, write_json
from hrm_edge.report.figures import wilson_95
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.images import Image, load_image
from hrm_edge.vision.judge import tokens_of
from hrm_edge.vision.read import MODEL, Reader
from hrm_edge.vision.recognise import recognise

SIDE = 640  # pixels of the longer side before a distortion: what a camera's frame has


def rotated(image: Image, degrees: float) -> Image:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    side = int(np.hypot(width, height)) + 1
    matrix[:, 2] += (side - np.array([width, height])) / 2
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderValue=(90, 90, 90)), np.uint8)


def tilted(image: Image, degrees: float) -> Image:
    """Seen from the side: the picture turned about its upright axis, from a distance of twice its width."""
    height, width = image.shape[:2]
    x, y = np.array([-1, 1, 1, -1]) * width / 2, np.array([-1, -1, 1, 1]) * height / 2
    distance, angle = 2.0 * width, np.radians(degrees)
    depth = distance + x * np.sin(angle)
    seen = np.stack([x * np.cos(angle), y], axis=1) * distance / depth[:, None]
    seen = seen - seen.min(axis=0) + 20
    flat = np.stack([x + width / 2, y + height / 2], axis=1)
    size = tuple(int(v) + 20 for v in np.ceil(seen.max(axis=0)))
    matrix = cv2.getPerspectiveTransform(flat.astype(np.float32), seen.astype(np.float32))
    return np.asarray(cv2.warpPerspective(image, matrix, size, borderValue=(90, 90, 90)), np.uint8)


def reduced(image: Image, factor: float) -> Image:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def blurred(image: Image, sigma: float) -> Image:
    return image if sigma == 0 else np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def noisy(image: Image, sigma: float) -> Image:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compressed(image: Image, quality: float) -> Image:
    if quality > 100:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def shaded(image: Image, strength: float) -> Image:
    """Darker from left to right: by ``strength`` at the right edge."""
    light = np.linspace(1, 1 - strength, image.shape[1])[None, :, None]
    return (image * light).astype(np.uint8)


# name → (how, unit, strengths; the first leaves the photo as it is)
DISTORTIONS: dict[str, tuple[Callable[[Image, float], Image], str, tuple[float, ...]]] = {
    "rotation": (rotated, "degrees clockwise", (0, 10, 30, 45, 90, 135, 180, 270)),
    "perspective": (tilted, "degrees from the front", (0, 15, 30, 45, 55, 65)),
    "scale": (reduced, "of a picture of 640 pixels", (1, 0.7, 0.5, 0.4, 0.3, 0.2)),
    "blur": (blurred, "pixels (sigma)", (0, 1, 2, 3, 4, 5)),
    "noise": (noisy, "grey levels of 255 (sigma)", (0, 8, 16, 32, 48, 64)),
    "JPEG quality": (compressed, "(101: not compressed)", (101, 50, 30, 20, 10, 5)),
    "brightness gradient": (shaded, "darker at one edge (share)", (0, 0.3, 0.5, 0.7, 0.85, 0.95)),
}


def right(image: Image, label: Any, reader: Reader, task: Sudoku) -> bool:
    try:
        puzzle = recognise(image, reader, task).verdict.puzzle
    except UserError:
        return False
    return puzzle is not None and bool((puzzle == tokens_of(label)).all())


def plot(curves: dict[str, Any], count: int, path: Path) -> None:
    """Small multiples of accuracy against strength."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise UserError("--plot needs matplotlib", "pip install 'hrm-edge[report]'") from error
    figure, axes = pyplot.subplots(2, 4, figsize=(14, 6), sharey=True, layout="constrained")
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=False):
        strengths, shares = [p["strength"] for p in curve["points"]], [p["right_share"] for p in curve["points"]]
        axis.plot(range(len(strengths)), [100 * share for share in shares], marker="o")
        axis.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
        axis.set(title=name, xlabel=curve["unit"], ylim=(0, 103))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("grids read rightly, %")
    axes[1, 0].set_ylabel("grids read rightly, %")
    axes.flat[-1].axis("off")
    figure.suptitle(f"Whole grids read without an error, {count} photos, one distortion at a time")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--every", type=int, default=3, help="use each of this many photos (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--plot", type=Path, help="PNG file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    task, curves = Sudoku(3, 3), {}
    reader, photos = Reader(), []
    for path, label in labelled(arguments.path)[:: arguments.every]:
        image = load_image(path, upright=False)
        photos.append((reduced(image, min(1.0, SIDE / max(image.shape))), label))
    for name, (distort, unit, strengths) in DISTORTIONS.items():
        points = []
        for strength in strengths:
            hits = sum(right(distort(image, strength), label, reader, task) for image, label in photos)
            interval = wilson_95(hits, len(photos))
            points.append(
                {"strength": strength, "right": hits, "right_share": hits / len(photos), "interval_95": interval}
            )
        curves[name] = {"unit": unit, "points": points}
        print(f"{name} ({unit}): " + ", ".join(f"{p['strength']:g}: {p['right_share']:.0%}" for p in points))
    if arguments.plot:
        plot(curves, len(photos), arguments.plot)
    if arguments.json:
        document = {
            "kind": "robustness",
            "command": f"python benchmarks/robustness.py PATH --every {arguments.every}",
            "data": arguments.path.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "count": len(photos),
            "digits_sha256": sha256(MODEL),
            "device": describe_device().model_dump(mode="json"),
            "curves": curves,
        }
        write_json(arguments.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
