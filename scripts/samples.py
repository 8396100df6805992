"""Write the puzzles that ship with the package: generated, seeded, one solution each."""

from __future__ import annotations

from hrm_edge.data.generator import default_wanted, generate
from hrm_edge.files import write_text
from hrm_edge.tasks.samples import SAMPLES
from hrm_edge.tasks.sudoku import Sudoku

COUNT = 256
SEED = 2026  # no recipe uses it


def main() -> None:
    for task in (Sudoku(3, 3), Sudoku(2, 2)):
        puzzles = generate(task, COUNT, SEED, default_wanted(task)).puzzles
        assert puzzles.labels is not None
        rows = (f"{task.format(q)},{task.format(a)}\n" for q, a in zip(puzzles.givens, puzzles.labels, strict=True))
        write_text(SAMPLES / f"{task.name}.csv", "question,answer\n" + "".join(rows))


if __name__ == "__main__":
    main()
