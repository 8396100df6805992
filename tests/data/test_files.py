"""Files of puzzles: every form that people have, what it is said to be, and every fault with its line and column."""

from __future__ import annotations

import gzip
import io
import itertools
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.data import text as texts
from hrm_edge.data.files import read_puzzles, read_typed
from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku

FILES = Path(__file__).parent / "puzzle_files"
NINE, MINI, SIXTEEN = Sudoku(3, 3), Sudoku(2, 2), Sudoku(4, 4)
Q1 = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
A1 = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
Q2 = "." * 17 + "1.....2.3......3.2...1.4......5....6..3......4.7..8...962...7..."
ROWS = [Q1[start : start + 9] for start in range(0, 81, 9)]
DASHES = [row.replace("0", "-") for row in ROWS]


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


WILD = {
    "nine.txt": ("grids of 9 lines", 1),
    "grid.txt": ("grids of 9 lines", 1),
    "plain.sdk": ("grids of 9 lines", 2),
    "nine.sdk": ("SadMan Sudoku, [Puzzle] sections", 5),
    "simple.ss": ("grids of 9 lines", 2),
    "kaggle1m.csv": ("CSV, columns quizzes and solutions", 2),
    "kaggle9m.csv": ("CSV, columns puzzle and solution", 2),
    "rated.txt": ("one puzzle a line, a remark beside it", 1),
    "dash.txt": ("one puzzle a line", 1),
    "utf16.txt": ("one puzzle a line, UTF-16", 1),
}


@pytest.mark.parametrize("name", WILD)
@pytest.mark.parametrize("task", [NINE, None], ids=["of a model", "told by the file"])
def test_files_that_people_have(name: str, task: Sudoku | None) -> None:
    found = read_puzzles(FILES / name, task)
    assert (len(found), found.task, NINE.format(found.givens[0])) == (1, NINE, Q1)
    assert (found.source.format, found.source.numbers.tolist()) == (WILD[name][0], [WILD[name][1]])
    assert (found.labels is None) == (not name.startswith("kaggle"))


FRAMED = """
+-------+-------+-------+
| 5 3 . | . 7 . | . . . |
| 6 . . | 1 9 5 | . . . |
| . 9 8 | . . . | . 6 . |
+-------+-------+-------+
| 8 . . | . 6 . | . . 3 |
| 4 . . | 8 . 3 | . . 1 |
| 7 . . | . 2 . | . . 6 |
+-------+-------+-------+
| . 6 . | . . . | 2 8 . |
| . . . | 4 1 9 | . . 5 |
| . . . | . 8 . | . 7 9 |
+-------+-------+-------+
"""
ONE: dict[str, str] = {  # ways to write Q1
    "spaces": "\n".join(" ".join(row) for row in ROWS),
    "commas": "\n".join(",".join(row) for row in ROWS),
    "all in commas": ",".join(Q1),
    "boxes apart": "\n".join(f"{row[:3]} {row[3:6]} {row[6:]}" for row in ROWS),
    "bands apart": "\n\n".join("\n".join(ROWS[band : band + 3]) for band in (0, 3, 6)),
    "plus frame": FRAMED,
    "dotted frame": FRAMED.replace("+-------+-------+-------+", ".-------.-------.-------.", 1).replace("+", ":"),
    "star frame": FRAMED.replace("+-------+-------+-------+", "*-----------------------*", 1).replace(".", "0"),
    "rules of nine dashes": "\n".join([*ROWS[:3], "---------", *ROWS[3:6], "---------", *ROWS[6:], "---------"]),
    "dashes": "\n".join(DASHES),
    "dashes with bars": "\n".join(f"{row[:3]}|{row[3:6]}|{row[6:]}" for row in DASHES),
    "dashes, bars and rules": FRAMED.replace(".", "-"),
    "stars": "\n".join(row.replace("0", "*") for row in ROWS),
    "x": Q1.replace("0", "x"),
    "X": Q1.replace("0", "X"),
    "question marks": Q1.replace("0", "?"),
    "underscores": Q1.replace("0", "_"),
    "box drawing": NINE.pretty(NINE.parse(Q1)),
    "Windows": "\r\n".join(ROWS) + "\r\n",
    "old Mac": "\r".join(ROWS),
    "quoted": f'"{Q1}"',
    "answer behind": f"{Q1},{A1}",
    "answer and rating behind": f"{Q1} {A1} 7.2",
    "hash before": f"0000183b305c {Q1}  1.2",
    "remark": f"{Q1}  # 30 clues",
    "remark in another language": f"{Q1}; très facile",
    "title": "Grid 01\n" + "\n".join(ROWS),
    "semicolons": f"puzzle;solution\n{Q1};{A1}",
    "tabs": f"id\tpuzzle\tsolution\n7\t{Q1}\t{A1}",
    "quoted CSV": f'"quizzes","solutions"\n"{Q1}","{A1}"',
    "grid in a CSV": "question,rating\n\"{}\",3".format("\n".join(ROWS)),
    "state": "[Puzzle]\n{}\n[State]\n{}".format("\n".join(ROWS), "\n".join(A1[i : i + 9] for i in range(0, 81, 9))),
    "OpenSudoku": f'<?xml version="1.0" encoding="UTF-8"?>\n<opensudoku>\n<name>x</name>\n<game data="{Q1}" />\n'
    "</opensudoku>",
    "OpenSudoku, saved game": '<opensudoku version="2"><game state="1" data="version: 3\n'
    + "".join(f"{answer}|511|{int(given == '0')}|" for given, answer in zip(Q1, A1, strict=True))
    + '" /></opensudoku>',
    "OpenSudoku, saved by version 4": '<opensudoku version="2"><game data="version: 4&#10;'
    + "".join(f"{answer}|0|12|{int(given == '0')}|" for given, answer in zip(Q1, A1, strict=True))
    + '" /></opensudoku>',
}  # fmt: skip


