"""Reading and solving labelled photos of Sudokus: what is located, read, left alone, read wrongly, solved.

    python benchmarks/photos.py PATH [--model sudoku-nano] [--views 64] [--json FILE] [--digits FILE]
                               [--failures FOLDER]

PATH is a folder of NAME.jpg with NAME.dat or NAME.txt: nine rows of digits, 0 for a blank, 10 for pencilled candidates,
which count as a blank. A label goes by the puzzle's own rows. Pixels are taken as stored, without the EXIF turn.
"right" is a whole grid without an error (exact); "right answer" a puzzle that is not the label's, with its solution:
digits are missing or were left out, which the answer says; "abstained" is a reading that was refused, by reason, and is
not solved; "wrong" is an answer that is not the label's, which must not happen.
--failures writes a picture of every grid that the network or the rules did not get right, wrong cells marked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from program import program

import hrm_edge
from hrm_edge.device.identity import describe_device
from hrm_edge.digits.labels import read_labels
from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_json
from hrm_edge.report.figures import wilson_95
from hrm_edge.solve import solve
from hrm_edge.tasks.sudoku import FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision.images import Image, load_image
from hrm_edge.vision.judge import tokens_of
from hrm_edge.vision.read import MODEL, Reader
from hrm_edge.vision.recognise import Recognised, recognise

OUTCOMES = ("right", "right answer", "wrong", "abstained", "not located")
# what a refusal's message has in it → its name in the results
REASONS = {
    "uncertain": "too much in doubt",
    "contradictory": "contradictory givens",
    "several solutions": "several solutions",
    "no solution": "no solution",
    "digits were read": "too few digits",
    "too hard": "too hard to check",
    "not settled": "search ended",
    "only a part": "only a part of a grid",
    "no Sudoku grid": "no grid",
    "only 9x9": "another size",
}


@dataclass
class Photo:
    """One photo's way through the stages."""

    name: str
    outcome: str
    refused: str | None = None
    """Why it was refused, as in ``REASONS``."""
    doubtful: int = 0
    """Cells that the answer says are in doubt, or left out."""
    wrong_cells: int = 81
    """Of the network's own reading, before the rules."""
    repaired: int = 0
    solved: bool = False
    steps: int = 0
    views: int = 0
    ms: dict[str, float] = field(default_factory=dict)


