"""Write calibration/: generated puzzles, easy and hard mixed, that INT8 export calibrates on by default.

python scripts/calibration.py
"""

from __future__ import annotations

import numpy as np

from hrm_edge.data.canonical import identities
from hrm_edge.data.generator import DIFFICULTIES, Wanted, default_wanted, generate
from hrm_edge.files import sha256, write_json, write_text
from hrm_edge.quant.sets import CALIBRATION, INDEX_FILE
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import BLANK, Sudoku

EACH = 128  # puzzles per difficulty
SEED = 4052  # no recipe uses it, nor do the package's own puzzles
TASK = Sudoku(3, 3)


def _samples() -> np.ndarray:
    path = sample_file(TASK.name)
    assert path is not None
    questions = [line.partition(",")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return identities(TASK, np.stack([TASK.parse(question) for question in questions]))


def main() -> None:
    shipped, rng = _samples(), np.random.default_rng(SEED)
    lines = []
    for number, (name, guesses) in enumerate(DIFFICULTIES.items()):
        wanted = Wanted(clues=default_wanted(TASK).clues, guesses=guesses)
        generated = generate(TASK, EACH, SEED + number, wanted, accept=lambda classes: ~np.isin(classes, shipped))
        puzzles = generated.puzzles
        assert puzzles.labels is not None
        for question, answer in zip(puzzles.givens, puzzles.labels, strict=True):
            if name == "easy":  # what a person types has more clues than a minimal puzzle
                blanks = np.flatnonzero(question == BLANK)
                given = rng.choice(blanks, int(rng.integers(0, 25)), replace=False)
                question[given] = answer[given]
            lines.append(f"{TASK.format(question)},{TASK.format(answer)},{name}\n")
    order = rng.permutation(len(lines))  # whatever number an export takes from the head is mixed
    file = CALIBRATION / f"{TASK.name}.csv"
    write_text(file, "question,answer,source\n" + "".join(lines[i] for i in order))
    about = {"task": TASK.name, "puzzles": len(lines), "per_difficulty": EACH, "seed": SEED, "sha256": sha256(file)}
    write_json(CALIBRATION / INDEX_FILE, {file.name: about})


if __name__ == "__main__":
    main()
