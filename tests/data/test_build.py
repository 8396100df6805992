"""``data build`` from every source, as the command line runs it."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.cli.main import main
from hrm_edge.data.canonical import identities
from hrm_edge.data.generator import Wanted, generate
from hrm_edge.data.layout import Part, read_part
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku
from tests.data.written import same_bytes

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)


@pytest.fixture(scope="module")
def puzzle_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 puzzles without answers, of which 10 are symmetries of the first 10."""
    made = generate(NINE, 90, 11, Wanted()).puzzles.givens
    views = NINE.random_views(10, np.random.default_rng(0)).apply(made[:10])
    path = tmp_path_factory.mktemp("source") / "puzzles.txt"
    path.write_text("\n".join(NINE.format(row) for row in np.concatenate([made, views])) + "\n")
    return path


def parts(folder: Path, task: Sudoku) -> tuple[Part, Part]:
    return read_part(folder, "train", task), read_part(folder, "test", task)


@pytest.mark.parametrize("task", [MINI, Sudoku(2, 3), NINE], ids=lambda task: task.name)
def test_generated_parts_share_no_class(task: Sudoku, tmp_path: Path) -> None:
    summary = build(task, tmp_path / "out", Options(count=200, test_count=100, seed=3))
    train, test = parts(tmp_path / "out", task)
    assert (len(train), len(test)) == (200, 100) == (summary.parts["train"].groups, summary.parts["test"].groups)
    for part in (train, test):
        assert task.verify(part.inputs, part.labels).all()
    assert not np.isin(identities(task, test.inputs), identities(task, train.inputs)).any()


def test_same_seed_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    command = [
        "data",
        "build",
        "sudoku",
        "--count",
        "80",
        "--test-count",
        "20",
        "--augment",
        "3",
        "--difficulty",
        "hard",
    ]
    assert main([*command, "--seed", "7", "--out", str(tmp_path / "one")]) == 0
    assert main([*command, "--seed", "7", "--out", str(tmp_path / "two"), "--processes", "2"]) == 0
    assert same_bytes(tmp_path / "one", tmp_path / "two")
    assert main([*command, "--seed", "8", "--out", str(tmp_path / "other")]) == 0
    assert not same_bytes(tmp_path / "one", tmp_path / "other")


def test_file_is_solved_split_and_augmented(tmp_path: Path, puzzle_file: Path) -> None:
    options = Options(source=str(puzzle_file), test_count=30, augment=4, seed=2)
    summary = build(NINE, tmp_path / "out", options)
    train, test = parts(tmp_path / "out", NINE)
    assert (len(test), summary.dropped + summary.parts["train"].groups) == (30, 70)
    assert 0 < summary.dropped <= 10
    assert summary.solved == 100 - summary.dropped
    assert len(train) == 5 * summary.parts["train"].groups
    assert NINE.verify(train.inputs, train.labels).all()
    groups = identities(NINE, train.inputs).reshape(-1, 5)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0])) >= len(groups) - 10
    assert not np.isin(identities(NINE, test.inputs), groups).any()
    originals = {line for line in puzzle_file.read_text().split() if line}
    assert {NINE.format(row) for row in train.inputs[::5]} < originals
    assert len(np.unique(train.inputs, axis=0)) == len(train)
    build(NINE, tmp_path / "again", options)
    assert same_bytes(tmp_path / "out", tmp_path / "again")


def test_subsample(tmp_path: Path, puzzle_file: Path) -> None:
    build(NINE, tmp_path / "out", Options(source=str(puzzle_file), subsample=20, test_count=10))
    train, test = parts(tmp_path / "out", NINE)
    assert (len(train), len(test)) == (20, 10)
    with pytest.raises(UserError, match=r"--subsample 95: .* training puzzles besides the 10 test puzzles"):
        build(NINE, tmp_path / "no", Options(source=str(puzzle_file), subsample=95, test_count=10))
    with pytest.raises(UserError, match="--test-count 100 leaves none of the 100 puzzles"):
        build(NINE, tmp_path / "no", Options(source=str(puzzle_file), test_count=100))