def labelled(folder: Path) -> list[tuple[Path, NDArray[np.uint8]]]:
    """Photos of a folder with their labels uint8 [81]."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        label = next((path.with_suffix(end) for end in (".dat", ".txt") if path.with_suffix(end).is_file()), None)
        if label is not None:
            found.append((path, read_labels(label)))
    if not found:
        raise UserError(f"{folder} holds no labelled photos", "give a folder of NAME.jpg with NAME.dat or NAME.txt")
    return found


def reason(error: UserError) -> str:
    """The kind of a refusal."""
    return next((name for text, name in REASONS.items() if text in error.problem), error.problem)


def outcome(found: Recognised, label: NDArray[np.uint8], task: Sudoku) -> str:
    """What came of a picture with the digits ``label`` uint8 [81]: one of the first four ``OUTCOMES``."""
    puzzle, truth = found.verdict.puzzle, tokens_of(label)
    if puzzle is None:
        return "abstained"
    if np.array_equal(puzzle, truth):
        return "right"
    given = puzzle >= FIRST_DIGIT
    if np.array_equal(puzzle[given], truth[given]):
        return "right answer"  # it has one solution, and no digit that the label has not
    try:
        solutions = [require_unique(task, tokens) for tokens in (puzzle, truth)]
    except UserError:  # the label itself is no puzzle
        return "wrong"
    return "right answer" if np.array_equal(*solutions) else "wrong"


def measure(
    path: Path, label: NDArray[np.uint8], reader: Reader, model: hrm_edge.Model, views: int
) -> tuple[Photo, Any]:
    """Take one photo through the stages; also what --failures draws."""
    task = model.task
    assert isinstance(task, Sudoku)
    began = time.perf_counter()
    image = load_image(path, upright=False)
    decoded = time.perf_counter()
    try:
        found = recognise(image, reader, task)
    except UserError as error:
        ms = {"locate": 1e3 * (time.perf_counter() - decoded)}
        return Photo(path.name, "not located", reason(error), ms=ms), None
    digits, verdict, puzzle = found.reading.digits, found.verdict, found.verdict.puzzle
    photo = Photo(path.name, outcome(found, label, task))
    photo.refused = None if verdict.why is None else reason(verdict.why)
    photo.wrong_cells, photo.repaired = int((digits != label).sum()), len(verdict.repaired)
    photo.doubtful = len(verdict.doubtful) + len(verdict.ignored)
    photo.ms = {"decode": 1e3 * (decoded - began), **found.ms}
    if puzzle is not None:
        solution = solve(model.session, task, puzzle[None], halt="rules", views=views)[0]
        photo.solved, photo.steps, photo.views = solution.verified, solution.steps, solution.views
        photo.ms["solve"] = 1e3 * solution.latency_s
    return photo, (image, found, label)


def draw_failure(image: Image, found: Recognised, label: NDArray[np.uint8], path: Path) -> None:
    """The picture with its grid; wrong cells in red with what was read, label and confidence."""
    picture, reading = image.copy(), found.reading
    mesh = reading.grid.mesh
    for line in [*mesh, *mesh.swapaxes(0, 1)]:
        cv2.polylines(picture, [np.rint(line).astype(np.int32)], False, (0, 200, 0), 1, cv2.LINE_AA)
    for cell in np.flatnonzero(reading.digits != label):
        x, y = (int(v) for v in mesh[cell // 9, cell % 9])
        text = f"{reading.digits[cell]} for {label[cell]}: {reading.confidence[cell]:.2f}"
        cv2.putText(picture, text, (x, y + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 255), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), picture)


def summary(photos: list[Photo]) -> dict[str, Any]:
    """Counts, shares and milliseconds of every stage."""
    count = len(photos)
    outcomes = {name: sum(photo.outcome == name for photo in photos) for name in OUTCOMES}
    read = [photo for photo in photos if photo.outcome != "not located"]
    stages = {stage: [p.ms[stage] for p in photos if stage in p.ms] for p in photos for stage in p.ms}
    right, solved = outcomes["right"], sum(photo.solved for photo in photos if photo.outcome == "right")
    cells = 81 * len(read)
    return {
        "count": count,
        **{name.replace(" ", "_"): number for name, number in outcomes.items()},
        "located": len(read),
        "right_share": right / count,
        "right_interval_95": wilson_95(right, count),
        "answered_rightly": sum(photo.outcome in ("right", "right answer") for photo in photos),
        "right_with_doubts": sum(photo.outcome == "right" and photo.doubtful + photo.repaired > 0 for photo in photos),
        "refused": dict(Counter(photo.refused for photo in photos if photo.refused is not None)),
        "right_without_the_rules": sum(photo.wrong_cells == 0 for photo in read),
        "repaired_by_the_rules": sum(photo.outcome == "right" and photo.repaired > 0 for photo in photos),
        "solved_of_right": solved,
        "solved_share_of_right": solved / right if right else None,
        "cell_error": sum(photo.wrong_cells for photo in read) / cells if cells else None,
        "ms": {
            stage: {"p50": statistics.median(ms), "p95": float(np.quantile(ms, 0.95)), "max": max(ms)}
            for stage, ms in stages.items()
        },
    }


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", default="sudoku-nano", help="what solves (default: %(default)s)")
    parser.add_argument("--views", type=int, default=64, help="symmetries tried per puzzle (default: %(default)s)")
    parser.add_argument("--digits", type=Path, default=MODEL, help="digit network (default: the shipped one)")
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--failures", type=Path, help="folder for pictures of what was not read rightly")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    reader, model = Reader(arguments.digits), hrm_edge.load(arguments.model, threads=1)
    photos = []
    for path, label in labelled(arguments.path):
        photo, seen = measure(path, label, reader, model, arguments.views)
        photos.append(photo)
        print(f"{photo.name}: {photo.outcome}" + (", solved" * photo.solved), file=sys.stderr)
        if arguments.failures and seen and (photo.outcome != "right" or photo.wrong_cells):
            arguments.failures.mkdir(parents=True, exist_ok=True)
            draw_failure(*seen, arguments.failures / f"{photo.outcome}-{path.stem}.png")
    found = summary(photos)
    for key, value in found.items():
        print(f"{key}: {value}")
    if arguments.json:
        document = {
            "kind": "photos",
            "command": "python benchmarks/photos.py PATH",
            "data": arguments.path.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "model": arguments.model,
            "views": arguments.views,
            "threads": 1,
            "digits_sha256": sha256(arguments.digits),
            "device": describe_device().model_dump(mode="json"),
            **found,
            "not_right": {photo.name: photo.outcome for photo in photos if photo.outcome != "right"},
        }
        write_json(arguments.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
