"""Say whether a built data folder's training puzzles share a symmetry class with any puzzle of test files.

    python scripts/disjoint.py data/sudoku easy50.txt newspaper.txt sudoku-extreme-test-10k.csv

Compares canonical forms (3,359,232 x 9! symmetries); exit code 1 where one is shared. About 6,000 puzzles a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from rich.progress import track

from hrm_edge.data.canonical import identities
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku import Sudoku

PIECE = 20_000


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(data: Path, files: tuple[Path, ...]) -> None:
    task = get_task("sudoku")
    assert isinstance(task, Sudoku)
    tested = {file: identities(task, load_puzzles(file, task).givens) for file in files}
    shared = dict.fromkeys(files, 0)
    train = Dataset(data, "train", task)
    for start in track(range(0, len(train), PIECE), f"{len(train):,} training puzzles"):
        rows = np.arange(start, min(start + PIECE, len(train)))
        seen = identities(task, train.examples(rows)[0])
        for file, names in tested.items():
            shared[file] += int(np.isin(names, seen).sum())
    for file, count in shared.items():
        click.echo(f"{file.name}: {count} of {len(tested[file])} puzzles are in the training data, up to symmetry")
    sys.exit(any(shared.values()))


if __name__ == "__main__":
    main()
