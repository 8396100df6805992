"""Where puzzles are: the hub, a folder as it has, a built folder."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.data.sources import folder_files, hub_files
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)
Q1 = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
A1 = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def hub_layout(folder: Path) -> Path:
    folder.mkdir()
    for name in ("train.csv", "test.csv"):
        write(folder / name, f"source,question,answer,rating\nlist,{Q1},{A1},0\n")
    return folder


def test_hub_files_are_asked_for_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = hub_layout(tmp_path / "hub"), []

    def download(repository: str, name: str, *, repo_type: str) -> str:
        asked.append((repository, name, repo_type))
        return str(folder / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    assert hub_files(NINE) == folder_files(folder)
    assert asked == [("sapientinc/sudoku-extreme", f"{part}.csv", "dataset") for part in ("train", "test")]
    with pytest.raises(UserError, match="hub has no data set of mini-sudoku"):
        hub_files(MINI)


def test_hub_out_of_reach_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: str, **__: str) -> str:
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    with pytest.raises(UserError, match="downloaded: ConnectionError: no route to host\ncheck the network"):
        hub_files(NINE)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"which --source hub needs\npip install 'hrm-edge\[hub\]'"):
        hub_files(NINE)


def test_load_puzzles_from_file_hub_folder_and_built_folder(tmp_path: Path, mini_folder: Path) -> None:
    path = write(tmp_path / "a.csv", f"question,answer,rating\n{Q1},{A1},2\n{Q1},{A1},5\n")
    puzzles = load_puzzles(path)
    assert (puzzles.task, len(puzzles), puzzles.source.name(1)) == (NINE, 2, "a.csv:3")
    last = puzzles[np.array([1])]
    assert (len(last), len(last.labels), last.source.name(0)) == (1, 1, "a.csv:3")
    assert load_puzzles(hub_layout(tmp_path / "hub"), NINE).source.name(0) == "list"
    built = load_puzzles(mini_folder)
    assert (built.task, len(built), built.source.name(19)) == (MINI, 20, "test:19")
    assert MINI.verify(built.givens, built.labels).all()
    assert type(built.givens) is np.ndarray
    assert (load_puzzles(mini_folder, limit=3).givens == built.givens[:3]).all()
    with pytest.raises(UserError, match="another task: expected sudoku, found mini-sudoku"):
        load_puzzles(mini_folder, NINE)
    with pytest.raises(UserError, match=r"has no train\.csv"):
        load_puzzles(tmp_path)
    with pytest.raises(UserError, match="line 2, column 17: read 81 cells, a mini-sudoku puzzle has 16"):
        load_puzzles(path, MINI)
