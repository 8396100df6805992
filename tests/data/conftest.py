"""Data tests need the compiler of the extra ``data``; a small built folder for those that read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm_edge.data.sudoku import Options, build
from hrm_edge.tasks.sudoku import Sudoku
from tests.shared import made_once

pytest.importorskip("numba")


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built mini-sudoku folder: 40 groups of 3 puzzles to train on, 20 test puzzles. Read it only."""
    options = Options(count=40, test_count=20, augment=2, seed=1)
    return made_once(tmp_path_factory, "mini", lambda folder: build(Sudoku(2, 2), folder / "out", options)) / "out"
