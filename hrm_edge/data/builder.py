"""Steps of ``data build`` that Sudoku and mazes share: read a source, part it, solve what has no answer, write it.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnProgress
from hrm_edge.data.files import read_puzzles
from hrm_edge.data.layout import PartWriter, write_identifiers
from hrm_edge.data.sources import folder_files, hub_files
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder
from hrm_edge.tasks.base import Task, Tokens, Views
from hrm_edge.tasks.puzzles import Puzzles

_HUB, GENERATE = "hub", "generate"
_DEFAULT_TEST = 1000
_PIECE = 1 << 15  # puzzles solved or compared at a time
_TEST_SEED, _TRAIN_SEED, _CHOICE_SEED, _VIEW_SEED = range(4)


@dataclass(frozen=True)
class SourceOptions:
    """Settings of a build from a file or a generator; ``None`` is the source's default."""

    source: str = GENERATE
    """``hub``, ``generate``, or a path: a file of puzzles, or a folder with the hub's train.csv and test.csv."""
    augment: int = 0
    """Symmetries of every training puzzle, which form one group with it."""
    seed: int = 0
    count: int | None = None
    """Number of training puzzles to generate."""
    test_count: int | None = None
    subsample: int | None = None
    """Number of training puzzles drawn from a file."""
    processes: int = 1


@dataclass(frozen=True)
class _Collected:
    """Puzzles of both parts, all with answers, and how they were obtained; see ``Summary``."""

    train: Puzzles
    test: Puzzles
    solved: int = 0
    dropped: int = 0
    formats: dict[str, str] = field(default_factory=dict)


_AnyTask = TypeVar("_AnyTask", bound=Task)
_AnyOptions = TypeVar("_AnyOptions", bound=SourceOptions)
Part = TypeVar("Part")


@dataclass(frozen=True)
class Summary(Generic[Part]):
    """Result of a build."""

    parts: dict[str, Part]
    solved: int
    """Number of puzzles that had no answer and were solved."""
    dropped: int
    """Number of puzzles left out of training because a symmetry maps them to a test puzzle."""
    formats: dict[str, str]
    """Description of the format recognized in each file; empty where there is no file."""


def check_least(values: dict[str, tuple[int | None, int]]) -> None:
    """Raise ``UserError`` for an option whose value is below its least one: option → (value, least)."""
    for name, (value, least) in values.items():
        if value is not None and value < least:
            raise UserError(f"{name} {value} is too small", f"give {least} or more")