@pytest.mark.parametrize("way", ONE)
def test_ways_to_write_a_puzzle(tmp_path: Path, way: str) -> None:
    found = read_puzzles(write(tmp_path / "a", ONE[way]), NINE)
    assert [NINE.format(givens) for givens in found.givens] == [Q1]
    assert (found.labels is not None) == (A1 in ONE[way] and "opensudoku" not in ONE[way])
    assert NINE.format(read_typed(ONE[way], NINE).givens[0]) == Q1


@pytest.mark.parametrize("way", ONE)
def test_a_damaged_text_is_never_read_as_another_puzzle(way: str) -> None:
    """One character too few or too many, everywhere: refused, or it did not matter."""
    text = ONE[way]
    for at in range(0, len(text), 5):
        for damaged in (text[:at] + text[at + 1 :], text[:at] + "7" + text[at:]):
            try:
                found = read_typed(damaged, NINE)
            except UserError:
                continue
            assert [NINE.format(givens) for givens in found.givens] == [Q1], damaged


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8-sig", ""), ("utf-16", ", UTF-16"), ("utf-16-be", ", UTF-16"), ("latin-1", "")]
)
def test_encodings(tmp_path: Path, encoding: str, said: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.txt").write_bytes(f"{mark}# très facile\n{Q1}\n".encode(encoding))
    found = read_puzzles(tmp_path / "a.txt", NINE)
    assert (NINE.format(found.givens[0]), found.source.format) == (Q1, "one puzzle a line" + said)
    (tmp_path / "b.csv").write_bytes(gzip.compress(f"{mark}question\n{Q1}\n".encode(encoding)))
    assert read_puzzles(tmp_path / "b.csv", NINE).source.format.startswith("CSV, columns question, gzipped")


def test_several_grids(tmp_path: Path) -> None:
    for between, rows in itertools.product(("\n", "", "---\n", "Puzzle 2:\n", "\n# next\n\n"), (ROWS, DASHES)):
        grid = "\n".join(rows) + "\n"
        found = read_puzzles(write(tmp_path / "a.txt", grid + between + grid + between + grid), NINE)
        assert [NINE.format(givens) for givens in found.givens] == [Q1] * 3, (between, rows)
    assert (found.source.numbers[0], found.source.name(0)) == (1, "a.txt:1")


@pytest.mark.parametrize("task", [MINI, Sudoku(2, 3), Sudoku(3, 4), SIXTEEN], ids=lambda task: task.name)
def test_other_sizes(tmp_path: Path, task: Sudoku) -> None:
    """By a line, a grid, and, beyond nine, numbers; the size is told by the file too."""
    tokens = np.ones((task.side, task.side), np.uint8)
    tokens[0], tokens[-1, 0] = np.arange(task.side) + 2, task.side + 1  # the first row, and a digit in the last
    tokens[0, -1] = 1
    tokens = tokens.ravel()
    text = task.format(tokens)
    rows = [text[start : start + task.side] for start in range(0, task.seq_len, task.side)]
    numbers = [" ".join(str(int(t) - 1) for t in row) for row in tokens.reshape(task.side, task.side)]
    forms = [text, "\n".join(rows), "\n".join(" ".join(row.replace("0", ".")) for row in rows), "\n".join(numbers)]
    for form, size in itertools.product(forms, (task, None)):
        found = read_puzzles(write(tmp_path / "a.txt", form), size)
        assert (found.task, task.format(found.givens[0])) == (task, text)


FAULTS: list[tuple[str, str, str]] = [
    ("nothing", "", "a.txt holds no puzzles"),
    ("a header alone", "question,answer\n", "a.txt holds no puzzles"),
    ("unknown columns", "foo,bar\n1,2\n", r"line 1, column 1: the header has no column 'question' \(it has foo, bar\)"),
    ("a field missing", f"question,answer\n{Q1},{A1}\n{Q1}\n", "line 3, column 81: 1 fields, the header has 2"),
    ("a short answer", f"question,answer\n{Q1},{A1}\n{Q1},{A1[:-1]}\n", "line 3, column 162: read 80 cells"),
    ("a wrong answer", f"question,answer\n{Q1},{A1[::-1]}\n", "line 2, column 83: the answer does not solve"),
    ("an unsolved answer", f"question,answer\n{Q1},{Q1}\n", "line 2, column 83: the answer does not solve"),
    ("a short line", f"{Q1}\n{Q1[:80]}\n", r"line 2, column 80: read 80 cells, a sudoku puzzle has 81 \(9 rows of 9\)"),
    ("a long line", f"{Q1}\n{Q1}5\n", "line 2, column 82: read 82 cells"),
    ("a bad character", f"{Q1}\n{Q1[:80]}z\n", "line 2, column 81: bad character 'z' in row 9, column 9"),
    ("a bad character in a grid", "\n".join([*ROWS[:4], "8..x.6.%..3"]), "line 5, column 8: bad character '%'"),
    ("a bad character in a CSV", f"id,puzzle\n7,{Q1[:80]}z\n", "line 2, column 83: bad character 'z'"),
    ("a clash", f"{Q1}\n5{Q1[1:4]}5{Q1[5:]}\n", "line 2, column 1: contradictory givens: two 5s in row 1"),
    ("a short question before its answer", f"{Q1[:80]},{A1}", "line 1, column 80: read 80 cells"),
    ("a short answer behind its question", f"{Q1} {A1[:80]} 3", "line 1, column 162: read 80 cells"),
    ("a saved game with a digit too much", '<opensudoku><game data="version: 3 15|0|0|"/>', "a saved game is damaged"),
    ("a short row", "\n".join([*ROWS[:4], ROWS[4][:8], *ROWS[5:]]), "line 5, column 8: read 8 cells"),
    ("a long row", "\n".join([*ROWS[:4], ROWS[4] + "7", *ROWS[5:]]), "line 5, column 10: read 10 cells"),
    ("a row missing", "\n".join(ROWS[:8]), "line 8, column 9: the grid ends after 8 of 9 rows"),
    ("a row missing before another grid", "\n".join([*ROWS[:8], "", *ROWS]), "line 8, column 9: the grid ends after 8"),
    ("another size", "0030400000020100\n", "line 1, column 16: read 16 cells"),
    ("another size, said", "0030400000020100\n", "16 cells are a mini-sudoku puzzle or a row of sudoku-4x4"),
    ("another size, many", "0030400000020100\n" * 9, "line 1, column 10: read 16 cells"),
    ("prose", "Dear Sir or Madam\n", "line 1, column 1: bad character 'D'"),
    ("three puzzles on a line", f"{Q1} {Q1} {Q1}", "line 1, column 165: 3 puzzles on one line"),
    ("dashes of two meanings", "\n---------\n".join([*ROWS, ""]), "- may be blanks or lines of this grid"),
    ("XML cut off", f'<opensudoku>\n<game data="{Q1}"/>\n', "line 3, column 1: this is no whole XML"),
    ("XML with entities", '<!DOCTYPE a [<!ENTITY b "c">]>\n<a/>', "line 1, column 1: the XML declares entities"),
    ("XML without puzzles", "<html><body/></html>", "holds no puzzles"),
    ("a bad game", f'<opensudoku>\n<game data="{Q1[:80]}"/></opensudoku>', "line 2, column 80: read 80 cells"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_faults_name_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.txt", text)
    with pytest.raises(UserError, match=message) as caught:
        read_puzzles(path, NINE)
    assert str(path) in caught.value.problem
    assert caught.value.hint


def test_zero_is_not_taken_for_a_blank_where_it_may_be_a_digit() -> None:
    digits = "0123456789ABCDEF"
    grid = "\n".join(digits[row:] + "." * row for row in range(16))
    with pytest.raises(UserError, match=r"line 2, column|'0' and '\.' both stand here: is 0 a digit or a blank\?"):
        read_typed(grid, SIXTEEN)


def test_a_typed_puzzle_has_no_line_in_its_fault() -> None:
    with pytest.raises(UserError, match=r"^read 80 cells"):
        read_typed(Q1[:80], NINE)
    with pytest.raises(UserError, match=r"^argument, line 9, column 9: bad character 'z'"):
        read_typed("\n".join([*ROWS[:8], ROWS[8][:8] + "z"]), NINE)
    assert read_typed(Q1, NINE).source.name(0) == "argument"
    assert read_typed(f"{Q1}\n{Q2}", NINE).source.name(1) == "argument:2"


def test_standard_input_may_be_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(f"{Q1}\n{Q2}\n".encode())))
    texts._stdin.cache_clear()
    first, again = read_puzzles("-", NINE, limit=1), read_puzzles("-", NINE)
    texts._stdin.cache_clear()
    assert (len(first), len(again), again.source.name(1)) == (1, 2, "standard input:2")
    assert again.source.where(1) == "standard input, line 2"


def test_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.csv: No such file"):
        read_puzzles(tmp_path / "no.csv")
    for data, said in (
        (b"\xff\xfe\x00", "is not text"), (b"\x89PNG\r\n\x1a\n", "it looks like a picture"),
        (b"PK\x03\x04", "a spreadsheet"), (b"1234\x00\x01", "it has control characters"),
    ):  # fmt: skip
        (tmp_path / "a.txt").write_bytes(data)
        with pytest.raises(UserError, match=said) as caught:
            read_puzzles(tmp_path / "a.txt", NINE)
        assert ("a picture by the name of its file" in caught.value.hint) == ("picture" in said)
    for data in (b"plain", gzip.compress(b"1" * 5000)[:-9]):
        (tmp_path / "a.gz").write_bytes(data)
        with pytest.raises(UserError, match="is no whole gzip file"):
            read_puzzles(tmp_path / "a.gz")
    with pytest.raises(UserError, match="puzzles of arc do not come in such files"):
        read_puzzles(tmp_path / "a.txt", get_task("arc"))


def test_answers_where_they_are_known(tmp_path: Path) -> None:
    found = read_puzzles(write(tmp_path / "a.csv", f"source,question,answer\nx,{Q1},{A1}\n,{Q2},\n"), NINE)
    assert found.labels is not None
    assert found.answered().tolist() == [True, False]
    assert [found.source.name(row) for row in range(2)] == ["x", "a.csv:3"]


def test_no_more_is_read_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two puzzles of an endless file, in each form that streams; the third line would be a fault."""

    def endless(lines: list[str], taken: list[int]) -> Iterator[str]:
        yield from lines
        taken.append(1)
        yield "a fault\n"

    for lines in ([f"{Q1}\n", f"{Q2}\n"], ["question\n", f"{Q1}\n", f"{Q2}\n"], [f"{row}\n" for row in ROWS * 2]):
        taken: list[int] = []
        with monkeypatch.context() as patch:
            opened = texts.Text("endless", endless(lines, taken), ())
            patch.setattr("hrm_edge.data.files.open_text", lambda path, opened=opened: _Opened(opened))
            found = read_puzzles("endless", NINE, limit=2)
        assert len(found) == 2
        assert not taken


class _Opened:
    def __init__(self, text: texts.Text) -> None:
        self.text = text

    def __enter__(self) -> texts.Text:
        return self.text

    def __exit__(self, *_: object) -> None:
        pass


def test_mazes_are_read_by_the_same_rules(tmp_path: Path) -> None:
    maze = Maze(2, 3)
    for text in ("S G###\n", "S G\n###\n", "question\nS G###\n"):
        assert maze.format(read_puzzles(write(tmp_path / "a.txt", text), maze).givens[0]) == "S G###"
