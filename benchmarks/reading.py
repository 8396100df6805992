"""Hard pictures of puzzles, drawn by program: how many are answered, how many refused and why, and none wrongly.

    python benchmarks/reading.py [--puzzles 10000] [--seed 1] [--writing FILE.csv.gz] [--digits FILE] [--json FILE]
                                 [--rows FILE] [--minutes M] [--margin NATS] [--doubt NATS]

Every puzzle has one solution and is drawn in fonts and handwriting that the digit network was not trained on, then
photographed by program: bent, tilted, blurred, noisy, in bad light. Conditions take turns:

    plain     digits of 0.42 to 0.8 of a cell, 12 to 32 pixels a cell
    small     digits of 0.2 to 0.42 of a cell
    scan      the same, laid flat without a camera, enlarged or reduced 0.7 to 2.5 times
    written   filled in by hand up to all 81 cells; in every second one some of these digits are wrong

Every picture depends on --seed and its own number only. With --rows each result is kept in FILE as it comes: a run that
was ended, or stopped after --minutes, goes on from there when the same command is given again.

"wrong" is an answer that would be called verified and is not the puzzle's. --margin and --doubt replace the limits of
hrm_edge.vision.judge; all its limits were chosen with other seeds (0, 2 and 2001), on puzzles of their own.
--writing names a file of handwritten digits (see recipes/digits.yaml); those are used that training leaves out.
Fonts: Debian's fonts-inter fonts-cantarell fonts-firacode fonts-jetbrains-mono fonts-ebgaramond fonts-cabin
fonts-sil-charis fonts-quicksand fonts-klee.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

from photos import outcome, reason
from program import program

from hrm_edge.data.generator import Wanted, generate
from hrm_edge.device.identity import describe_device
from hrm_edge.digits.camera import photograph
from hrm_edge.digits.fonts import Font, find_fonts
from hrm_edge.digits.hands import drawn_hand, load_hands
from hrm_edge.digits.sheet import Content, draw_sheet
from hrm_edge.digits.train import KEPT_HANDS
from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_json, write_text
from hrm_edge.report.figures import wilson_95
from hrm_edge.tasks.sudoku import FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision import judge
from hrm_edge.vision.images import Image
from hrm_edge.vision.read import MODEL, Reader
from hrm_edge.vision.recognise import recognise

Digits = NDArray[np.uint8]  # [81], 0 for a blank

PRINTED = (
    "Inter-*", "Cantarell-*", "FiraCode-*", "JetBrainsMono-*", "EBGaramond*-Regular", "Cabin-*", "CharisSIL-*",
    "Quicksand-*",
)  # fmt: skip
HAND = ("KleeOne-*",)
CONDITIONS = ("plain", "small", "scan", "written")
LIMITS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6)  # nats, for which the right answers are counted that they would keep
CODE = sorted(Path(judge.__file__).parent.glob("*.py"))  # a run goes on with the code that it began with
PUZZLES = 200  # generated; each is then renamed, moved and turned into as many as are wanted


@dataclass
class Drawn:
    """One picture and what it shows."""

    condition: str
    image: Image
    label: Digits
    """The printed digits: the puzzle."""
    solution: Digits


def moved(rng: np.random.Generator, pair: list[Digits]) -> list[Digits]:
    """Grids [81] with their digits renamed, rows, columns and boxes exchanged, and perhaps transposed: all alike."""
    names = np.concatenate([[0], rng.permutation(9) + 1]).astype(np.uint8)
    rows, columns = (
        (3 * rng.permutation(3)[:, None] + np.stack([rng.permutation(3) for _ in range(3)])).ravel() for _ in "rc"
    )
    turn = bool(rng.integers(2))
    grids = [names[digits].reshape(9, 9)[rows][:, columns] for digits in pair]
    return [np.ascontiguousarray(grid.T if turn else grid).ravel() for grid in grids]


class Press:
    """Draws and photographs puzzles, of which ``base`` holds (puzzle, solution)."""

    def __init__(self, seed: int, writing: str, base: list[list[Digits]]) -> None:
        self.seed, self.base = seed, base
        rng = np.random.default_rng([seed, 77])
        self.printed: list[Font] = find_fonts(PRINTED)
        self.hands: list[list[Font]] = [find_fonts(HAND), [drawn_hand(rng) for _ in range(100)]]
        if writing:
            self.hands.append(load_hands(writing)[:KEPT_HANDS])

    def draw(self, number: int) -> Drawn:
        """The picture of a number, the same whatever was drawn before."""
        rng, entries = np.random.default_rng([self.seed, 78, number]), None
        condition = CONDITIONS[number % len(CONDITIONS)]
        puzzle, solution = moved(rng, self.base[rng.integers(len(self.base))])
        height = float(rng.uniform(0.42, 0.8) if condition in ("plain", "written") else rng.uniform(0.2, 0.42))
        if condition == "written":
            entries = np.where(rng.random(81) < rng.uniform(0.1, 1.0), solution, 0).astype(np.uint8)
            if rng.random() < 0.5:
                slips = rng.choice(81, int(rng.integers(1, 6)), replace=False)
                entries[slips] = (entries[slips] + rng.integers(1, 9, len(slips)) - 1) % 9 + 1
        sheet = draw_sheet(
            rng, self.printed, self.hands[rng.integers(len(self.hands))], Content(puzzle, entries, height)
        )
        if condition == "scan":
            gray = np.asarray(255 * np.clip(1 - rng.uniform(0.5, 1) * sheet.darkness, 0, 1), np.uint8)
            scale = float(rng.uniform(0.7, 2.5))
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            gray = np.asarray(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=how), np.uint8)
        else:
            gray, _ = photograph(rng, sheet, float(np.exp(rng.uniform(np.log(12), np.log(32)))))
        return Drawn(condition, np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), np.uint8), puzzle, solution)


class Kept:
    """Results of pictures as they come, in a file of JSON lines: first what they depend on, then one a picture."""

    def __init__(self, path: Path | None, about: dict[str, Any], task: Sudoku) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path is None or not path.exists():
            self.base = generate(task, PUZZLES, about["seed"], Wanted(clues=(24, 36))).puzzles.givens
            self._add({**about, "puzzles": [task.format(tokens) for tokens in self.base]})
            return
        # what a killed run was writing has no end of line
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        first = lines[0] if lines else {}
        self.base = np.array([task.parse(text) for text in first.pop("puzzles", [])])
        if first != about:
            raise UserError(f"{path} holds results of other pictures: {first}, not {about}", "name another file")
        self.rows = lines[1:]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, row: dict[str, Any]) -> None:
        """Keep what came of the next picture."""
        self.rows.append(row)
        self._add(row)

    def _add(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def digits_of(tokens: NDArray[np.uint8]) -> Digits:
    return np.where(tokens >= FIRST_DIGIT, tokens - FIRST_DIGIT + 1, 0).astype(np.uint8)


def measure(drawn: Drawn, reader: Reader, task: Sudoku) -> dict[str, Any]:
    """What came of one picture."""
    try:
        found = recognise(drawn.image, reader, task)
    except UserError as error:
        return {"condition": drawn.condition, "outcome": "refused", "why": reason(error)}
    verdict = found.verdict
    if verdict.puzzle is None:
        assert verdict.why is not None
        return {"condition": drawn.condition, "outcome": "refused", "why": reason(verdict.why), "doubt": verdict.doubt}
    kind = outcome(found, drawn.label, task)
    return {
        "condition": drawn.condition,
        "outcome": "right" if kind == "right" else kind,
        "said_doubtful": bool(verdict.doubtful or verdict.repaired or verdict.ignored),
        "doubt": verdict.doubt,
        "repaired": len(verdict.repaired),
        "ignored": len(verdict.ignored),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by outcome, and the doubt of right and wrong answers."""
    count = len(rows)
    kinds = Counter(row["outcome"] for row in rows)
    answered = kinds["right"] + kinds["right answer"]
    found: dict[str, Any] = {
        "count": count,
        "exact": kinds["right"],
        "exact_said_doubtful": sum(row["outcome"] == "right" and row["said_doubtful"] for row in rows),
        "right_answer_not_exact": kinds["right answer"],
        "wrong": kinds["wrong"],
        "wrong_share_interval_95": wilson_95(kinds["wrong"], count),
        "refused": kinds["refused"],
        "refused_share": kinds["refused"] / count,
        "answered_share": answered / count,
        "refused_by_reason": dict(Counter(row["why"] for row in rows if row["outcome"] == "refused")),
    }
    for name, repaired in (("as_read", False), ("repaired", True)):
        doubts = {
            kind: sorted(
                row["doubt"] for row in rows if row["outcome"] in kinds_of and (row["repaired"] > 0) == repaired
            )
            for kind, kinds_of in (("right", ("right", "right answer")), ("wrong", ("wrong",)))
        }
        right = doubts["right"]
        found[f"doubt_{name}"] = {
            "right": len(right),
            "right_quantiles": {f"{q:g}": float(np.quantile(right, q)) for q in (0.5, 0.9, 0.95, 0.99, 1)}
            if right
            else {},
            "wrong": [round(doubt, 3) for doubt in doubts["wrong"]],
            "right_below": {f"{nats:g}": sum(doubt <= nats for doubt in right) for nats in LIMITS},
        }
    return found