class Builder(ABC, Generic[_AnyTask, _AnyOptions, Part]):
    """A build of one task; a subclass knows how its puzzles are generated, compared, solved and described."""

    things: str
    """What the task's puzzles are called in messages."""
    default_count: int
    """Training puzzles that are generated where the options do not say how many."""
    piece = _PIECE
    """Examples written at a time."""

    def __init__(self, task: _AnyTask, options: _AnyOptions, on_progress: OnProgress) -> None:
        self.task, self.options, self.on_progress = task, options, on_progress

    @abstractmethod
    def generated(self, split: str, count: int, tested: set[bytes]) -> Puzzles:
        """Generate ``count`` puzzles of a part with their answers, none of which has a name in ``tested``."""

    @abstractmethod
    def names(self, tokens: Tokens) -> list[bytes]:
        """Return a key for each puzzle of [N, S]; no key may be in both parts."""

    @abstractmethod
    def solved(self, puzzles: Puzzles, missing: NDArray[np.int64]) -> Tokens:
        """Return the answers uint8 [n, S] of the puzzles ``missing`` [n]; ``UserError`` where there is not just one."""

    @abstractmethod
    def symmetries(self, count: int, augment: int, rng: np.random.Generator) -> Views:
        """Return ``augment`` random views of each of ``count`` puzzles, those of a puzzle beside each other."""

    def rule(self, puzzles: Puzzles) -> Callable[[Tokens], Tokens] | None:
        """Return what labels a symmetry of ``puzzles``; None: its label is the symmetry of theirs."""
        return None

    @abstractmethod
    def describe(self, split: str, puzzles: Puzzles, examples: int) -> Part:
        """Return the summary of a part of ``puzzles``, which are ``examples`` with their symmetries."""

    def check(self) -> None:
        """Raise ``UserError`` for a value that is too small, or an option that belongs to another source."""
        options = self.options
        check_least(
            {
                "--augment": (options.augment, 0),
                "--seed": (options.seed, 0),
                "--count": (options.count, 1),
                "--test-count": (options.test_count, 0),
                "--subsample": (options.subsample, 1),
                "--processes": (options.processes, 1),
            }
        )
        if options.source == GENERATE and options.subsample is not None:
            raise UserError("--subsample draws from a file, not from --source generate", "say how many with --count")

    def build(self, out: Path | str) -> Summary[Part]:
        """Build the data folder ``out``, whole or not at all."""
        self.check()
        # The folder comes first: an --out that cannot be written must fail before the work.
        with atomic_folder(out) as folder:
            collected = self._generate_parts() if self.options.source == GENERATE else self._read_parts()
            if not len(collected.train):
                raise UserError(
                    f"no training {self.things} are left", f"give more {self.things}, or a smaller --test-count"
                )
            rng = np.random.default_rng([self.options.seed, _VIEW_SEED])
            parts = {"train": self._write_part(folder, "train", collected.train, self.options.augment, rng)}
            if len(collected.test):
                parts["test"] = self._write_part(folder, "test", collected.test, 0, rng)
            write_identifiers(folder)
        return Summary(parts, collected.solved, collected.dropped, collected.formats)

    def _write_part(self, folder: Path, split: str, puzzles: Puzzles, augment: int, rng: np.random.Generator) -> Part:
        """Write each puzzle and ``augment`` symmetries of it as a group."""
        size = augment + 1
        label = self.rule(puzzles) if augment else None
        # The step must depend on the arguments only, as the order of random draws does.
        step = max(1, self.piece // size)
        with PartWriter(folder, split, self.task) as writer:
            for start in range(0, len(puzzles), step):
                part = puzzles[start : start + step]
                assert part.labels is not None
                inputs, labels = part.givens, part.labels
                if augment:
                    views = self.symmetries(len(part), augment, rng)
                    inputs = _grouped(inputs, views, augment)
                    labels = _grouped(labels, views, augment) if label is None else label(inputs)
                writer.add(inputs, labels, groups=np.full(len(part), size, np.int32))
                self.on_progress(f"writing {split}", start + len(part), len(puzzles))
        return self.describe(split, puzzles, len(puzzles) * size)

    def _generate_parts(self) -> _Collected:
        options = self.options
        test = self.generated("test", _DEFAULT_TEST if options.test_count is None else options.test_count, set())
        count = self.default_count if options.count is None else options.count
        return _Collected(self.generated("train", count, set(self.names(test.givens))), test)

    def seed_of(self, split: str) -> int:
        """Return the generator's seed for a part."""
        tag = _TRAIN_SEED if split == "train" else _TEST_SEED
        return int(np.random.SeedSequence([self.options.seed, tag]).generate_state(1, np.uint64)[0])

    def _read_parts(self) -> _Collected:
        options, source = self.options, Path(self.options.source)
        rng = np.random.default_rng([options.seed, _CHOICE_SEED])
        if options.source != _HUB and not source.is_dir():
            self.on_progress(f"reading {source.name}", 0, 1)
            return self._split(read_puzzles(options.source, self.task), rng)
        files = hub_files(self.task) if options.source == _HUB else folder_files(source, self.task)
        parts, formats, solved = {}, {}, 0
        for split, flag, count in (
            ("train", "--subsample", options.subsample),
            ("test", "--test-count", options.test_count),
        ):
            self.on_progress(f"reading {files[split].name}", 0, 1)
            puzzles = read_puzzles(files[split], self.task)
            if count is not None and count > len(puzzles):
                raise UserError(
                    f"{flag} {count}: {puzzles.source.path} has only {len(puzzles)} {self.things}",
                    "give a smaller number",
                )
            if count is not None:
                puzzles = puzzles[np.sort(rng.permutation(len(puzzles))[:count])]
            formats[puzzles.source.path] = puzzles.source.format
            parts[split], new = self._answered(puzzles)
            solved += new
        return _Collected(parts["train"], parts["test"], solved, formats=formats)

    def _split(self, file: Puzzles, rng: np.random.Generator) -> _Collected:
        """Split a single file into both parts, in the file's order, with no symmetry class in both."""
        options, path = self.options, file.source.path
        test_count = min(_DEFAULT_TEST, len(file) // 10) if options.test_count is None else options.test_count
        if test_count >= len(file):
            raise UserError(
                f"--test-count {test_count} leaves none of the {len(file)} {self.things} of {path} for training",
                "give a smaller one",
            )
        order = rng.permutation(len(file))
        test_rows, rest = order[:test_count], order[test_count:]
        tested = set(self.names(file.givens[test_rows]))
        wanted = len(rest) if options.subsample is None else options.subsample
        kept: list[NDArray[np.int64]] = []
        count = dropped = 0
        for start in range(0, len(rest), _PIECE):
            rows = rest[start : start + _PIECE]
            if tested:
                free = np.array([name not in tested for name in self.names(file.givens[rows])], bool)
                rows = rows[free]
                dropped += int((~free).sum())
            kept.append(rows[: wanted - count])
            count += len(kept[-1])
            self.on_progress(f"comparing with the test {self.things}", count, wanted)
            if count == wanted:
                break
        if options.subsample is not None and count < wanted:
            raise UserError(
                f"--subsample {wanted}: {path} has {count} training {self.things} besides the {test_count} test "
                f"{self.things}",
                "give a smaller --subsample or --test-count",
            )
        train, solved = self._answered(file[np.sort(np.concatenate(kept))])
        test, solved_test = self._answered(file[np.sort(test_rows)])
        return _Collected(train, test, solved + solved_test, dropped, {path: file.source.format})

    def _answered(self, puzzles: Puzzles) -> tuple[Puzzles, int]:
        """Return the puzzles with all answers, solved where the file has none, and the number solved."""
        missing = np.flatnonzero(~puzzles.answered())
        labels = np.zeros_like(puzzles.givens) if puzzles.labels is None else puzzles.labels.copy()
        for start in range(0, len(missing), _PIECE):
            rows = missing[start : start + _PIECE]
            labels[rows] = self.solved(puzzles, rows)
            self.on_progress("solving", start + len(rows), len(missing))
        return replace(puzzles, labels=labels), len(missing)


def _grouped(tokens: Tokens, views: Views, augment: int) -> Tokens:
    """Return every row of [N, S], followed by its ``augment`` symmetries under ``views`` [N * augment]."""
    symmetries = views.apply(tokens.repeat(augment, axis=0)).reshape(len(tokens), augment, -1)
    return np.concatenate([tokens[:, None], symmetries], axis=1).reshape(len(tokens) * (augment + 1), -1)
