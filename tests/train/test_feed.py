"""What training sees: whatever symmetry, clues and built augmentation a puzzle went through, its label solves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data import maze as maze_build
from hrm_edge.data import sudoku as sudoku_build
from hrm_edge.data.canonical import identities
from hrm_edge.data.dataset import Dataset
from hrm_edge.errors import UserError
from hrm_edge.recipe import Augment
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.training.feed import Feed

SUDOKU, MAZE = Sudoku(2, 2), Maze(6, 6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("feed")
    sudoku = sudoku_build.Options(count=60, test_count=5, augment=3, seed=1)
    sudoku_build.build(SUDOKU, root / "sudoku", sudoku)
    maze_build.build(MAZE, root / "maze", maze_build.Options(count=20, test_count=2, min_length=6, augment=3, seed=1))
    return {"sudoku": root / "sudoku", "maze": root / "maze"}


@given(seed=st.integers(0, 2**31), progress=st.floats(0, 1), low=st.integers(0, 4), more=st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_a_label_solves_its_sudoku(folders: dict[str, Path], seed: int, progress: float, low: int, more: int) -> None:
    augment = Augment(symmetries=True, extra_clues=(low, low + more), extra_clues_end=(0, low))
    data = Dataset(folders["sudoku"], "train", SUDOKU)
    feed = Feed(data, augment, seed)
    inputs, labels, _ = (np.asarray(part, np.uint8) for part in feed.take(16, progress))
    assert SUDOKU.verify(inputs, labels).all()
    known = {name.tobytes() for name in identities(SUDOKU, np.array(data.part.labels))}
    assert {name.tobytes() for name in identities(SUDOKU, labels)} <= known, "a symmetry of a grid of the data set"


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_label_is_a_shortest_path_of_its_maze(folders: dict[str, Path], seed: int) -> None:
    data = Dataset(folders["maze"], "train", MAZE)
    feed = Feed(data, Augment(symmetries=True), seed)
    inputs, labels, _ = (np.asarray(part, np.uint8) for part in feed.take(16, 0.0))
    assert MAZE.optimal(inputs, labels).all()
    known = set(maze_build.classes(MAZE, np.array(data.part.inputs)))
    assert set(maze_build.classes(MAZE, inputs)) <= known, "a symmetry of a maze of the data set"


@pytest.mark.parametrize("key", ["extra_clues", "extra_clues_end"])
def test_extra_clues_are_refused_where_there_are_none(folders: dict[str, Path], key: str) -> None:
    data = Dataset(folders["maze"], "train", MAZE)
    with pytest.raises(UserError, match=rf"recipe key 'augment\.{key}': maze-6x6 has no clues to add\nleave it out"):
        Feed(data, Augment.model_validate({key: (0, 3)}), seed=0)
    assert Feed(data, Augment(extra_clues=(0, 0), extra_clues_end=(0, 0)), seed=0)