def test_hub_layout(tmp_path: Path) -> None:
    made = generate(NINE, 30, 12, Wanted()).puzzles
    lines = [f"x,{NINE.format(q)},{NINE.format(a)},1" for q, a in zip(made.givens, made.labels, strict=True)]
    (tmp_path / "hub").mkdir()
    for name, rows in (("train.csv", lines[:20]), ("test.csv", lines[20:])):
        (tmp_path / "hub" / name).write_text("\n".join(["source,question,answer,rating", *rows]) + "\n")
    summary = build(NINE, tmp_path / "out", Options(source=str(tmp_path / "hub"), subsample=8))
    train, test = parts(tmp_path / "out", NINE)
    assert (test.inputs == made.givens[20:]).all()
    assert (test.labels == made.labels[20:]).all()
    assert len(train) == 8
    assert {row.tobytes() for row in train.inputs} < {row.tobytes() for row in made.givens[:20]}
    assert (summary.solved, summary.dropped) == (0, 0)
    with pytest.raises(UserError, match=r"--subsample 21: .*train\.csv has only 20 puzzles"):
        build(NINE, tmp_path / "no", Options(source=str(tmp_path / "hub"), subsample=21))


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ("0" * 81, r"line 2: the puzzle has several solutions: row \d, column \d can be"),
        ("123456780" + "0" * 8 + "9" + "0" * 63, "line 2: the puzzle has no solution"),
    ],
)
def test_questions_without_one_solution(tmp_path: Path, puzzle_file: Path, puzzle: str, message: str) -> None:
    first = puzzle_file.read_text().splitlines()[0]
    path = tmp_path / "bad.txt"
    path.write_text(f"{first}\n{puzzle}\n")
    with pytest.raises(UserError, match=message):
        build(NINE, tmp_path / "out", Options(source=str(path), test_count=0))
    assert sorted(tmp_path.iterdir()) == [path]


def test_no_test_part_when_none_is_wanted(tmp_path: Path) -> None:
    build(MINI, tmp_path / "out", Options(count=10, test_count=0))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["identifiers.json", "train"]


def test_table_and_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["data", "build", "mini-sudoku", "--out", str(tmp_path / "d"), "--count", "50", "--test-count", "9"]) == 0
    )
    out = capsys.readouterr().out
    assert "mini-sudoku in" in out
    assert "train" in out
    assert out.rstrip().endswith(f"hrm-edge train mini-sudoku_nano --data {tmp_path / 'd'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sudoko"], "did you mean 'sudoku'?"),
        (["sudoku", "--difficulty", "hrad"], "did you mean 'hard'?"),
        (["sudoku", "--difficulty", "hard", "--min-guesses", "2"], "leave out --min-guesses"),
        (["sudoku", "--clues", "few"], "--clues few is no number of clues"),
        (["sudoku", "--clues", "9"], "fewer than 17 clues"),
        (["sudoku", "--count", "0"], "--count 0 is too small"),
        (["sudoku", "--subsample", "5"], "say how many with --count"),
        (["sudoku", "--source", "nowhere.csv"], "nowhere.csv: No such file"),
        (["sudoku", "--source", "nowhere.csv", "--clues", "30"], "belong to --source generate"),
        (["mini-sudoku", "--difficulty", "hard"], "never need a guess"),
        (["mini-sudoku", "--source", "hub"], "hub has no data set of mini-sudoku"),
        (["mini-sudoku", "--augment", "-1"], "--augment -1 is too small"),
        (["mini-sudoku", "--sead", "1"], "--seed"),
    ],
)
def test_errors_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["data", "build", *arguments, "--out", str(tmp_path / "deep" / "out")]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.out == ""
    assert not (tmp_path / "deep" / "out").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def add(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("hrm_edge.data.layout.PartWriter.add", add)
    assert main(["data", "build", "mini-sudoku", "--out", str(tmp_path / "out"), "--count", "9"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["data", "build", "mini-sudoku", "--out", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