@program
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puzzles", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s; 0 chose the limits")
    parser.add_argument("--writing", default="", help="file of handwritten digits")
    parser.add_argument("--digits", type=Path, default=MODEL, help="digit network (default: the shipped one)")
    parser.add_argument("--doubt", type=float, default=judge.MAX_DOUBT, help="most of an answer, in nats")
    parser.add_argument("--margin", type=float, default=judge.MARGIN, help="least to another answer, in nats")
    parser.add_argument("--rows", type=Path, help="file in which each picture's result is kept; a run goes on with it")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--failures", type=Path, help="folder for the pictures that were answered wrongly")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    judge.MAX_DOUBT, judge.MARGIN = arguments.doubt, arguments.margin
    task, until = Sudoku(3, 3), time.perf_counter() + 60 * arguments.minutes
    about = {
        "seed": arguments.seed,
        "written_digits": bool(arguments.writing),
        "max_doubt_nats": arguments.doubt,
        "margin_nats": arguments.margin,
        "digits_sha256": sha256(arguments.digits),
        "reader_sha256": hashlib.sha256(b"".join(path.read_bytes() for path in CODE)).hexdigest(),
    }
    kept = Kept(arguments.rows, about, task)
    base = [[digits_of(tokens), digits_of(require_unique(task, tokens))] for tokens in kept.base]
    reader, press = Reader(arguments.digits), Press(arguments.seed, arguments.writing, base)
    while len(kept.rows) < arguments.puzzles and time.perf_counter() < until:
        number = len(kept.rows)
        drawn = press.draw(number)
        kept.add(measure(drawn, reader, task))
        if kept.rows[-1]["outcome"] == "wrong" and arguments.failures:
            arguments.failures.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(arguments.failures / f"{drawn.condition}-{number}.png"), drawn.image)
        if (number + 1) % 100 == 0:
            counts = Counter(row["outcome"] for row in kept.rows)
            print(f"{number + 1}: {dict(counts)}", file=sys.stderr, flush=True)
    rows = kept.rows
    by_condition = {name: summary([r for r in rows if r["condition"] == name]) for name in CONDITIONS}
    found = {**summary(rows), "conditions": by_condition}
    for key, value in found.items():
        print(f"{key}: {value}")
    if arguments.json:
        document = {
            "kind": "reading",
            "command": f"python benchmarks/reading.py --puzzles {len(rows)} --seed {arguments.seed}",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **about,
            "device": describe_device().model_dump(mode="json"),
            **found,
        }
        write_json(arguments.json, document)
    return int(found["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
