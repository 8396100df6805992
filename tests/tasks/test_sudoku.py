"""Sudoku: text, rules, symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task, task_names
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import Sudoku, reveal
from hrm_edge.tasks.sudoku_board import geometry

TASKS = [Sudoku(2, 2), Sudoku(2, 3), Sudoku(3, 3), Sudoku(4, 4)]
PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def solution(task: Sudoku) -> Tokens:
    """The textbook solved grid of any box size: every row is the one above, shifted."""
    row, column = np.divmod(np.arange(task.seq_len), task.side)
    shift = row % task.box_rows * task.box_cols + row // task.box_rows
    return ((shift + column) % task.side + 2).astype(np.uint8)


def holes(task: Sudoku, rng: np.random.Generator, share: float = 0.5) -> Tokens:
    answer = solution(task)
    return np.where(rng.random(task.seq_len) < share, 1, answer).astype(np.uint8)


def test_names_and_sizes() -> None:
    assert task_names() == ["arc", "maze", "mini-sudoku", "sudoku"]
    for name, side in (("sudoku", 9), ("mini-sudoku", 4), ("sudoku-2x3", 6), ("sudoku-4x4", 16)):
        task = get_task(name)
        assert (task.name, task.side, task.vocab, task.seq_len) == (name, side, side + 2, side * side)
    assert get_task("sudoku-3x3") == get_task("sudoku")
    assert get_task("sudoku-2x3").grid == (6, 6, 2, 3)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown task 'sudoko'\ndid you mean 'sudoku'"):
        get_task("sudoko")
    with pytest.raises(UserError, match="7x7"):
        get_task("sudoku-7x7")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_text_round_trip(task: Sudoku, seed: int) -> None:
    tokens = holes(task, np.random.default_rng(seed))
    line = task.format(tokens)
    assert len(line) == task.seq_len
    assert (task.parse(line) == tokens).all()
    assert (task.parse(line.replace("0", ".").lower()) == tokens).all()
    assert (task.parse(task.pretty(tokens)) == tokens).all()
    assert task.parse(line).dtype == np.uint8


def test_pretty_is_a_boxed_grid_with_bold_givens() -> None:
    task = Sudoku(2, 3)
    answer = solution(task)
    assert task.pretty(answer).splitlines()[:4] == [
        "┌───────┬───────┐",
        "│ 1 2 3 │ 4 5 6 │",
        "│ 4 5 6 │ 1 2 3 │",
        "├───────┼───────┤",
    ]
    givens = np.ones_like(answer)
    givens[1] = answer[1]
    assert task.pretty(answer, givens).splitlines()[1] == "│ 1 \x1b[1m2\x1b[0m 3 │ 4 5 6 │"


def test_parse_takes_ascii_frames() -> None:
    text = "+---+---+\n|12 |34 |\n|34 |._|\n+---+---+\n|....0000|"
    assert Sudoku(2, 2).parse(text.replace("....0000", "....\n0000")).tolist() == [2, 3, 4, 5, 4, 5, 1, 1] + [1] * 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sudoku", PUZZLE[:-1], "read 80 cells, a sudoku puzzle has 81"),
        ("mini-sudoku", PUZZLE, "read 81 cells, a mini-sudoku puzzle has 16"),
        ("sudoku", "", "read 0 cells"),
        ("sudoku", PUZZLE[:10] + "z" + PUZZLE[11:], "bad character 'z' in row 2, column 2"),
        ("sudoku", PUZZLE + "%", "bad character '%' after 81 cells"),
        ("sudoku", PUZZLE + "?", "read 82 cells"),
        ("mini-sudoku", "1234" + "5" + "0" * 11, "bad character '5' in row 2, column 1"),
        ("sudoku", "5" + PUZZLE[1:4] + "5" + PUZZLE[5:], "two 5s in row 1"),
        ("sudoku", PUZZLE[:72] + "5" + PUZZLE[73:], "two 5s in column 1"),
        ("mini-sudoku", "0100" + "1000" + "0" * 8, "two 1s in box 1"),
        ("sudoku", "7" * 3 + "0" * 78, "three 7s in row 1"),
    ],
)
def test_parse_errors(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        get_task(name).parse(text)
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_verify_rejects_every_change_of_one_cell(task: Sudoku) -> None:
    answer = solution(task)
    blank = np.ones_like(answer)
    assert task.verify(blank, answer)
    changed = np.repeat(answer[None], task.seq_len * task.vocab, axis=0)
    rows = np.arange(len(changed))
    changed[rows, rows // task.vocab] = rows % task.vocab
    same = (changed == answer).all(axis=1)
    assert same.sum() == task.seq_len
    assert (task.verify(np.broadcast_to(blank, changed.shape), changed) == same).all()


def test_verify_needs_the_givens_kept() -> None:
    task = get_task("sudoku")
    givens, answer = task.parse(PUZZLE), task.parse(ANSWER)
    assert task.verify(givens[None], answer[None]).tolist() == [True]
    relabelled = task.random_views(20, np.random.default_rng(0)).apply(np.tile(answer, (20, 1)))
    assert not task.verify(np.tile(givens, (20, 1)), relabelled).any()
    assert task.verify(np.ones((20, 81), np.uint8), relabelled).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_views_invert_and_keep_solutions(task: Sudoku, seed: int) -> None:
    rng = np.random.default_rng(seed)
    puzzles = np.stack([holes(task, rng) for _ in range(16)])
    answers = np.tile(solution(task), (16, 1))
    views = task.random_views(16, rng)
    seen, seen_answers = views.apply(puzzles), views.apply(answers)
    assert task.verify(seen, seen_answers).all()
    assert ((seen == 1).sum(axis=1) == (puzzles == 1).sum(axis=1)).all()
    assert (views.inverse().apply(seen) == puzzles).all()
    assert (task.identity_views(16).apply(puzzles) == puzzles).all()
    assert (np.sort(views.labels, axis=1) == np.arange(task.vocab)).all()
    assert (views.labels[:, :2] == [0, 1]).all()


def test_views_cover_the_whole_group() -> None:
    """4x4: 2 transposes x (2 bands x 2² rows)² = 128 cell permutations, uniform; 2x3 boxes are never transposed."""
    cells = Sudoku(2, 2).random_views(12800, np.random.default_rng(1)).cells
    drawn, times = np.unique(cells, axis=0, return_counts=True)
    assert len(drawn) == 128
    assert ((times - 100) ** 2 / 100).sum() < 200  # chi-squared of 127 degrees of freedom: p about 4e-5
    oblong = Sudoku(2, 3)
    rows = geometry(oblong).cell_units[oblong.random_views(50, np.random.default_rng(2)).cells, 0]  # [50, 36]
    assert (rows.reshape(50, 6, 6) == rows.reshape(50, 6, 6)[:, :, :1]).all()


def test_reveal_adds_that_many_true_clues() -> None:
    task, rng = get_task("sudoku"), np.random.default_rng(3)
    givens, answers = np.tile(task.parse(PUZZLE), (60, 1)), np.tile(task.parse(ANSWER), (60, 1))
    counts = np.arange(60)
    shown = reveal(givens, answers, counts, rng.random(givens.shape))
    assert ((shown > 1).sum(axis=1) == np.minimum((givens > 1).sum(axis=1) + counts, 81)).all()
    assert ((shown == givens) | ((givens == 1) & (shown == answers))).all()
    assert (reveal(givens, answers, np.zeros(60, np.int64), rng.random(givens.shape)) == givens).all()
