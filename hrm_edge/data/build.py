"""``data build`` for Sudoku: write a source as a data folder; the same arguments and seed give the same bytes.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.canonical import identities
from hrm_edge.data.files import read_puzzles
from hrm_edge.data.generator import Generated, Wanted, generate
from hrm_edge.data.layout import PartWriter, write_identifiers
from hrm_edge.data.solver import solve_many
from hrm_edge.data.sources import folder_files, hub_files
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import BLANK, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique

HUB, GENERATE = "hub", "generate"
DEFAULT_COUNT = 10_000
DEFAULT_TEST = 1_000
HELD_OUT, HELD_OUT_REMAINDER = 8, 2  # one 4x4 class in 8 is for testing; remainder 2 includes every number of clues
_PIECE = 1 << 15  # puzzles solved, compared or written at a time
_TEST_SEED, _TRAIN_SEED, _CHOICE_SEED, _VIEW_SEED = range(4)

Progress = Callable[[str, int, int], None]
"""Callback that gets (what is being done, how much is done, of how much)."""


@dataclass(frozen=True)
class Options:
    """Settings of a build; ``None`` is the source's default."""

    source: str = GENERATE
    """``hub``, ``generate``, or a path: a file of puzzles, or a folder with the hub's train.csv and test.csv."""
    subsample: int | None = None
    """Number of training puzzles drawn from a file."""
    augment: int = 0
    """Random symmetries of every training puzzle, which form one group with it."""
    seed: int = 0
    count: int | None = None
    """Number of training puzzles to generate."""
    test_count: int | None = None
    wanted: Wanted | None = None
    processes: int = 1


@dataclass(frozen=True)
class PartSummary:
    """Groups and examples of one built part, and clues and solver's guesses per puzzle before augmentation."""

    groups: int
    examples: int
    clues: tuple[int, float, int]  # fewest, mean, most
    guesses: float | None  # mean; None for files, whose puzzles are not rated


@dataclass(frozen=True)
class Summary:
    """Result of ``build``."""

    parts: dict[str, PartSummary]
    solved: int
    """Number of puzzles that had no answer and were solved."""
    dropped: int
    """Number of puzzles left out of training because a symmetry maps them to a test puzzle."""
    formats: dict[str, str]
    """Description of the format recognized in each file; empty where there is no file."""


@dataclass(frozen=True)
class Collected:
    """Puzzles of both parts, all with answers, and how they were obtained; see ``Summary``."""

    train: Puzzles
    test: Puzzles
    solved: int = 0
    dropped: int = 0
    formats: dict[str, str] = field(default_factory=dict)
    guesses: dict[str, float] = field(default_factory=dict)
    """Mean guesses of our solver for each generated part."""


def default_wanted(task: Sudoku) -> Wanted:
    """Return the default requirements: minimal puzzles; for 4x4, 4 to 8 clues.

    All minimal 4x4 puzzles fall into only 36 symmetry classes; those with 4 to 8 clues fall into 2,234.
    """
    return Wanted(clues=(4, 8)) if task.side == 4 else Wanted()


def build(task: Sudoku, out: Path | str, options: Options, on_progress: Progress | None = None) -> Summary:
    """Build the data folder ``out``, whole or not at all.

    Test puzzles are the hub's own, or ``test_count`` from the file or the generator. In the latter cases no training
    puzzle is equivalent to a test puzzle under any symmetry (on boards beyond 9x9: equal to one). At 4x4 a whole
    symmetry class is either for training or for testing, one in eight by its checksum. Raises ``UserError`` for bad
    options or sources.
    """
    on_progress = on_progress or (lambda what, done, total: None)
    _check(options)
    # The folder comes first: an --out that cannot be written must fail before the work.
    with atomic_folder(out) as folder:
        found = _collect(task, options, on_progress)
        if not len(found.train):
            raise UserError("no training puzzles are left", "give more puzzles, or a smaller --test-count")
        rng = np.random.default_rng([options.seed, _VIEW_SEED])
        parts = {"train": _write(folder, "train", task, found, options.augment, rng, on_progress)}
        if len(found.test):
            parts["test"] = _write(folder, "test", task, found, 0, rng, on_progress)
        write_identifiers(folder)
    return Summary(parts, found.solved, found.dropped, found.formats)


