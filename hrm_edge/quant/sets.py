"""Puzzles that calibrate an INT8 export and puzzles that check it: two sets that share none.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hrm_edge.data.canonical import has_canonical, identities, keys
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.layout import is_data_folder
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.files import read_json, sha256
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file

_PACKAGE = Path(__file__).parent.parent
# A wheel has the folder inside the package; a checkout has it beside the package.
CALIBRATION = _PACKAGE / "calibration" if (_PACKAGE / "calibration").is_dir() else _PACKAGE.parent / "calibration"
INDEX_FILE = "sets.json"
_MINIMUM_PUZZLES = 16
_MOST_PUZZLES = 10_000  # read of a data folder's part: more would only cost memory


def shipped_set(task: str) -> Path | None:
    """Return the package's calibration set for ``task``, or None; a changed file is a ``UserError``."""
    file = CALIBRATION / f"{task}.csv"
    if not file.is_file():
        return None
    listed = read_json(CALIBRATION / INDEX_FILE).get(file.name, {}).get("sha256")
    if sha256(file) != listed:
        raise UserError(
            f"{file}: its sha256 is not the one in {INDEX_FILE}: the calibration set was changed",
            "install the package again, or name your own set: --calibration PATH",
        )
    return file


def puzzle_sets(
    path: Path | None, task_name: str, *, calibrate_on: int, check_on: int
) -> tuple[Puzzles | None, Puzzles]:
    """Return (calibration set, check set), disjoint, of at most so many puzzles; no calibration set where it is 0.

    A built folder's train part calibrates and its test part checks; of a puzzle file the first half calibrates and
    the second checks. Without a path the set that ships for the task calibrates, and the package's own puzzles check.
    Raises ``UserError`` where a set is missing, too small, of another task, or overlaps the other.
    """
    task = get_task(task_name)
    calibration, check = _shipped(task, bool(calibrate_on)) if path is None else _given(path, task)
    if not len(check):
        raise UserError(f"{path} has no puzzles to check the export on", "give a larger set with --calibration")
    check = check.head(check_on)
    if not calibrate_on:
        return None, check
    assert calibration is not None
    calibration = calibration.head(calibrate_on)
    if len(calibration) < _MINIMUM_PUZZLES:
        raise UserError(
            f"the calibration set has {len(calibration)} puzzles, at least {_MINIMUM_PUZZLES} are needed",
            "give a larger one with --calibration",
        )
    _require_disjoint(task, calibration, check)
    return calibration, check


def _shipped(task: Task, calibrate: bool) -> tuple[Puzzles | None, Puzzles]:
    sample = sample_file(task.name)
    if sample is None:
        raise UserError(f"the package has no puzzles of {task.name} to check on", "name a set: --calibration PATH")
    check = _of(load_puzzles(sample, task), "the package's own puzzles")
    file = shipped_set(task.name) if calibrate else None
    if calibrate and file is None:
        raise UserError(
            f"INT8 needs real puzzles to calibrate on, and the package has no set for {task.name}",
            "name a data folder or file: --calibration PATH",
        )
    return None if file is None else _of(load_puzzles(file, task), f"calibration/{file.name}"), check


def _given(path: Path, task: Task) -> tuple[Puzzles, Puzzles]:
    if not path.exists():
        raise UserError(f"--calibration {path}: there is no such file or folder", "check the path")
    if is_data_folder(path):
        calibration, check = (Dataset(path, split, task).head(_MOST_PUZZLES) for split in ("train", "test"))
        return calibration, check
    puzzles = load_puzzles(path, task=task)
    half = len(puzzles) // 2
    return _of(puzzles[:half], f"{path.name}, first half"), _of(puzzles[half:], f"{path.name}, second half")


def _of(puzzles: Puzzles, called: str) -> Puzzles:
    task, labels = puzzles.task, puzzles.labels
    if not puzzles.answered().all() and task.family == "maze":  # a shortest path is found at once
        answers = [task.only_answer(givens) for givens in puzzles.givens]
        labels = np.stack([answer for answer in answers if answer is not None])
    return Puzzles.of(task, puzzles.givens, labels, puzzles.ids, called=called)


def _require_disjoint(task: Task, calibration: Puzzles, check: Puzzles) -> None:
    """Raise ``UserError`` where a puzzle of one set is one of the other's, or a symmetry of it."""
    small = task.seq_len <= 16  # all 4x4 puzzles are in few classes
    a, b = (keys(p.givens) if small else identities(task, p.givens) for p in (calibration, check))
    how = "the same or a symmetry of it" if has_canonical(task) and not small else "the same"
    shared = np.flatnonzero(np.isin(b, a))
    if len(shared):
        raise UserError(
            f"{len(shared)} of {len(check)} puzzles of {check.source.path} are in {calibration.source.path} too "
            f"({how}), the first of them number {shared[0] + 1}",
            "calibrate on other puzzles: an export is not measured on what it was calibrated with",
        )
