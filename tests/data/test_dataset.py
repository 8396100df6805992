"""The sampler: one puzzle of each group an epoch, seeded, resumable, shared by ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data.dataset import Dataset, Sampler
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku


@pytest.fixture
def data(mini_folder: Path) -> Dataset:
    return Dataset(mini_folder, "train", Sudoku(2, 2))


def rows_of(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """The example of each taken puzzle (all 120 differ but for a few)."""
    return np.array([np.nonzero((data.part.inputs == row).all(axis=1))[0][0] for row in inputs])


def test_an_epoch_has_one_puzzle_of_every_group(data: Dataset) -> None:
    assert (data.groups, len(data)) == (40, 120)
    sampler = Sampler(data, 0)
    epochs = []
    for _ in range(8):
        inputs, labels, ids = sampler.take(40)
        assert (inputs.dtype, labels.dtype, ids.dtype, ids.shape) == (np.uint8, np.uint8, np.int32, (40,))
        assert Sudoku(2, 2).verify(inputs, labels).all()
        epochs.append(rows_of(data, inputs))
        assert sorted(epochs[-1] // 3) == list(range(40))
    assert len({tuple(rows) for rows in epochs}) == 8
    assert {row % 3 for rows in epochs for row in rows} == {0, 1, 2}


def test_stream_depends_on_the_seed_alone(data: Dataset) -> None:
    whole = Sampler(data, 3).take(130)[0]
    sampler = Sampler(data, 3)
    pieces = np.concatenate([sampler.take(count)[0] for count in (1, 50, 0, 70, 9)])
    assert (pieces == whole).all()
    assert not (Sampler(data, 4).take(130)[0] == whole).all()


def test_restore_goes_on_with_the_next_example(data: Dataset) -> None:
    sampler = Sampler(data, 5)
    sampler.take(57)
    state = json.loads(json.dumps(sampler.state()))
    expected = sampler.take(90)
    other = Sampler(data, 99)
    other.take(3)
    other.restore(state)
    assert all((a == b).all() for a, b in zip(other.take(90), expected, strict=True))
    with pytest.raises(UserError, match="has 40 groups, the saved run had 41"):
        sampler.restore({**state, "groups": 41})


def test_ranks_share_one_stream_without_overlap(data: Dataset) -> None:
    whole = Sampler(data, 6)
    ranks = [Sampler(data, 6) for _ in range(4)]
    for _ in range(2):
        parts = [sampler.take(40, slice(10 * rank, 10 * rank + 10)) for rank, sampler in enumerate(ranks)]
        for one, shared in zip(whole.take(40), map(np.concatenate, zip(*parts, strict=True)), strict=True):
            assert (one == shared).all()
        assert sorted(rows_of(data, np.concatenate([part[0] for part in parts])) // 3) == list(range(40))


def test_puzzles_of_several_examples(mini_folder: Path, tmp_path: Path) -> None:
    """As ARC has them: every example of a drawn puzzle is used, with its puzzle's identifier."""
    folder = shutil.copytree(mini_folder, tmp_path / "copy")
    train = folder / "train"
    np.save(train / "all__puzzle_indices.npy", np.array([0, 50, 80, 120], np.int32))
    np.save(train / "all__group_indices.npy", np.array([0, 2, 3], np.int32))
    np.save(train / "all__puzzle_identifiers.npy", np.array([1, 2, 3], np.int32))
    metadata = json.loads((train / "dataset.json").read_text())
    (train / "dataset.json").write_text(json.dumps({**metadata, "total_groups": 2, "num_puzzle_identifiers": 4}))
    data = Dataset(folder, "train", Sudoku(2, 2))
    assert data.examples(np.array([0, 49, 50, 79, 80, 119]))[2].tolist() == [1, 1, 2, 2, 3, 3]
    lengths = set()
    for seed in range(8):
        sampler = Sampler(data, seed)
        lengths.add(len(sampler._order))
        ids = sampler.take(len(sampler._order))[2]
        assert set(ids.tolist()) in ({1, 3}, {2, 3})
        assert (ids == 3).sum() == 40
    assert lengths == {90, 70}


def change_label(folder: Path, split: str, row: int, cells: list[int]) -> None:
    path = folder / split / "all__labels.npy"
    labels = np.load(path)
    labels[row, : len(cells)] = cells
    np.save(path, labels)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "cells", [[0, 0, 0, 0], [0] * 16, [1], [2, 2, 2, 2]], ids=["padding", "none", "blank", "clash"]
)
def test_labels_that_break_the_rules_are_named(mini_folder: Path, tmp_path: Path, split: str, cells: list[int]) -> None:
    folder = Path(shutil.copytree(mini_folder, tmp_path / "copy"))
    change_label(folder, split, 7, cells)
    with pytest.raises(UserError, match=rf"{split}, example 7: its label is no solution .* rules of mini-sudoku"):
        Dataset(folder, split, Sudoku(2, 2))
    assert len(Dataset(folder, split, Sudoku(2, 2), scan=False)) > 0, "one process of a host has looked"


def test_padding_in_a_label_is_not_an_answer(mini_folder: Path, tmp_path: Path) -> None:
    """Padding counts as "as the label says" where exact accuracy is counted: an empty label would always be right."""
    from hrm_edge.data.puzzles import load_puzzles

    folder = Path(shutil.copytree(mini_folder, tmp_path / "copy"))
    change_label(folder, "test", 3, [0, 0, 0, 0])
    with pytest.raises(UserError, match="test example 3: the label does not solve the input"):
        load_puzzles(folder, Sudoku(2, 2))
