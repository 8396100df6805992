"""The published folder layout: round trip, and every way a folder can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data.layout import is_data_folder, read_part, task_of
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku

MINI = Sudoku(2, 2)


def test_files_are_the_published_ones(mini_folder: Path) -> None:
    names = {str(path.relative_to(mini_folder)) for path in mini_folder.rglob("*") if path.is_file()}
    arrays = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
    parts = {f"{split}/all__{name}.npy" for split in ("train", "test") for name in arrays}
    assert names == parts | {"train/dataset.json", "test/dataset.json", "identifiers.json"}
    assert json.loads((mini_folder / "identifiers.json").read_text()) == ["<blank>"]
    assert json.loads((mini_folder / "train/dataset.json").read_text()) == {
        "pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 16,
        "num_puzzle_identifiers": 1, "total_groups": 40, "mean_puzzle_examples": 1.0, "sets": ["all"],
        "total_puzzles": 120, "task": "mini-sudoku",
    }  # fmt: skip
    loaded = {name: np.load(mini_folder / f"train/all__{name}.npy", allow_pickle=False) for name in arrays}
    assert {name: (str(a.dtype), a.shape) for name, a in loaded.items()} == {
        "inputs": ("uint8", (120, 16)), "labels": ("uint8", (120, 16)), "puzzle_identifiers": ("int32", (120,)),
        "puzzle_indices": ("int32", (121,)), "group_indices": ("int32", (41,)),
    }  # fmt: skip
    assert (loaded["group_indices"] == np.arange(41) * 3).all()


def test_reads_memory_mapped(mini_folder: Path) -> None:
    part = read_part(mini_folder, "train", MINI)
    assert isinstance(part.inputs, np.memmap)
    assert len(part) == 120
    assert MINI.verify(part.inputs, part.labels).all()
    assert is_data_folder(mini_folder)
    assert not is_data_folder(mini_folder / "train")


def test_reads_folders_without_our_key(mini_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mini_folder, tmp_path / "copy")
    for split in ("train", "test"):
        path = folder / split / "dataset.json"
        metadata = json.loads(path.read_text())
        del metadata["task"], metadata["total_puzzles"]
        path.write_text(json.dumps({**metadata, "key_of_another_tool": 1}))
    part = read_part(folder, "test", MINI)
    assert part.metadata.task is None
    assert task_of(part.metadata) == "mini-sudoku"
    with pytest.raises(UserError, match="another task: expected sudoku, found mini-sudoku"):
        read_part(folder, "test", Sudoku(3, 3))


def _json(**changes: object) -> Callable[[Path], None]:
    def damage(train: Path) -> None:
        path = train / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(train: Path) -> None:
        path = train / f"all__{name}.npy"
        np.save(path, change(np.load(path)))

    return damage


def _put(row: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[row] = value
        return array

    return change


def _truncate(train: Path) -> None:
    path = train / "all__labels.npy"
    path.write_bytes(path.read_bytes()[:500])


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (lambda train: (train / "all__labels.npy").unlink(), r"all__labels\.npy: No such file"),
    (lambda train: (train / "dataset.json").unlink(), r"dataset\.json: No such file"),
    (shutil.rmtree, "has no part 'train'"),
    (_truncate, r"all__labels\.npy is no whole \.npy file"),
    (lambda train: (train / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
    (_json(vocab_size="many"), r"dataset\.json: vocab_size"),
    (_json(task="sudoku-2x3"), "another task: expected mini-sudoku, found sudoku-2x3"),
    (_json(task="maze", vocab_size=6, seq_len=900), "another task: expected mini-sudoku, found maze"),
    (_json(task=None, vocab_size=12, seq_len=900), "expected mini-sudoku, found arc"),
    (_json(task=None, vocab_size=13, seq_len=900), "expected mini-sudoku, found vocabulary 13, 900 cells"),
    (_array("inputs", lambda a: a[:, :9]), r"all__inputs\.npy has shape \(120, 9\), expected \(120, 16\)"),
    (_array("labels", lambda a: a[1:]), r"all__labels\.npy has shape \(119, 16\), expected \(120, 16\)"),
    (_array("puzzle_identifiers", lambda a: a[1:]), r"all__puzzle_identifiers\.npy has shape \(119,\)"),
    (_array("group_indices", lambda a: a[:-1]), r"all__group_indices\.npy has shape \(40,\), expected \(41,\)"),
    (_array("puzzle_indices", _put(7, 9)), r"all__puzzle_indices\.npy are no offsets from 0 to the 120 examples"),
    (_array("group_indices", _put(-1, 119)), r"all__group_indices\.npy are no offsets from 0 to the 120 puzzles"),
    (_array("puzzle_identifiers", _put(3, 1)), r"all__puzzle_identifiers\.npy goes beyond 1 identifiers"),
    (_array("inputs", _put(5, 6)), r"all__inputs\.npy: example 5 has a token outside the vocabulary of 6"),
    (_array("inputs", lambda a: a.astype(np.float32)), r"all__inputs\.npy holds float32"),
    (_array("inputs", lambda a: a.ravel()), r"all__inputs\.npy has shape"),
    (_array("inputs", lambda a: np.array(3)), r"all__inputs\.npy holds a single number, not a list"),
    # falling offsets whose differences are none below 0 for want of a sign
    (_array("puzzle_indices", lambda a: _put(7, 3)(a).astype(np.uint32)), r"all__puzzle_indices\.npy are no offsets"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message[:40] for _, message in DAMAGES])
def test_damaged_folders(mini_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = shutil.copytree(mini_folder, tmp_path / "copy")
    read_part(folder, "train", MINI)
    damage(folder / "train")
    with pytest.raises(UserError, match=message) as caught:
        read_part(folder, "train", MINI)
    assert caught.value.hint


def test_pickled_objects_are_refused(mini_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mini_folder, tmp_path / "copy")
    np.save(folder / "train/all__inputs.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"all__inputs\.npy is no whole"):
        read_part(folder, "train", MINI)
