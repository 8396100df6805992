"""``data build maze``: write generated mazes or a file's as a data folder; the same arguments give the same bytes.

Axes: N mazes, S cells, K symmetries.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hrm_edge.data.files import read_puzzles
from hrm_edge.data.layout import PartWriter, write_identifiers
from hrm_edge.data.parallel import in_order
from hrm_edge.data.sources import folder_files, hub_files
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.maze import WALL, Maze
from hrm_edge.tasks.puzzles import Puzzles

HUB, GENERATE = "hub", "generate"
DEFAULT_COUNT = DEFAULT_TEST = 1000  # as in Maze-Hard
LENGTH_30 = 112
"""Fewest moves of the shortest path in generated 30 x 30 mazes: above 110, counted in moves or in marked cells."""
WALL_SHARE = (0.28, 0.45)
"""Lowest and highest share of walls, as in Maze-Hard; mazes with a long shortest path have 37 % on average."""
TRIES = 1 << 14  # candidates per job; their order, and so a seed's mazes, do not depend on it
GIVE_UP = 1 << 21  # candidates in a row without a new maze
_PIECE = 256  # mazes labelled and written at a time
_TEST_SEED, _TRAIN_SEED, _CHOICE_SEED, _VIEW_SEED = range(4)

Progress = Callable[[str, int, int], None]
"""Callback that gets (what is being done, how much is done, of how much)."""


@dataclass(frozen=True)
class Options:
    """Settings of a build; ``None`` is the source's default."""

    source: str = GENERATE
    """``hub``, ``generate``, or a path: a file of mazes, or a folder with train.csv and test.csv (or .npz)."""
    augment: int = 0
    """Other symmetries of every training maze, 7 at most, which form one group with it."""
    seed: int = 0
    count: int | None = None
    """Number of training mazes to generate."""
    test_count: int | None = None
    subsample: int | None = None
    """Number of training mazes drawn from a file."""
    min_length: int | None = None
    """Fewest moves of the shortest path of generated mazes."""
    processes: int = 1


@dataclass(frozen=True)
class PartSummary:
    """Groups and examples of one built part, and moves and share of walls of its mazes before augmentation."""

    groups: int
    examples: int
    moves: tuple[int, float, int]  # fewest, mean, most
    walls: float


@dataclass(frozen=True)
class Summary:
    """Result of ``build``."""

    parts: dict[str, PartSummary]
    solved: int
    """Number of mazes that had no answer and were solved."""
    dropped: int
    """Number of mazes left out of training because a symmetry maps them to a test maze."""
    formats: dict[str, str]
    """Description of the format recognized in each file; empty where there is no file."""


def default_length(task: Maze) -> int:
    """Return the fewest moves of generated mazes: ``LENGTH_30``, scaled down by area or up by side."""
    area = task.seq_len / 900
    return max(1, round(LENGTH_30 * min(area, area**0.5)))


def classes(task: Maze, mazes: Tokens) -> list[bytes]:
    """Return a key for each maze of [N, S], which it shares with its symmetries and no other maze."""
    views = mazes[:, task.symmetries()]  # [N, K, S]
    return [min(view.tobytes() for view in views[row]) for row in range(len(mazes))]


def _candidates(task: Maze, seed: int, min_length: int, first: int) -> Tokens:
    """Return the mazes uint8 [n, S] among candidates number ``first`` … ``first + TRIES - 1`` of a seed."""
    from hrm_edge.data.maze_numba import search_mazes  # the compiler is an optional dependency

    low, high = (min(round(share * task.seq_len), task.seq_len - 2) for share in WALL_SHARE)
    mazes = np.zeros((TRIES, task.seq_len), np.uint8)
    found, _ = search_mazes(np.uint64(seed), first, TRIES, task.rows, task.columns, low, high, min_length, mazes)
    return mazes[:found].copy()


