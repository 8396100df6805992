"""The camera demo on a video: how fast it locates and reads, how soon it answers, whether its memory stays flat.

    python benchmarks/demo.py PICTURE [--seconds 20] [--minutes 10] [--json FILE]

PICTURE is a photo of a Sudoku. A camera held by hand over it is imitated: 640x480 at 30 frames per second, moving,
turning and tilting. First every frame is located and read as fast as the machine can for --seconds; then the whole demo
runs for --minutes at the camera's own pace, its pictures encoded as for a viewer. Every 20 s the camera is unplugged,
and 2 s after it has come back it shows the puzzle. "First frame to answer" is from the frame that shows the puzzle to
the picture with the answer drawn in.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from program import program

import hrm_edge
from hrm_edge.demo.loop import Demo
from hrm_edge.demo.thinker import Thinker
from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_json
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.frames import Camera, Mailbox, Source
from hrm_edge.vision.images import Image, load_image
from hrm_edge.vision.read import MODEL, Reader
from hrm_edge.vision.track import Tracker

SIZE, FPS = (640, 480), 30.0
AWAY_S, PERIOD_S = 2.0, 20.0  # the camera dies at the end of each period; the puzzle is away for its first seconds


def hand_held(photo: Image, frame: int) -> Image:
    """What a camera over ``photo`` sees at a frame [480, 640, 3]: a path that repeats after 10 s."""
    width, height = SIZE
    phase = 2 * np.pi * frame / (10 * FPS)
    scale = min(width / photo.shape[1], height / photo.shape[0]) * (1 + 0.08 * np.sin(phase))
    rows, columns = photo.shape[:2]
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([columns, rows]) * scale / 2
    angle = np.radians(5 * np.sin(2 * phase))
    corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    depth = 1 + 0.08 * np.sin(phase) * corners[:, :1] / width + 0.08 * np.cos(phase) * corners[:, 1:] / height
    there = corners / depth + np.array([width / 2 + 14 * np.cos(2 * phase), height / 2 + 10 * np.sin(phase)])
    here = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    matrix = cv2.getPerspectiveTransform(here, there.astype(np.float32))
    return np.asarray(cv2.warpPerspective(photo, matrix, SIZE, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def speed(frames: list[Image], seconds: float) -> dict[str, Any]:
    """Locate and read every frame, one after the other."""
    tracker, reader = Tracker(), Reader()
    times: dict[str, list[float]] = {"locate": [], "read": []}
    began, count, missed = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        image = frames[count % len(frames)]
        count += 1
        start = time.perf_counter()
        grid = tracker.update(image, count / FPS)
        located = time.perf_counter()
        times["locate"].append(located - start)
        if grid is None:
            missed += 1
            continue
        reader.read(image, grid)
        times["read"].append(time.perf_counter() - located)
    elapsed = time.perf_counter() - began
    stages = {name: dict(zip(("p50", "p95"), np.percentile(found, [50, 95]).round(2).tolist(), strict=True))
              for name, found in ((n, 1e3 * np.array(t)) for n, t in times.items()) if len(found)}  # fmt: skip
    return {"frames": count, "without_grid": missed, "frames_per_s": round(count / elapsed, 1), "stages_ms": stages}


class HandHeld:
    """The imitated camera, from one plugging in to the next unplugging, at its own pace: no frame waits for anybody."""

    def __init__(self, frames: list[Image], began_s: float) -> None:
        self._frames, self._began_s = frames, began_s
        self._period, self._at = self._now()

    def _now(self) -> tuple[int, int]:
        """Period, and frame since the first one's beginning."""
        passed_s = time.perf_counter() - self._began_s
        return int(passed_s / PERIOD_S), int(passed_s * FPS)

    def read(self) -> Image | None:
        self._at += 1
        time.sleep(max(0.0, self._began_s + self._at / FPS - time.perf_counter()))
        if self._now()[0] != self._period:
            return None
        away = self._at / FPS % PERIOD_S < AWAY_S
        return np.full_like(self._frames[0], 120) if away else self._frames[self._at % len(self._frames)]

    def close(self) -> None:
        """Nothing is open."""


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def endure(frames: list[Image], model: str, minutes: float) -> dict[str, Any]:
    """Run the whole demo; memory, rates and times to the answer."""
    task = Sudoku(3, 3)
    mailbox = Mailbox()
    began_s = time.perf_counter()
    camera = Camera(Source("imitated", lambda: HandHeld(frames, began_s)), mailbox)
    demo = Demo(mailbox, camera, Reader(), Thinker(hrm_edge.load(model, threads=1).session, task))
    stop, thread = threading.Event(), None
    answers: list[float] = []
    last_after: float | None = None
    memory: list[float] = []
    try:
        camera.start()
        thread = threading.Thread(target=demo.run, args=(stop,), daemon=True)
        thread.start()
        for _ in watched(demo, minutes * 60):
            memory.append(resident_mib())
            after = demo.view.figures.get("answer_after_ms")
            if after is not None and last_after is None:
                answers.append(after)
            last_after = after
        figures = demo.view.figures
    finally:
        stop.set()
        if thread is not None:
            thread.join()
        camera.stop()
        demo.thinker.stop()
    settled = memory[min(len(memory) // 10, 60) :]
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0]) * 60 if len(settled) > 2 else None
    return {
        "minutes": minutes, "figures": figures,
        "first_frame_to_answer_ms": {"times": len(answers), "max": max(answers, default=None),
                                     "median": float(np.median(answers)) if answers else None},
        "memory_mib": {"settled": round(settled[0], 1), "end": round(settled[-1], 1), "max": round(max(memory), 1),
                       "growth_per_min": None if slope is None else round(slope, 3)},
    }  # fmt: skip


def watched(demo: Demo, seconds: float) -> Iterator[None]:
    """Look at every picture as a viewer does; once a second give the caller a turn."""
    began = last = time.perf_counter()
    number = 0
    while (now := time.perf_counter()) - began < seconds:
        view = demo.wait(number, 0.5)
        number, _ = view.number, view.jpeg
        if now - last >= 1:
            last = now
            yield


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("--model", default="sudoku-nano")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json")
    options = parser.parse_args()
    photo = load_image(options.picture)
    frames = [hand_held(photo, frame) for frame in range(round(10 * FPS))]
    if Tracker().update(frames[0]) is None:
        raise UserError(f"{options.picture}: no grid is found in it", "take another photo")
    report = {
        "kind": "demo",
        "command": f"python benchmarks/demo.py PICTURE --seconds {options.seconds:g} --minutes {options.minutes:g}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": describe_device().model_dump(mode="json"),
        "digits_sha256": sha256(MODEL),
        "model": options.model,
        "video": {"size": SIZE, "fps": FPS, "from": Path(options.picture).name},
        "locate_and_read": speed(frames, options.seconds),
    }
    print(report["locate_and_read"], file=sys.stderr)
    report["demo"] = endure(frames, options.model, options.minutes)
    print(report["demo"], file=sys.stderr)
    if options.json:
        write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