def _check(options: Options) -> None:
    generated = options.source == GENERATE
    for name, value, least in (
        ("--augment", options.augment, 0),
        ("--seed", options.seed, 0),
        ("--count", options.count, 1),
        ("--test-count", options.test_count, 0),
        ("--subsample", options.subsample, 1),
        ("--processes", options.processes, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} {value} is too small", f"give {least} or more")
    if generated and options.subsample is not None:
        raise UserError("--subsample draws from a file, not from --source generate", "say how many with --count")
    if not generated and (options.count is not None or options.wanted is not None):
        raise UserError(
            "--count, --clues, --minimal, --difficulty and the guesses belong to --source generate",
            "leave them out, or use --subsample to draw from the source",
        )


def _collect(task: Sudoku, options: Options, on_progress: Progress) -> Collected:
    if options.source == GENERATE:
        return _generated(task, options, on_progress)
    rng = np.random.default_rng([options.seed, _CHOICE_SEED])
    if options.source != HUB and not Path(options.source).is_dir():
        return _split(task, read_puzzles(options.source, task), options, rng, on_progress)
    files = hub_files(task) if options.source == HUB else folder_files(Path(options.source))
    parts, formats, solved = {}, {}, 0
    for split, count in (("train", options.subsample), ("test", options.test_count)):
        on_progress(f"reading {files[split].name}", 0, 1)
        found = read_puzzles(files[split], task)
        if count is not None:
            found = found[np.sort(_draw(rng, found, count, "--subsample" if split == "train" else "--test-count"))]
        formats[found.source.path] = found.source.format
        parts[split], new = _solve_missing(task, found, on_progress)
        solved += new
    return Collected(parts["train"], parts["test"], solved, formats=formats)


def _generated(task: Sudoku, options: Options, on_progress: Progress) -> Collected:
    wanted = options.wanted or default_wanted(task)
    train_count = DEFAULT_COUNT if options.count is None else options.count
    test_count = DEFAULT_TEST if options.test_count is None else options.test_count
    tested: set[bytes] = set()

    def for_test(found: Generated) -> NDArray[np.bool_]:
        if task.side > 4:
            return np.ones(len(found.inputs), bool)
        return np.array([zlib.crc32(name.tobytes()) % HELD_OUT == HELD_OUT_REMAINDER for name in found.classes], bool)

    def for_train(found: Generated) -> NDArray[np.bool_]:
        if task.side > 4:
            return np.array([name.tobytes() not in tested for name in found.classes], bool)
        return ~for_test(found)

    def run(what: str, count: int, tag: int, accept: Callable[[Generated], NDArray[np.bool_]]) -> Generated:
        seed = int(np.random.SeedSequence([options.seed, tag]).generate_state(1, np.uint64)[0])
        return generate(
            task,
            count,
            seed,
            wanted,
            processes=options.processes,
            accept=accept,
            on_progress=lambda done: on_progress(what, done, count),
        )

    test = run("generating test puzzles", test_count, _TEST_SEED, for_test)
    tested.update(name.tobytes() for name in test.classes)
    train = run("generating training puzzles", train_count, _TRAIN_SEED, for_train)
    return Collected(
        Puzzles.of(task, train.inputs, train.labels, called="generated"),
        Puzzles.of(task, test.inputs, test.labels, called="generated"),
        guesses={"train": float(train.guesses.mean()), "test": float(test.guesses.mean()) if test_count else 0.0},
    )


def _split(task: Sudoku, file: Puzzles, options: Options, rng: np.random.Generator, on_progress: Progress) -> Collected:
    """Split a single file into training and test puzzles, in the file's order, with no symmetry class in both."""
    test_count = min(DEFAULT_TEST, len(file) // 10) if options.test_count is None else options.test_count
    order, path = rng.permutation(len(file)), file.source.path
    if test_count >= len(file):
        raise UserError(
            f"--test-count {test_count} leaves none of the {len(file)} puzzles of {path} for training",
            "give a smaller one",
        )
    test_rows, rest = order[:test_count], order[test_count:]
    tested = set(_names(task, file.givens[test_rows]))
    wanted = len(rest) if options.subsample is None else options.subsample
    kept: list[NDArray[np.int64]] = []
    found = dropped = 0
    for start in range(0, len(rest), _PIECE):
        rows = rest[start : start + _PIECE]
        if tested:
            free = np.array([name not in tested for name in _names(task, file.givens[rows])], bool)
            rows = rows[free]
            dropped += int((~free).sum())
        kept.append(rows[: wanted - found])
        found += len(kept[-1])
        on_progress("comparing with the test puzzles", found, wanted)
        if found == wanted:
            break
    if options.subsample is not None and found < wanted:
        raise UserError(
            f"--subsample {wanted}: {path} has {found} training puzzles besides the {test_count} test puzzles",
            "give a smaller --subsample or --test-count",
        )
    train, solved = _solve_missing(task, file[np.sort(np.concatenate(kept))], on_progress)
    test, solved_test = _solve_missing(task, file[np.sort(test_rows)], on_progress)
    return Collected(train, test, solved + solved_test, dropped, {path: file.source.format})


def _names(task: Sudoku, tokens: Tokens) -> list[bytes]:
    """Return the keys that must not be in both parts: the symmetry classes or, beyond 9x9, the puzzles themselves."""
    return [name.tobytes() for name in identities(task, tokens)]


def _draw(rng: np.random.Generator, file: Puzzles, count: int, flag: str) -> NDArray[np.int64]:
    if count > len(file):
        raise UserError(f"{flag} {count}: {file.source.path} has only {len(file)} puzzles", "give a smaller number")
    return rng.permutation(len(file))[:count]


def _solve_missing(task: Sudoku, puzzles: Puzzles, on_progress: Progress) -> tuple[Puzzles, int]:
    """Return the puzzles with all answers, solved where the file has none, and the number solved.

    Raises ``UserError`` for a puzzle without exactly one solution.
    """
    missing = np.flatnonzero(~puzzles.answered())
    labels = np.zeros_like(puzzles.givens) if puzzles.labels is None else puzzles.labels.copy()
    for start in range(0, len(missing), _PIECE):
        rows = missing[start : start + _PIECE]
        found = solve_many(task, puzzles.givens[rows])
        for bad in rows[found.counts != 1][:1]:
            try:
                require_unique(task, puzzles.givens[bad], max_nodes=1 << 62)  # its error names the ambiguous cell
            except UserError as error:
                raise UserError(f"{puzzles.source.where(int(bad))}: {error.problem}", error.hint) from error
        labels[rows] = found.answers
        on_progress("solving", start + len(rows), len(missing))
    return replace(puzzles, labels=labels), len(missing)


def _write(
    folder: Path,
    split: str,
    task: Sudoku,
    found: Collected,
    augment: int,
    rng: np.random.Generator,
    on_progress: Progress,
) -> PartSummary:
    puzzles = found.train if split == "train" else found.test
    assert puzzles.labels is not None
    groups, size = len(puzzles), augment + 1
    # The step must depend on the arguments only, as the order of random draws does.
    step = max(1, _PIECE // size)
    with PartWriter(folder, split, task) as writer:
        for start in range(0, groups, step):
            originals = puzzles.givens[start : start + step], puzzles.labels[start : start + step]
            rows = len(originals[0])
            if augment:
                views = task.random_views(rows * augment, rng)
                pair = [
                    np.concatenate(
                        [tokens[:, None], views.apply(tokens.repeat(augment, axis=0)).reshape(rows, augment, -1)],
                        axis=1,
                    ).reshape(rows * size, -1)
                    for tokens in originals
                ]
            else:
                pair = list(originals)
            writer.add(pair[0], pair[1], groups=np.full(rows, size, np.int32))
            on_progress(f"writing {split}", start + rows, groups)
    clues = (puzzles.givens > BLANK).sum(axis=1)
    return PartSummary(
        groups,
        groups * size,
        (int(clues.min()), float(clues.mean()), int(clues.max())),
        found.guesses.get(split),
    )