def generate(
    task: Maze,
    count: int,
    seed: int,
    *,
    min_length: int | None = None,
    processes: int = 1,
    avoid: set[bytes] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Tokens:
    """Return ``count`` mazes uint8 [count, S] of a seed whose shortest path has at least ``min_length`` moves.

    No two are symmetries of each other or of a class in ``avoid``. The result is the same for any number of processes.
    Raises ``UserError`` when such mazes run out.
    """
    length = default_length(task) if min_length is None else min_length
    seen = set(avoid or ())
    found: list[Tokens] = []
    fruitless = 0
    pieces: Iterator[Tokens] = in_order(
        partial(_candidates, task, seed, length), (number * TRIES for number in itertools.count()), processes
    )
    while len(found) < count:
        piece = next(pieces)
        before = len(found)
        for maze, name in zip(piece, classes(task, piece), strict=True):
            if name not in seen and len(found) < count:
                seen.add(name)
                found.append(maze)
        fruitless = 0 if len(found) > before else fruitless + TRIES
        if fruitless >= GIVE_UP:
            raise UserError(
                f"found only {len(found)} of {count} such mazes: {fruitless} tries in a row brought no new one",
                "ask for fewer (--count, --test-count), or for shorter paths (--min-path)",
            )
        if on_progress is not None:
            on_progress(len(found))
    return np.stack(found) if found else np.zeros((0, task.seq_len), np.uint8)


def build(task: Maze, out: Path | str, options: Options, on_progress: Progress | None = None) -> Summary:
    """Build the data folder ``out``, whole or not at all; no training maze is a symmetry of a test maze.

    The hub's data set and a folder with train and test files keep their own parts. Raises ``UserError`` for bad options
    or sources.
    """
    on_progress = on_progress or (lambda what, done, total: None)
    _check(task, options)
    with atomic_folder(out) as folder:
        train, test, solved, dropped, formats = _collect(task, options, on_progress)
        if not len(train):
            raise UserError("no training mazes are left", "give more mazes, or a smaller --test-count")
        parts = {"train": _write(folder, "train", task, train, options, on_progress)}
        if len(test):
            parts["test"] = _write(folder, "test", task, test, Options(), on_progress)
        write_identifiers(folder)
    return Summary(parts, solved, dropped, formats)


def _check(task: Maze, options: Options) -> None:
    for name, value, least in (
        ("--augment", options.augment, 0),
        ("--seed", options.seed, 0),
        ("--count", options.count, 1),
        ("--test-count", options.test_count, 0),
        ("--subsample", options.subsample, 1),
        ("--min-path", options.min_length, 1),
        ("--processes", options.processes, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} {value} is too small", f"give {least} or more")
    most = len(task.symmetries()) - 1
    if options.augment > most:
        raise UserError(f"--augment {options.augment}: {task.name} has {most} other symmetries", f"give 0 to {most}")
    generated = options.source == GENERATE
    if generated and options.subsample is not None:
        raise UserError("--subsample draws from a file, not from --source generate", "say how many with --count")
    if not generated and (options.count is not None or options.min_length is not None):
        raise UserError("--count and --min-path belong to --source generate", "use --subsample to draw from the source")


_Collected = tuple[Puzzles, Puzzles, int, int, dict[str, str]]
"""(train, test, solved, dropped, formats)."""


def _collect(task: Maze, options: Options, on_progress: Progress) -> _Collected:
    if options.source == GENERATE:
        return *_generated(task, options, on_progress), 0, 0, {}
    rng = np.random.default_rng([options.seed, _CHOICE_SEED])
    path = Path(options.source)
    if options.source != HUB and not path.is_dir():
        on_progress(f"reading {path.name}", 0, 1)
        return _split(task, read_puzzles(options.source, task), options, rng)
    paths = hub_files(task) if options.source == HUB else folder_files(path, task)
    parts, formats, solved = {}, {}, 0
    for split, count in (("train", options.subsample), ("test", options.test_count)):
        on_progress(f"reading {paths[split].name}", 0, 1)
        file = read_puzzles(paths[split], task)
        order = rng.permutation(len(file))
        if count is not None:
            file = file[np.sort(order[: _at_most(file, count, "--subsample" if split == "train" else "--test-count")])]
        parts[split], new = _solve_missing(task, file)
        formats[file.source.path] = file.source.format
        solved += new
    return parts["train"], parts["test"], solved, 0, formats


def _at_most(file: Puzzles, count: int, flag: str) -> int:
    if count > len(file):
        raise UserError(f"{flag} {count}: {file.source.path} has only {len(file)} mazes", "give a smaller number")
    return count


def _solve_missing(task: Maze, mazes: Puzzles) -> tuple[Puzzles, int]:
    """Return the mazes with all answers, by ``Maze.label`` where the file has none, and the number of those."""
    missing = ~mazes.answered()
    labels = np.zeros_like(mazes.givens) if mazes.labels is None else mazes.labels.copy()
    labels[missing] = task.label(mazes.givens[missing])
    return replace(mazes, labels=labels), int(missing.sum())


def _generated(task: Maze, options: Options, on_progress: Progress) -> tuple[Puzzles, Puzzles]:
    def run(what: str, count: int, tag: int, avoid: set[bytes]) -> Puzzles:
        seed = int(np.random.SeedSequence([options.seed, tag]).generate_state(1, np.uint64)[0])
        mazes = generate(
            task,
            count,
            seed,
            min_length=options.min_length,
            processes=options.processes,
            avoid=avoid,
            on_progress=lambda done: on_progress(what, done, count),
        )
        return Puzzles.of(task, mazes, task.label(mazes), called="generated")

    test_count = DEFAULT_TEST if options.test_count is None else options.test_count
    test = run("generating test mazes", test_count, _TEST_SEED, set())
    train_count = DEFAULT_COUNT if options.count is None else options.count
    train = run("generating training mazes", train_count, _TRAIN_SEED, set(classes(task, test.givens)))
    return train, test


def _split(task: Maze, file: Puzzles, options: Options, rng: np.random.Generator) -> _Collected:
    """Split a single file into training and test mazes, in the file's order, with no symmetry class in both."""
    path = file.source.path
    test_count = min(DEFAULT_TEST, len(file) // 10) if options.test_count is None else options.test_count
    if test_count >= len(file):
        raise UserError(
            f"--test-count {test_count} leaves none of the {len(file)} mazes of {path} for training",
            "give a smaller one",
        )
    order = rng.permutation(len(file))
    names = classes(task, file.givens)
    tested = {names[row] for row in order[:test_count]}
    rest = np.array([row for row in order[test_count:] if names[row] not in tested], np.int64)
    if options.subsample is not None and options.subsample > len(rest):
        raise UserError(
            f"--subsample {options.subsample}: {path} has {len(rest)} training mazes besides the test mazes",
            "give a smaller --subsample or --test-count",
        )
    train, solved = _solve_missing(task, file[np.sort(rest[: options.subsample])])
    test, solved_test = _solve_missing(task, file[np.sort(order[:test_count])])
    dropped, formats = len(file) - test_count - len(rest), {path: file.source.format}
    return train, test, solved + solved_test, dropped, formats


def _write(
    folder: Path, split: str, task: Maze, mazes: Puzzles, options: Options, on_progress: Progress
) -> PartSummary:
    """Write a part, whose labels are a function of the maze wherever the source's are.

    Where all labels are the first shortest path in our order, those of the symmetries are too; otherwise they are the
    symmetries of the labels.
    """
    rng = np.random.default_rng([options.seed, _VIEW_SEED])
    assert mazes.labels is not None
    every, groups, size = task.symmetries(), len(mazes), options.augment + 1
    by_rule = size > 1 and bool((task.label(mazes.givens) == mazes.labels).all())
    with PartWriter(folder, split, task) as writer:
        for start in range(0, groups, _PIECE):
            rows = np.arange(start, min(start + _PIECE, groups))
            order = np.argsort(rng.random((len(rows), len(every) - 1)), axis=1)[:, : size - 1]
            # The maze itself comes first.
            chosen = np.concatenate([np.zeros((len(rows), 1), np.int64), order + 1], axis=1)
            views = task.views(every[chosen.ravel()])
            inputs = views.apply(mazes.givens[rows].repeat(size, axis=0))
            labels = task.label(inputs) if by_rule else views.apply(mazes.labels[rows].repeat(size, axis=0))
            writer.add(inputs, labels, groups=np.full(len(rows), size, np.int32))
            on_progress(f"writing {split}", start + len(rows), groups)
    moves = task.length(mazes.labels)
    return PartSummary(
        groups,
        groups * size,
        (int(moves.min()), float(moves.mean()), int(moves.max())),
        float((mazes.givens == WALL).mean()),
    )
