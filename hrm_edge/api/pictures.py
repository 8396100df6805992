"""Puzzles out of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrm_edge.callbacks import OnProgress
from hrm_edge.errors import UserError
from hrm_edge.files import check_writable
from hrm_edge.manifest import MANIFEST
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import SeveralSolutions
from hrm_edge.vision.formats import FORMATS, SUFFIXES, is_picture, pictures_of

if TYPE_CHECKING:
    from hrm_edge.vision.read import Reading
    from hrm_edge.vision.recognise import Recognised

_CERTAIN = 0.9  # probability of a cell's digit: 9 of 10 readings of newspapers that are right have no cell below


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture's puzzle, or why there is none."""

    path: Path
    recognised: Recognised | None
    error: UserError | None

    @property
    def puzzle(self) -> Tokens | None:
        """Tokens [81] that the rules accepted."""
        return None if self.recognised is None else self.recognised.verdict.puzzle

    def about(self) -> dict[str, Any]:
        """Return what the JSON of ``solve`` says of the picture."""
        if self.recognised is None:
            return {"error": str(self.error)}
        reading, verdict = self.recognised.reading, self.recognised.verdict
        document: dict[str, Any] = {
            "read": "".join(map(str, reading.digits.tolist())),
            "repaired": list(verdict.repaired),
            "doubtful": [_doubt(reading, cell) for cell in sorted({*verdict.repaired, *verdict.doubtful})],
            "written_ignored": list(verdict.ignored),
            "written_disagreeing": list(verdict.disagreeing),
            "corners": reading.grid.corners.round(1).tolist(),
            "orientation": reading.orientation,
            "grids": self.recognised.grids,
            **{f"{stage}_ms": ms for stage, ms in self.recognised.ms.items()},
        }
        return document if self.error is None else {"error": str(self.error), **document}

    def remarks(self) -> str:
        """Return notes about the reading for a person; empty where there is nothing to say."""
        from hrm_edge.vision.judge import doubts_text

        notes = []
        if self.recognised is None:
            return ""
        if self.recognised.grids > 1:
            notes.append(f"one of {self.recognised.grids} grids in the picture")
        return "; ".join(notes + doubts_text(self.recognised.reading, self.recognised.verdict))


def _doubt(reading: Reading, cell: int) -> dict[str, Any]:
    """Return a cell in doubt, for programs: ``read`` is 0 for a blank."""
    return {
        "cell": cell,
        "row": cell // 9 + 1,
        "column": cell % 9 + 1,
        "read": int(reading.digits[cell]),
        "probability": round(float(reading.confidence[cell]), 3),
    }


def picture_paths(puzzle: str) -> list[Path]:
    """Return the picture, or those of the folder, that ``puzzle`` names; empty where it names neither.

    A picture is known by its ending, and where that says nothing by its content.
    """
    path = Path(puzzle)
    if path.suffix.lower() in SUFFIXES:
        if not path.exists():
            raise UserError(f"{puzzle}: no such file", "check the path")
        return [path]
    try:
        is_folder = path.is_dir()
    except OSError:  # longer than a file name may be
        return []
    if not is_folder and is_picture(path):
        return [path]
    if not is_folder or any((path / name).exists() for name in (MANIFEST, "dataset.json")):
        return []
    return pictures_of(path)


def read_pictures(paths: list[Path], task: Task, model: str, on_progress: OnProgress) -> list[Picture]:
    """Locate, read and judge every picture; faults of a picture are kept in it."""
    if task.name != "sudoku":
        raise UserError(f"pictures are read as 9x9 Sudokus, {model} solves {task.name}", "name another --model")
    try:
        from hrm_edge.vision.read import Reader
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise UserError("reading pictures needs OpenCV", "pip install 'hrm-edge[vision]'") from error
    reader, pictures = Reader(), []
    for done, path in enumerate(paths, 1):
        pictures.append(_read(path, reader, Sudoku()))
        on_progress("reading", done, len(paths))
    return pictures


def _read(path: Path, reader: Any, task: Sudoku) -> Picture:
    from hrm_edge.vision.images import load_image
    from hrm_edge.vision.recognise import recognise

    try:
        recognised = recognise(load_image(path), reader, task)
    except UserError as error:
        problem = error.problem if error.problem.startswith(str(path)) else f"{path}: {error.problem}"
        return Picture(path, None, UserError(problem, error.hint))
    why = recognised.verdict.why
    if why is None:
        return Picture(path, recognised, None)
    reason = why.problem.removeprefix("contradictory givens: ")
    return Picture(path, recognised, UserError(f"{path}: cannot be solved: {reason}", _advice(why, recognised)))


def _advice(why: UserError, recognised: Recognised) -> str:
    """Say what helps where a picture was read, but what was read is no puzzle."""
    from hrm_edge.vision.judge import MIN_GIVENS

    reading = recognised.reading
    if (reading.digits > 0).sum() < MIN_GIVENS:
        return why.hint
    doubtful = np.flatnonzero(reading.confidence < _CERTAIN)
    typed = f"correct what was read and type it:\n  hrm-edge solve {''.join(map(str, reading.digits.tolist()))}"
    if isinstance(why, SeveralSolutions) and not len(doubtful):
        return (
            "every cell was read clearly, so the puzzle seems to have more rules than Sudoku's, such as diagonals "
            f"(Sudoku-X) or extra boxes (Hyper-Sudoku), which are not supported; where a given is missing, {typed}"
        )
    cells = ", ".join(f"row {cell // 9 + 1} column {cell % 9 + 1}" for cell in doubtful[:5])
    unsure = f" (least sure: {cells}{', ...' if len(doubtful) > 5 else ''})" if cells else ""
    return f"take a sharper picture{unsure}, or {typed}"


def givens_of(pictures: list[Picture]) -> Tokens:
    """Return the tokens [N, 81] of the pictures that have a puzzle."""
    puzzles = [picture.puzzle for picture in pictures if picture.puzzle is not None]
    return np.stack(puzzles) if puzzles else np.zeros((0, 81), np.uint8)


def draw_overlay(picture: Picture, answer: Tokens, target: Path) -> None:
    """Write the picture with the verified ``answer`` [81] in its blanks."""
    from hrm_edge.vision.images import load_image, save_image
    from hrm_edge.vision.overlay import draw_result

    assert picture.recognised is not None
    image = load_image(picture.path)
    draw_result(image, picture.recognised.reading.grid, picture.recognised.verdict, answer)
    save_image(image, target)


def check_overlay(overlay: Path, puzzle: str, paths: list[Path]) -> None:
    """Raise ``UserError`` where ``--overlay`` cannot be written; ``paths``: the pictures that ``puzzle`` names."""
    if not paths:
        raise UserError(f"--overlay: {puzzle} is no picture", "leave --overlay out, or solve a picture")
    if Path(puzzle).is_dir():
        if overlay.exists() and (not overlay.is_dir() or overlay.resolve() == Path(puzzle).resolve()):
            raise UserError(f"--overlay {overlay}: not a folder of its own", "name another folder with --overlay")
        check_writable("--overlay", overlay / paths[0].name)
    elif overlay.suffix.lower() not in FORMATS:
        raise UserError(f"--overlay {overlay}: what format?", f"end it in {', '.join(FORMATS)}")
    else:
        check_writable("--overlay", overlay)
