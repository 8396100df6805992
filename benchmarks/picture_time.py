"""Processor time of reading pictures and of following a video: this checkout beside an older one, in turns.

    python benchmarks/picture_time.py CHECKOUT PATH... [--rounds 5] [--video PICTURE] [--json FILE]

CHECKOUT is a folder with another commit of this repository (``git worktree add --detach FOLDER COMMIT``). PATH is a
folder of .jpg files. Each picture is decoded once; locating, reading and judging it takes a turn in either checkout,
--rounds times, and the least of each counts: processor time, so other work on the machine tells little.
--video imitates a camera held over PICTURE, as demo.py does: milliseconds of a frame that is located and read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from demo import FPS, hand_held
from program import program

from hrm_edge.child import python_command
from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import write_json
from hrm_edge.vision.images import load_image

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 90  # of the video, 3 s of its 10
WORKER = """
import contextlib, sys, time
import cv2, numpy as np
from pathlib import Path
cv2.setNumThreads(1)
import hrm_edge
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.images import load_image
from hrm_edge.vision.read import Reader
from hrm_edge.vision.recognise import recognise
from hrm_edge.vision.track import Tracker
if Path(hrm_edge.__file__).parents[1] != Path(sys.argv[1]):
    sys.exit()
reader, task, name, loaded = Reader(), Sudoku(3, 3), None, None
for line in sys.stdin:
    if line != name:
        name, path = line, Path(line.strip())
        loaded = np.load(path) if path.suffix == ".npy" else load_image(path, upright=False)
    began = time.process_time()
    if loaded.ndim == 4:
        tracker = Tracker()
        for number, frame in enumerate(loaded):
            grid = tracker.update(frame, number / 30)
            if grid is not None:
                reader.read(frame, grid)
    else:
        with contextlib.suppress(UserError):
            recognise(loaded, reader, task)
    print(1e3 * (time.process_time() - began), flush=True)
"""


class Checkout:
    """A process that reads with the code of a checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
        self.commit = told.stdout.strip() or None
        self._process = subprocess.Popen(
            python_command("-c", WORKER, str(self.folder)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
        )  # fmt: skip

    def ms(self, path: Path) -> float:
        """Processor time of reading a picture, or all frames of a video."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            raise UserError(f"{self.folder}: its code cannot read {path.name}", "name a checkout of hrm-edge")
        return float(told)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def turns(checkouts: list[Checkout], path: Path, rounds: int) -> tuple[float, float]:
    """Least milliseconds of either checkout."""
    for checkout in checkouts:
        checkout.ms(path)
    times = [[checkout.ms(path) for checkout in checkouts] for _ in range(rounds)]
    new, old = np.min(times, axis=0).tolist()
    return new, old


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of the older commit")
    parser.add_argument("paths", type=Path, nargs="+", help="folders of pictures")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--video", type=Path, help="picture that the imitated camera is held over")
    parser.add_argument("--json", type=Path, help="results file")
    arguments = parser.parse_args()
    checkouts = [Checkout(ROOT), Checkout(arguments.checkout)]
    try:
        pictures = [path for folder in arguments.paths for path in sorted(folder.glob("*.jpg"))]
        if not pictures:
            raise UserError("there are no .jpg files in these folders", "name folders of photos")
        found = {path.name: turns(checkouts, path, arguments.rounds) for path in pictures}
        ratios = {name: new / old for name, (new, old) in found.items()}
        slowest = sorted(ratios, key=lambda name: -ratios[name])[:10]
        report: dict[str, Any] = {
            "pictures": len(found),
            "ms_median": dict(
                zip(("new", "old"), map(statistics.median, zip(*found.values(), strict=True)), strict=True)
            ),
            "ratio_of_sums": sum(new for new, _ in found.values()) / sum(old for _, old in found.values()),
            "ratio_max": max(ratios.values()),
            "above_1.2": sum(ratio > 1.2 for ratio in ratios.values()),
            "slowest": {name: {"new_ms": found[name][0], "old_ms": found[name][1]} for name in slowest},
        }
        if arguments.video:
            report["video_frame_ms"] = video(checkouts, arguments.video, arguments.rounds)
    finally:
        for checkout in checkouts:
            checkout.close()
    for key, value in report.items():
        print(f"{key}: {value}")
    if arguments.json:
        document = {
            "kind": "picture-time",
            "command": f"python benchmarks/picture_time.py CHECKOUT PATH... --rounds {arguments.rounds}",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commits": {"new": checkouts[0].commit, "old": checkouts[1].commit},
            "data": [path.name for path in arguments.paths],
            "device": describe_device().model_dump(mode="json"),
            **report,
        }
        write_json(arguments.json, document)
    return 0


def video(checkouts: list[Checkout], picture: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of a frame of the imitated camera, in either checkout."""
    photo = load_image(picture)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.npy"
        np.save(path, np.stack([hand_held(photo, frame) for frame in range(FRAMES)]))
        new, old = turns(checkouts, path, rounds)
    return {"frames": FRAMES, "camera_fps": FPS, "new": new / FRAMES, "old": old / FRAMES, "ratio": new / old}


if __name__ == "__main__":
    sys.exit(main())
