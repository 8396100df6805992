"""``data build maze``: generated mazes and files, as the command line runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hrm_edge.cli.main import main
from hrm_edge.data.files import read_puzzles
from hrm_edge.data.layout import read_part
from hrm_edge.data.maze import Options, _default_length, build, classes, generate
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.maze import PATH, Maze
from tests.data.written import same_bytes

SMALL, HARD = Maze(8, 8), Maze()


def parts(folder: Path, task: Maze) -> tuple[tuple[Tokens, Tokens], tuple[Tokens, Tokens]]:
    train, test = (read_part(folder, split, task) for split in ("train", "test"))
    return (np.array(train.inputs), np.array(train.labels)), (np.array(test.inputs), np.array(test.labels))


def write_csv(path: Path, mazes: Tokens, answers: Tokens | None, task: Maze = SMALL) -> Path:
    rows = ["source,question,answer,rating"]
    for row, maze in enumerate(mazes):
        rows.append(f"list-{row},{task.format(maze)},{'' if answers is None else task.format(answers[row])},1")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_hard_mazes_have_paths_of_more_than_110(tmp_path: Path) -> None:
    summary = build(HARD, tmp_path / "out", Options(count=12, test_count=4, seed=3))
    for (inputs, labels), count in zip(parts(tmp_path / "out", HARD), (12, 4), strict=True):
        assert len(inputs) == count
        assert HARD.optimal(inputs, labels).all()
        assert (HARD.shortest(inputs) >= 112).all()
        assert ((labels == PATH).sum(axis=1) > 110).all()
        assert (labels == HARD.label(inputs)).all(), "a label is a function of its maze"
    assert summary.parts["train"].moves[0] >= 112
    assert 0.3 < summary.parts["train"].walls < 0.45


def test_default_length_scales_with_the_board() -> None:
    assert [_default_length(task) for task in (HARD, Maze(15, 15), Maze(60, 60), Maze(2, 2))] == [112, 28, 224, 1]


def test_same_seed_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    for name, seed, processes in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        build(SMALL, tmp_path / name, Options(count=30, test_count=10, augment=2, seed=seed, processes=processes))
    assert same_bytes(tmp_path / "one", tmp_path / "two")
    assert not same_bytes(tmp_path / "one", tmp_path / "other")


def test_parts_share_no_class_and_more_is_a_continuation() -> None:
    few, many = (generate(SMALL, count, 1, min_length=9) for count in (20, 60))
    assert (few == many[:20]).all()
    names = classes(SMALL, many)
    assert len(set(names)) == 60
    rest = generate(SMALL, 60, 1, min_length=9, avoid=set(names[:30]))
    assert not set(classes(SMALL, rest)) & set(names[:30])
    turned = SMALL.random_views(60, np.random.default_rng(0)).apply(many)
    assert classes(SMALL, turned) == names


@pytest.mark.parametrize("task", [SMALL, Maze(6, 9)], ids=lambda task: task.name)
def test_augmented_groups(task: Maze, tmp_path: Path) -> None:
    most = len(task.symmetries()) - 1
    build(task, tmp_path / "out", Options(count=20, test_count=5, augment=most, seed=1))
    part = read_part(tmp_path / "out", "train", task)
    assert part.group_indices.tolist() == list(range(0, 21 * (most + 1), most + 1))
    inputs, labels = np.array(part.inputs), np.array(part.labels)
    assert task.optimal(inputs, labels).all()
    assert (labels == task.label(inputs)).all()
    for group in inputs.reshape(20, most + 1, -1):
        assert len(set(classes(task, group))) == 1
        assert set(map(bytes, group)) == {bytes(group[0][cells]) for cells in task.symmetries()}
    assert len(read_part(tmp_path / "out", "test", task)) == 5
    with pytest.raises(UserError, match=f"--augment {most + 1}: {task.name} has {most} other symmetries"):
        build(task, tmp_path / "more", Options(augment=most + 1))


def test_labels_of_another_rule_are_kept_and_turned(tmp_path: Path) -> None:
    mazes = generate(SMALL, 30, 2)
    flip = SMALL.views(np.tile(SMALL.symmetries()[6], (30, 1)))
    answers = flip.apply(SMALL.label(flip.apply(mazes)))  # right before down
    assert not (answers == SMALL.label(mazes)).all()
    path = write_csv(tmp_path / "mazes.csv", mazes, answers)
    build(SMALL, tmp_path / "out", Options(source=str(path), augment=7, test_count=0))
    part = read_part(tmp_path / "out", "train", SMALL)
    assert (np.array(part.labels)[::8] == answers).all()
    assert SMALL.optimal(np.array(part.inputs), np.array(part.labels)).all()


def test_hub_layout_arrays_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mazes = generate(SMALL, 40, 2)
    answers = SMALL.label(mazes)
    (tmp_path / "hub").mkdir()
    write_csv(tmp_path / "hub/train.csv", mazes[:30], answers[:30])
    np.savez(tmp_path / "hub/test.npz", inputs=mazes[30:], labels=answers[30:])
    assert main(["data", "build", "maze-8x8", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "hub")]) == 0
    assert "maze-8x8" in capsys.readouterr().out
    (inputs, labels), (test_inputs, test_labels) = parts(tmp_path / "out", SMALL)
    assert (inputs == mazes[:30]).all()
    assert (labels == answers[:30]).all()
    assert (test_inputs == mazes[30:]).all()
    assert (test_labels == answers[30:]).all()
    plain = tmp_path / "mazes.txt"
    plain.write_text("".join(SMALL.format(maze) + "\n" for maze in mazes))
    summary = build(SMALL, tmp_path / "plain", Options(source=str(plain), test_count=8, subsample=20, seed=4))
    assert (summary.solved, summary.parts["train"].groups, summary.parts["test"].groups) == (28, 20, 8)
    found = load_puzzles(plain, SMALL)
    assert (found.givens == mazes).all()
    assert found.labels is None
    assert (found.source.format, found.source.name(1)) == ("one maze a line", "mazes.txt:2")
    hub = load_puzzles(tmp_path / "hub", SMALL)
    assert [hub.source.name(row) for row in range(10)] == [f"test.npz:{row}" for row in range(10)]
    rows = [SMALL.format(maze)[start : start + 8] for maze in mazes[:3] for start in range(0, 64, 8)]
    plain.write_text("\n".join([*rows[:8], "", *rows[8:]]))
    grids = load_puzzles(plain, SMALL)
    assert (grids.givens == mazes[:3]).all()
    assert (grids.source.format, grids.source.numbers.tolist()) == ("grids of 8 lines", [1, 10, 18])


def test_a_symmetry_of_a_test_maze_is_left_out(tmp_path: Path) -> None:
    mazes = generate(SMALL, 20, 2)
    both = np.concatenate([mazes, SMALL.random_views(20, np.random.default_rng(0)).apply(mazes)])
    path = write_csv(tmp_path / "mazes.csv", both, None)
    summary = build(SMALL, tmp_path / "out", Options(source=str(path), test_count=6))
    (train, _), (test, _) = parts(tmp_path / "out", SMALL)
    assert len(test) == 6
    assert not set(classes(SMALL, train)) & set(classes(SMALL, test))
    assert summary.dropped == 40 - 6 - len(train) > 0


def test_maze_files_with_answers(tmp_path: Path) -> None:
    mazes = generate(SMALL, 3, 2)
    found = read_puzzles(write_csv(tmp_path / "mazes.csv", mazes, SMALL.label(mazes)), SMALL)
    assert (found.givens == mazes).all()
    assert found.labels is not None
    assert SMALL.optimal(found.givens, found.labels).all()
    assert found.source.given == ["list-0", "list-1", "list-2"]


BAD_FILES = [
    ("question,answer\nS G,\n", "line 2, column 1: read 3 cells, a maze-8x8 has 64"),
    ("question\n" + "x" * 64 + "\n", "line 2, column 1: bad character 'x' in row 1, column 1"),
    ("S" + "#" * 62 + "G\n", "line 1, column 1: no way leads from S to G"),
    (f"question,answer\n{'S G':64},{'SoGo':64}\n", "line 2, column 66: the answer does not solve"),
    ("question,answer\n" + "S G" + " " * 61 + "\n", "line 2, column 64: 1 fields, the header has 2"),
    ("quest,answer\n", "no column 'question'"),
    ("", "holds no mazes"),
    ("\n".join([" " * 8] * 7 + [" " * 7]), "line 8, column 8: this row has 7 cells, a maze-8x8 has 8 a row"),
    ("\n".join([" " * 8] * 7), "line 7, column 1: the maze ends after 7 of 8 rows"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[message for _, message in BAD_FILES])
def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "mazes.csv").write_text(text)
    arguments = ["maze-8x8", "--source", str(tmp_path / "mazes.csv"), "--out", str(tmp_path / "out")]
    assert main(["data", "build", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mazes.csv"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.ones((2, 64), np.uint8)}, "has no array 'labels'"),
        ({"inputs": np.ones((2, 81), np.uint8), "labels": np.ones((2, 81), np.uint8)}, r"'inputs' is uint8 \(2, 81\)"),
        ({"inputs": np.ones((2, 64)), "labels": np.ones((2, 64))}, "'inputs' is float64"),
        ({"inputs": np.ones((2, 64), np.uint8), "labels": np.ones((3, 64), np.uint8)}, "2 inputs but 3 labels"),
        ({"inputs": np.full((2, 64), 300), "labels": np.ones((2, 64), np.uint8)}, "maze 0: no maze with one start"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "mazes.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        read_puzzles(tmp_path / "mazes.npz", SMALL)
    assert caught.value.hint


def test_torn_arrays_and_missing_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "mazes.npz", inputs=np.ones((2, 64), np.uint8))
    (tmp_path / "mazes.npz").write_bytes((tmp_path / "mazes.npz").read_bytes()[:300])
    with pytest.raises(UserError, match=r"no whole \.npz file"):
        read_puzzles(tmp_path / "mazes.npz", SMALL)
    with pytest.raises(UserError, match="No such file"):
        read_puzzles(tmp_path / "none.npz", SMALL)
    with pytest.raises(UserError, match=r"has no train\.csv"):
        build(SMALL, tmp_path / "out", Options(source=str(tmp_path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count 0 is too small"),
        (["--min-path", "0"], "--min-path 0 is too small"),
        (["--subsample", "3"], "--subsample draws from a file"),
        (["--clues", "20"], "--clues is no option of maze-3x3"),
        (["--min-path", "40", "--count", "1"], "found only 0 of 1 such mazes"),
        (["--source", "a", "--source", "b"], "maze-3x3 is built from one --source, not 2"),
        (["--source", "nowhere.csv"], "nowhere.csv: No such file"),
        (["--source", "nowhere.csv", "--count", "9"], "--count and --min-path belong to --source generate"),
        (["--source", "hub"], "the hub has no data set of maze-3x3"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["data", "build", "maze-3x3", "--out", str(tmp_path / "out"), "--test-count", "0", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
