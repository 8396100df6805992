"""Mazes: text, rules, shortest paths, the label rule, symmetries."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hrm_edge.errors import UserError
from hrm_edge.tasks import dihedral, get_task
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.maze import DIRECTIONS, GOAL, OPEN, PATH, START, WALL, Maze

TASKS = [Maze(5, 5), Maze(4, 7), Maze(12, 12)]
SMALL = Maze(3, 4)
MAZE = "S  #" + "# # " + "   G"
SEEDS = st.integers(0, 2**32 - 1)


def random_maze(task: Maze, rng: np.random.Generator, walls: float = 0.3) -> Tokens:
    """Any maze with one start and one goal, solvable or not [S]."""
    tokens = np.where(rng.random(task.seq_len) < walls, WALL, OPEN).astype(np.uint8)
    start, goal = rng.permutation(task.seq_len)[:2]
    tokens[start], tokens[goal] = START, GOAL
    return tokens


def neighbours(task: Maze, cell: int) -> list[int]:
    row, column = divmod(cell, task.columns)
    around = [(row + down, column + right) for down, right in DIRECTIONS]
    return [r * task.columns + c for r, c in around if 0 <= r < task.rows and 0 <= c < task.columns]


def distances(task: Maze, maze: Tokens) -> dict[int, int]:
    """Moves from the goal to every cell that a plain breadth-first search reaches."""
    goal = int(np.flatnonzero(maze == GOAL)[0])
    moves, queue = {goal: 0}, deque([goal])
    while queue:
        cell = queue.popleft()
        for other in neighbours(task, cell):
            if maze[other] != WALL and other not in moves:
                moves[other] = moves[cell] + 1
                queue.append(other)
    return moves


def some_path(task: Maze, rng: np.random.Generator) -> tuple[Tokens, Tokens] | None:
    """(maze, a path that need not be a shortest): the shortest way of a maze of which walls are then taken away."""
    dense = random_maze(task, rng)
    if task.shortest(dense[None])[0] < 0:
        return None
    path, opened = task.label(dense[None])[0], (dense == WALL) & (rng.random(task.seq_len) < 0.7)
    return np.where(opened, OPEN, dense).astype(np.uint8), np.where(opened, OPEN, path).astype(np.uint8)


def test_names_and_sizes() -> None:
    maze = get_task("maze")
    assert (maze.name, maze.vocab, maze.seq_len, maze.grid) == ("maze", 6, 900, (30, 30, 30, 30))
    assert get_task("maze-30x30") == maze
    assert get_task("maze-4x7") == Maze(4, 7)
    assert Maze(4, 7).name == "maze-4x7"
    for name in ("maze-0x9", "maze-1x1", "maze-100x100"):
        with pytest.raises(UserError, match="a maze cannot have"):
            get_task(name)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_text_round_trip(task: Maze, seed: int) -> None:
    maze = random_maze(task, np.random.default_rng(seed), 0.15)
    assume(task.shortest(maze[None])[0] >= 0)
    for tokens in (maze, task.label(maze[None])[0]):
        line = task.format(tokens)
        assert len(line) == task.seq_len
        assert (task.parse(line) == tokens).all()
        rows = "\r\n".join(line[start : start + task.columns] for start in range(0, len(line), task.columns)) + "\n"
        assert (task.parse(rows) == tokens).all()
        assert task.parse(line).dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAZE[:-1], "read 11 cells, a maze-3x4 has 12"),
        (MAZE + " ", "read 13 cells"),
        (MAZE.replace("#", "x"), "bad character 'x' in row 1, column 4"),
        (MAZE + "\t", "bad character '\\\\t' in place 13"),
        (MAZE.replace("S", " "), r"0 cells S \(start\)"),
        (MAZE.replace("#", "G"), r"4 cells G \(goal\)"),
        ("S# #" + "#  #" + "   G", "no way leads from S to G"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SMALL.parse(text)
    assert caught.value.hint


def test_pretty_shows_rows_and_makes_the_path_bold() -> None:
    answer = SMALL.label(SMALL.parse(MAZE)[None])[0]
    assert SMALL.pretty(answer).splitlines() == [
        "┌────────┐", "│S ·   ██│", "│██· ██  │", "│  · · G │", "└────────┘",
    ]  # fmt: skip
    assert SMALL.pretty(answer, SMALL.parse(MAZE)).count("\x1b[1m· ") == 4


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("So #" + "#o# " + " ooG", True),
        ("So #" + "#o# " + "oooG", False),  # a dead end besides
        ("So #" + "#o# " + " o G", False),  # a gap
        ("S  #" + "# # " + "   G", False),
        ("So #" + "#oo " + " ooG", False),  # through a wall
        ("Soo#" + "#o# " + " ooG", False),  # a branch
        ("So  " + "#o# " + " ooG", False),  # a wall is gone
        ("oo #" + "#o# " + " ooG", False),  # the start is gone
        ("So?#" + "#o# " + " ooG", False),
    ],
)
def test_verify_examples(answer: str, right: bool) -> None:
    tokens = np.array(["?# SGo".index(character) for character in answer], np.uint8)
    assert SMALL.verify(SMALL.parse(MAZE), tokens) == right
    assert SMALL.verify(SMALL.parse(MAZE)[None], tokens[None]).tolist() == [right]


def test_verify_takes_detours_but_no_loops_or_broad_paths() -> None:
    task = Maze(4, 5)
    givens = task.parse("S G  " + " " * 15)
    loop = task.parse("SoG  " + "     " + "   oo" + "   oo")
    under = task.parse("S G  " + "ooo  " + " " * 10)
    detour = task.parse("S G  " + "o o  " + "ooo  " + "     ")
    through = np.stack([loop, under, detour])
    assert task.verify(givens, through).tolist() == [False, True, True]
    assert task.optimal(np.stack([givens] * 3), through).tolist() == [False, False, False]
    broad = task.parse("S G  " + "ooo  " + "ooo  " + "     ")
    assert not task.verify(givens, broad)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_shortest_and_label_agree_with_a_plain_search(task: Maze, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mazes = np.stack([random_maze(task, rng) for _ in range(4)])
    found = task.shortest(mazes)
    for maze, length in zip(mazes, found, strict=True):
        moves = distances(task, maze)
        cell = int(np.flatnonzero(maze == START)[0])
        assert length == moves.get(cell, -1)
        if length < 0:
            continue
        answer = task.label(maze[None])[0]
        assert task.verify(maze, answer)
        assert task.optimal(maze[None], answer[None])[0]
        expected = maze.copy()  # the first neighbour, in the order down, left, right, up, that is nearer to the goal
        while moves[cell] > 1:
            cell = next(other for other in neighbours(task, cell) if moves.get(other, -1) == moves[cell] - 1)
            expected[cell] = PATH
        assert (answer == expected).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_path_is_right_and_any_change_to_it_is_not(task: Maze, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = next((pair for _ in range(20) if (pair := some_path(task, rng)) is not None), None)
    assume(found is not None)
    assert found is not None
    maze, answer = found
    assert task.verify(maze, answer)
    assert task.optimal(maze[None], answer[None])[0] == (task.length(answer[None]) == task.shortest(maze[None]))[0]
    cell = rng.integers(task.seq_len)
    changed = answer.copy()
    changed[cell] = (changed[cell] + rng.integers(1, task.vocab)) % task.vocab
    assert not task.verify(maze, changed)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_views_invert_and_keep_solutions(task: Maze, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mazes = np.stack([random_maze(task, rng, 0.15) for _ in range(6)])
    mazes = mazes[task.shortest(mazes) >= 0]
    assume(len(mazes))
    answers = task.label(mazes)
    views = task.random_views(len(mazes), rng)
    assert (views.inverse().apply(views.apply(answers)) == answers).all()
    assert task.optimal(views.apply(mazes), views.apply(answers)).all()
    assert (task.shortest(views.apply(mazes)) == task.shortest(mazes)).all()
    assert (task.identity_views(len(mazes)).apply(mazes) == mazes).all()


def test_no_mazes_at_all() -> None:
    none = np.zeros((0, SMALL.seq_len), np.uint8)
    assert SMALL.verify(none, none).shape == SMALL.optimal(none, none).shape == SMALL.shortest(none).shape == (0,)
    assert SMALL.label(none).shape == (0, SMALL.seq_len)


def test_symmetries_are_all_different_and_drawn_evenly() -> None:
    assert len({row.tobytes() for row in Maze(5, 5).symmetries()}) == 8
    assert len({row.tobytes() for row in Maze(4, 7).symmetries()}) == 4
    drawn = Maze(5, 5).random_views(4000, np.random.default_rng(0)).cells
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 8
    assert counts.min() > 400


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), which=st.integers(0, 7))
def test_dihedral_inverts(rows: int, columns: int, which: int) -> None:
    grid = np.arange(rows * columns).reshape(rows, columns)
    turned = dihedral.transform(grid, which)
    assert (dihedral.invert(turned, which) == grid).all()
    assert (turned.shape == grid.shape) or which not in dihedral.SAME_SHAPE


def test_dihedral_numbers_are_the_published_ones() -> None:
    grid = np.array([[0, 1, 2], [3, 4, 5]])
    assert [dihedral.transform(grid, which).tolist() for which in range(8)] == [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 5], [1, 4], [0, 3]],
        [[5, 4, 3], [2, 1, 0]],
        [[3, 0], [4, 1], [5, 2]],
        [[2, 1, 0], [5, 4, 3]],
        [[3, 4, 5], [0, 1, 2]],
        [[0, 3], [1, 4], [2, 5]],
        [[5, 2], [4, 1], [3, 0]],
    ]
