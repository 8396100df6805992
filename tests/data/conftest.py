"""Data tests need the compiler of the extra ``data``; a small built folder for those that read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm_edge.data.build import Options, build
from hrm_edge.tasks.sudoku import Sudoku

pytest.importorskip("numba")


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built mini-sudoku folder: 40 groups of 3 puzzles to train on, 20 test puzzles. Read it only."""
    out = tmp_path_factory.mktemp("data") / "mini"
    build(Sudoku(2, 2), out, Options(count=40, test_count=20, augment=2, seed=1))
    return out
