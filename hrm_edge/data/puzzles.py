"""Puzzles to measure or solve: the test part of a data folder, or a file of puzzles. Needs no extra."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hrm_edge.data.files import read_puzzles
from hrm_edge.data.layout import is_data_folder, read_part, task_of
from hrm_edge.data.sources import folder_files
from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.puzzles import Puzzles, Source


def load_puzzles(path: Path | str, task: Task | None = None, limit: int | None = None) -> Puzzles:
    """Return the first ``limit`` puzzles (None: all) of ``path``, without reading more than needed.

    ``path``: a built data folder (its test part), a hub's folder (its ``test.csv``), a file (see ``read_puzzles``), or
    ``-`` for standard input. ``task`` None: that of the folder or of the first puzzle. Raises ``UserError`` for any
    error in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        return read_puzzles(path, task, limit)
    if not is_data_folder(folder):
        return read_puzzles(folder_files(folder, task)["test"], task, limit)
    part = read_part(folder, "test", task, scan=limit)
    if task is None:
        name = task_of(part.metadata)
        if name is None:
            raise UserError(f"{path} does not say what task it is of", "build it with 'hrm-edge data build'")
        task = get_task(name)
    inputs, labels = (np.array(array[:limit], np.uint8) for array in (part.inputs, part.labels))
    source = Source(str(path), "a data folder, its test part", "test", np.arange(len(inputs)))
    puzzles = Puzzles(task, inputs, labels, part.identifiers()[:limit], source)
    known = puzzles.answered() & task.has_rules
    for row in np.flatnonzero(known)[~task.verify(inputs[known], labels[known])][:1]:
        raise UserError(f"{path}, test example {row}: the label does not solve the input", "build the folder again")
    return puzzles
