"""``data build arc`` from real sample tasks (see ``arc/NOTICE``), as folder and as archive."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.cli.main import main
from hrm_edge.data.arc import Options, build, read_questions
from hrm_edge.data.arc_files import ArcTask, _read_tasks, read_all
from hrm_edge.data.layout import read_identifiers, read_part
from hrm_edge.errors import UserError
from hrm_edge.tasks.arc import Arc, Grid, _corner, decode, encode, split_identifier
from hrm_edge.tasks.arc_votes import Votes, score, submission
from tests.data.written import same_bytes

SAMPLES = Path(__file__).parent / "arc"
ARC, CONCEPT = str(SAMPLES / "ARC-AGI"), str(SAMPLES / "ConceptARC")
TRAINING, EVALUATION, CONCEPTS = ["25d8a9c8", "6150a2bd", "d037b0a7"], ["00576224", "6ea4a07e"], ["Center2", "Copy1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sample tasks with 12 augmentations each. Read it only."""
    out = tmp_path_factory.mktemp("arc") / "out"
    build(out, Options((ARC, CONCEPT), augment=12, seed=3))
    return out


def archive(source: Path, path: Path) -> str:
    """The folder ``source`` as a repository's archive, in an order of its own."""
    files = sorted((file for file in source.rglob("*") if file.is_file()), reverse=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as target:
            for file in files:
                target.write(file, f"repository-main/{file.relative_to(source)}")
    else:
        with tarfile.open(path, "w:gz") as target:
            for file in files:
                target.add(file, f"repository-main/{file.relative_to(source)}")
    return str(path)


def grid(tokens: np.ndarray) -> Grid:
    found = decode(tokens, *_corner(tokens))
    assert found is not None
    assert (encode(found, *_corner(tokens)) == tokens).all(), "markers where they belong and nothing else"
    return found


def test_reads_only_the_tasks_of_a_repository() -> None:
    assert [(task.name, task.asked) for task in _read_tasks(ARC)] == [
        *((name, False) for name in TRAINING), *((name, True) for name in EVALUATION),
    ]  # fmt: skip
    assert [task.name for task in _read_tasks(CONCEPT)] == CONCEPTS
    assert not any(task.asked for task in _read_tasks(CONCEPT))
    assert [task.asked for task in _read_tasks(f"{ARC}/data/evaluation")] == [True, True]


def kaggle(folder: Path, parts: dict[str, str], answers: bool = True) -> Path:
    """The sample tasks as Kaggle has them: all of a part in one file, the answers of its test pairs in another."""
    folder.mkdir()
    for part, name in parts.items():
        tasks = {path.stem: json.loads(path.read_text()) for path in sorted(Path(ARC, "data", part).glob("*.json"))}
        solutions = {task: [pair.pop("output") for pair in value["test"]] for task, value in tasks.items()}
        (folder / f"arc-agi_{name}_challenges.json").write_text(json.dumps(tasks))
        if answers:
            (folder / f"arc-agi_{name}_solutions.json").write_text(json.dumps(solutions))
    (folder / "sample_submission.json").write_text("{}")
    return folder


def test_combined_files_of_kaggle(tmp_path: Path) -> None:
    """In a folder, a zip, or one by one: the tasks of the repository; a test part is asked and needs no answers."""
    folder = kaggle(tmp_path / "arc-prize", {"training": "training", "evaluation": "evaluation"})
    with zipfile.ZipFile(tmp_path / "kaggle.zip", "w") as target:
        for file in folder.iterdir():
            target.write(file, file.name)

    def flat(tasks: list[ArcTask]) -> list[object]:
        return [(t.name, t.asked, [[g if g is None else g.tolist() for g in pair] for pair in t.pairs]) for t in tasks]

    wanted = flat(_read_tasks(ARC))
    assert flat(_read_tasks(folder)) == flat(_read_tasks(tmp_path / "kaggle.zip")) == wanted
    files = [str(folder / f"arc-agi_{part}_challenges.json") for part in ("training", "evaluation")]
    assert flat(read_all(files)) == wanted
    test = kaggle(tmp_path / "test", {"evaluation": "test"}, answers=False)
    asked = _read_tasks(test / "arc-agi_test_challenges.json")
    assert [(task.name, task.asked, task.test[0][1]) for task in asked] == [(name, True, None) for name in EVALUATION]
    shutil.copy(test / "arc-agi_test_challenges.json", folder)  # a copy of other tasks: left out where these are
    assert flat(_read_tasks(folder)) == wanted


def test_combined_files_that_do_not_fit(tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "a", {"training": "training"})
    solutions = folder / "arc-agi_training_solutions.json"
    answers = json.loads(solutions.read_text())
    for content, message in (
        ({**answers, TRAINING[0]: []}, f"task {TRAINING[0]} has 1 test pairs, but not so many answers"),
        ({**answers, TRAINING[0]: [[[10]]]}, f"task {TRAINING[0]}, test pair 1, output: 10 is no colour"),
        ([], "is no combined file of ARC tasks"),
    ):
        solutions.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            _read_tasks(folder)
    solutions.unlink()
    with pytest.raises(UserError, match=r"arc-agi_training_solutions\.json is missing\nput it beside"):
        _read_tasks(folder)


def test_archives_made_on_a_mac(tmp_path: Path) -> None:
    """With a resource fork beside every file, in an archive, or unpacked."""
    wanted = [("0a1b2c3d", False), ("1a2b3c4d", True)]
    assert [(task.name, task.asked) for task in _read_tasks(SAMPLES / "arc-macosx.zip")] == wanted
    with zipfile.ZipFile(SAMPLES / "arc-macosx.zip") as packed, tarfile.open(tmp_path / "a.tar.gz", "w:gz") as target:
        packed.extractall(tmp_path / "unpacked")
        target.add(tmp_path / "unpacked", "x")
    (tmp_path / "unpacked/ARC/data/training/._0a1b2c3d.json").write_bytes(b"\0\5\x16\7")
    for source in (tmp_path / "unpacked", tmp_path / "a.tar.gz"):
        assert [(task.name, task.asked) for task in _read_tasks(source)] == wanted


def test_split_is_the_published_one(folder: Path) -> None:
    train, test = (read_part(folder, split, Arc()) for split in ("train", "test"))
    tasks = read_all([ARC, CONCEPT])
    assert train.metadata.total_groups == len(train.group_indices) - 1 == 7
    assert test.metadata.total_groups == 2
    for part, chosen in ((train, tasks), (test, [task for task in tasks if task.asked])):
        example = 0
        for group, task in enumerate(chosen):
            pairs = task.test if part is test else task.train if task.asked else task.pairs
            first = part.group_indices[group]
            assert part.puzzle_indices[first] == example
            for given, answer in pairs:  # the first puzzle is the task itself
                assert answer is not None
                assert (grid(part.inputs[example]) == given).all()
                assert (grid(part.labels[example]) == answer).all()
                example += 1
            example = part.puzzle_indices[part.group_indices[group + 1]]
        assert example == len(part)
    assert train.metadata.mean_puzzle_examples == pytest.approx(len(train) / len(train.puzzle_identifiers))


def test_identifiers_name_every_puzzle_once(folder: Path) -> None:
    train, test = (read_part(folder, split, Arc()) for split in ("train", "test"))
    names = read_identifiers(folder, train.metadata)
    assert names[0] == "<blank>"
    assert len(set(names)) == len(names) == train.metadata.num_puzzle_identifiers
    assert train.puzzle_identifiers.tolist() == list(range(1, len(names)))
    assert set(test.puzzle_identifiers) <= set(train.puzzle_identifiers)
    tasks = [split_identifier(name)[0] for name in names[1:]]
    assert [tasks.count(name) for name in (*TRAINING, *EVALUATION, *CONCEPTS)] == [13] * 7
    assert [tasks[first] for first in train.group_indices[:-1]] == [*TRAINING, *EVALUATION, *CONCEPTS]


def test_every_augmentation_inverts_to_the_task(folder: Path) -> None:
    for split in ("train", "test"):
        part = read_part(folder, split, Arc())
        names = read_identifiers(folder, part.metadata)
        tasks = {task.name: task for task in read_all([ARC, CONCEPT])}
        for puzzle, identifier in enumerate(part.puzzle_identifiers):
            name, augmentation = split_identifier(names[identifier])
            task = tasks[name]
            pairs = task.test if split == "test" else task.train if task.asked else task.pairs
            rows = range(part.puzzle_indices[puzzle], part.puzzle_indices[puzzle + 1])
            corners = [_corner(part.inputs[row]) for row in rows]
            assert corners == [_corner(part.labels[row]) for row in rows], "both grids are moved alike"
            assert (0, 0) in corners
            assert split == "train" or set(corners) == {(0, 0)}
            for row, (given, answer) in zip(rows, pairs, strict=True):
                assert (augmentation.invert(grid(part.inputs[row])) == given).all()
                assert (augmentation.invert(grid(part.labels[row])) == answer).all()


def test_training_grids_lie_anywhere_and_no_puzzle_comes_twice(folder: Path) -> None:
    part = read_part(folder, "train", Arc())
    corners = {_corner(tokens) for tokens in np.array(part.inputs)}
    assert len(corners) > 100
    assert max(row for row, _ in corners) > 15
    assert max(column for _, column in corners) > 15
    for first, last in zip(part.group_indices[:-1], part.group_indices[1:], strict=True):
        puzzles = set()
        for puzzle in range(first, last):
            rows = range(part.puzzle_indices[puzzle], part.puzzle_indices[puzzle + 1])
            puzzles.add(tuple(sorted(Arc().format(part.inputs[r]) + ">" + Arc().format(part.labels[r]) for r in rows)))
        assert len(puzzles) == last - first


def test_a_task_may_have_fewer_augmentations(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "training" / "one.json"
    path.parent.mkdir(parents=True)
    pair = {"input": [[3]], "output": [[3]]}
    path.write_text(json.dumps({"train": [pair], "test": [pair]}))
    summary = build(tmp_path / "out", Options((str(tmp_path / "tiny"),), augment=50))
    assert summary.short == 1
    assert summary.parts["train"].puzzles == 9, "one cell of one colour that is not 0 can be any of nine"
    assert list(summary.parts) == ["train"]
    assert not (tmp_path / "out" / "test").exists()


def test_same_bytes_from_folder_or_archive_and_any_processes(folder: Path, tmp_path: Path) -> None:
    sources = (archive(Path(ARC), tmp_path / "arc.tar.gz"), archive(Path(CONCEPT), tmp_path / "concept.zip"))
    build(tmp_path / "two", Options(sources, augment=12, seed=3, processes=2))
    assert same_bytes(folder, tmp_path / "two")
    build(tmp_path / "other", Options(sources, augment=12, seed=4))
    assert not same_bytes(folder, tmp_path / "other")


def test_command_line_and_subsample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--augment", "2", "--subsample", "4", "--seed", "1", "--out", str(tmp_path / "out")]
    assert main(["data", "build", "arc", "--source", ARC, "--source", CONCEPT, *arguments]) == 0
    assert "12" in capsys.readouterr().out
    part = read_part(tmp_path / "out", "train")
    assert part.metadata.total_groups == 4
    assert part.metadata.task == "arc"


def test_votes_over_a_built_folder(folder: Path) -> None:
    """A model that is always right has every vote, and its submission holds the published answers."""
    part = read_questions(folder)
    asked = part.originals()
    assert [question.task for question in asked] == [task.name for task in read_all([ARC]) if task.asked
                                                     for _ in task.test]  # fmt: skip
    votes = Votes()
    votes.add(part.identifiers, part.inputs, part.labels, np.zeros(len(part)))
    assert score(votes, asked).pass_at == {1: 1.0, 2: 1.0}
    file = submission(votes, asked)
    published = json.loads((SAMPLES / "ARC-AGI/data/evaluation/6ea4a07e.json").read_text())
    assert [attempt["attempt_1"] for attempt in file["6ea4a07e"]] == [pair["output"] for pair in published["test"]]


def test_the_first_tasks_with_all_their_augmentations(folder: Path) -> None:
    part = read_questions(folder, 1)
    assert {split_identifier(name)[0] for name in part.identifiers} == {EVALUATION[0]}
    assert sorted(set(part.view.tolist())) == list(range(13))
    assert (part.view == 0).sum() == len(part.originals())
    assert len(read_questions(folder, 9)) == len(read_questions(folder)) > len(part)


def test_questions_without_answers(tmp_path: Path) -> None:
    source = shutil.copytree(Path(ARC) / "data", tmp_path / "data")
    path = source / "evaluation" / "00576224.json"
    task = json.loads(path.read_text())
    del task["test"][0]["output"]
    path.write_text(json.dumps(task))
    build(tmp_path / "out", Options((str(source),), augment=3))
    part = read_questions(tmp_path / "out")
    assert (part.labels[: len(task["test"]) * 4] == 0).all()
    asked = part.originals()
    assert asked[0].output is None
    assert (asked[0].input == np.array(task["test"][0]["input"])).all()


def test_folders_of_both_published_tools_load(folder: Path, tmp_path: Path) -> None:
    """HRM's ``dataset.json`` has neither ``task`` nor ``total_puzzles``; TRM's has ``total_puzzles``."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    for keep_total in (True, False):
        for split in ("train", "test"):
            path = copy / split / "dataset.json"
            metadata = json.loads((folder / split / "dataset.json").read_text())
            del metadata["task"]
            if not keep_total:
                del metadata["total_puzzles"]
            path.write_text(json.dumps(metadata))
        part = read_part(copy, "test", Arc())
        assert part.metadata.total_puzzles == (26 if keep_total else None)
        assert len(read_questions(copy)) == len(part)
    trm = [
        name.replace("_t", "|||t").replace("_0", "|||0") for name in json.loads((copy / "identifiers.json").read_text())
    ]
    (copy / "identifiers.json").write_text(json.dumps(trm))
    part = read_questions(copy)
    votes = Votes()
    votes.add(part.identifiers, part.inputs, part.labels, np.zeros(len(part)))
    assert score(votes, part.originals()).pass_at[1] == 1.0
    (copy / "identifiers.json").write_text(json.dumps(trm[1:]))
    with pytest.raises(UserError, match="91 names, not 92"):
        read_questions(copy)


TASK = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]], "output": [[4]]}]}
WIDE = {"train": [{"input": [[1] * 31], "output": [[2]]}], "test": TASK["test"]}
BAD_TASKS = [
    ("{", "one.json is no JSON"),
    ("[]", "one.json is no ARC task"),
    (json.dumps({"train": []}), "one.json is no ARC task"),
    (json.dumps({**TASK, "train": []}), "has 0 train and 1 test pairs"),
    (json.dumps(WIDE), "one.json, train pair 1, input: the grid has 1x31 cells, more than 30x30"),
    (json.dumps({**TASK, "test": [{"input": [[3]]}]}), "one.json, test pair 1, output: a grid is a list of rows"),
    (json.dumps({**TASK, "test": [[]]}), "one.json, test pair 1 is no pair"),
    (json.dumps({**TASK, "test": [{"input": [[12]], "output": [[1]]}]}), "test pair 1, input: 12 is no colour"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TASKS, ids=[message for _, message in BAD_TASKS])
def test_bad_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    path = tmp_path / "source" / "training" / "one.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert main(["data", "build", "arc", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_bad_archives(tmp_path: Path) -> None:
    whole = Path(archive(Path(ARC), tmp_path / "arc.tar.gz"))
    torn, text, empty = tmp_path / "torn.tar.gz", tmp_path / "text.tar.gz", tmp_path / "empty.tar"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("no archive at all")
    with tarfile.open(empty, "w") as target:
        target.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    broken = Path(archive(Path(ARC), tmp_path / "broken.zip"))
    content = bytearray(broken.read_bytes())
    content[200:260] = bytes(60)
    broken.write_bytes(content)
    for path, message in (
        (torn, "is no whole archive"), (text, "is no whole archive"), (empty, "holds no ARC tasks"),
        (broken, "is no whole archive"), (tmp_path / "none.tar.gz", "No such file"), (tmp_path / "d", "No such file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as caught:
            _read_tasks(path)
        assert caught.value.hint
        assert str(path) in caught.value.problem


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arc is built from the archives of its repositories"),
        (["--source", "hub"], "arc is built from the archives"),
        (["--source", ARC, "--source", ARC], "task 25d8a9c8 is in"),
        (["--source", ARC, "--augment", "-1"], "--augment -1 is too small"),
        (["--source", ARC, "--subsample", "6"], "--subsample 6: the sources have 5 tasks"),
        (["--source", ARC, "--count", "6"], "--count is no option of arc"),
        (["--source", ARC, "--augment", "1000000000"], "GB free"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["data", "build", "arc", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
