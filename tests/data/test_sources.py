"""Files of puzzles: every form that is read, every fault with its file and line."""

from __future__ import annotations

import gzip
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.data.sources import folder_files, hub_files, read_puzzles
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku import Sudoku

NINE, MINI = Sudoku(3, 3), Sudoku(2, 2)
Q1 = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
A1 = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
Q2 = "." * 17 + "1.....2.3......3.2...1.4......5....6..3......4.7..8...962...7..."


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_in_any_column_order(tmp_path: Path, name: str, end: str) -> None:
    rows = ["# made by hand", "rating,answer,Source,question", f"3,{A1},here,{Q1}", f"4,{A1},there,{Q1}"]
    file = read_puzzles(write(tmp_path / name, end.join(rows) + end))
    assert file.task == NINE
    assert NINE.format(file.inputs[0]) == Q1
    assert file.labels is not None
    assert NINE.verify(file.inputs, file.labels).all()
    assert (file.sources, file.lines.tolist()) == (["here", "there"], [3, 4])
    assert file.ratings is not None
    assert file.ratings.tolist() == [3, 4]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_with_comments(tmp_path: Path, name: str) -> None:
    file = read_puzzles(write(tmp_path / name, f"# two\n\n{Q1}\n{Q2}  # 17 clues\n"))
    assert (len(file), file.labels, file.ratings) == (2, None, None)
    assert (file.lines.tolist(), file.sources) == ([3, 4], [f"{name}:3", f"{name}:4"])
    assert file.where(1) == f"{tmp_path / name}, line 4"


def test_byte_order_mark_and_separators(tmp_path: Path) -> None:
    spaced = " | ".join(Q1[i : i + 9] for i in range(0, 81, 9))
    file = read_puzzles(write(tmp_path / "a.txt", f"\ufeff{spaced}\n"), NINE)
    assert NINE.format(file.inputs[0]) == Q1


def test_other_sizes_are_known_by_their_length(tmp_path: Path) -> None:
    assert read_puzzles(write(tmp_path / "a.txt", "1000" + "0" * 12)).task == MINI
    assert read_puzzles(write(tmp_path / "b.txt", "." * 256)).task == Sudoku(4, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv holds no puzzles"),
        ("question,answer\n", "a.csv holds no puzzles"),
        ("quiz,solution\n1,2\n", "has no column 'question' \\(it has quiz, solution\\)"),
        (f"question,answer\n{Q1},{A1}\n{Q1}\n", "line 3: 1 fields, the header has 2"),
        (f"question,answer\n{Q1},{A1}\n{Q1},{A1[:-1]}\n", "line 3: read 80 cells"),
        (f"question,answer\n{Q1},{A1[::-1]}\n", "line 2: the answer does not solve the question"),
        (f"question,answer\n{Q1},{Q1}\n", "line 2: the answer does not solve the question"),
        (f"{Q1}\n{Q1[:80]}\n", "line 2: read 80 cells"),
        (f"{Q1}\n{Q1[:80]}x\n", "line 2: bad character 'x' in row 9, column 9"),
        (f"{Q1}\n5{Q1[1:4]}5{Q1[5:]}\n", "line 2: contradictory givens: two 5s in row 1"),
        ("123\n", "line 1: 3 characters are no puzzle"),
        (f"question,rating\n{Q1},easy\n", "line 2: the rating 'easy' is no number"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UserError, match=message) as caught:
        read_puzzles(path)
    assert str(path) in caught.value.what
    assert caught.value.mend


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.csv: No such file"):
        read_puzzles(tmp_path / "no.csv")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not text"):
        read_puzzles(tmp_path / "a.txt")
    for data in (b"plain", gzip.compress(b"1" * 5000)[:-9]):
        (tmp_path / "a.gz").write_bytes(data)
        with pytest.raises(UserError, match="is no whole gzip file"):
            read_puzzles(tmp_path / "a.gz")


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
    assert (puzzles.task, len(puzzles), puzzles.sources) == (NINE, 2, ["a.csv:2", "a.csv:3"])
    head = puzzles.head(1)
    assert (len(head), len(head.labels), head.ratings.tolist()) == (1, 1, [2])
    assert load_puzzles(hub_layout(tmp_path / "hub"), NINE).sources == ["list"]
    built = load_puzzles(mini_folder)
    assert (built.task, len(built), built.sources[19]) == (MINI, 20, "test:19")
    assert MINI.verify(built.inputs, built.labels).all()
    assert type(built.inputs) is np.ndarray
    with pytest.raises(UserError, match="another task: expected sudoku, found mini-sudoku"):
        load_puzzles(mini_folder, NINE)
    with pytest.raises(UserError, match=r"has no train\.csv"):
        load_puzzles(tmp_path)
    with pytest.raises(UserError, match="line 2: read 81 cells, a mini-sudoku puzzle has 16"):
        load_puzzles(path, MINI)
