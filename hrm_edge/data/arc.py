"""``data build arc``: write tasks and their augmentations as a data folder; the same arguments give the same bytes.

A group is a task, a puzzle is the task or one augmentation of it, with its own identifier, and an example is one pair
of grids. Axes: N examples, K puzzles of a task (itself first), E pairs of a task, S = 900 cells.
"""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnProgress, ignore
from hrm_edge.data.arc_files import ArcTask, Pair, read_all
from hrm_edge.data.builder import check_least
from hrm_edge.data.layout import PartWriter, read_identifiers, read_part, write_identifiers
from hrm_edge.data.parallel import in_order
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder
from hrm_edge.tasks import dihedral
from hrm_edge.tasks.arc import COLOURS, END, FIRST_COLOUR, SIDE, Arc, Augmentation, random_augmentation
from hrm_edge.tasks.arc_votes import Questions
from hrm_edge.tasks.base import Tokens

_DEFAULT_AUGMENT = 1000
_RETRIES = 5
"""Random draws per wanted augmentation, as in the published build: some tasks have fewer different ones."""
_CHOICE_SEED = 0


@dataclass(frozen=True)
class Options:
    """Settings of a build."""

    sources: tuple[str, ...]
    """Archives or folders."""
    augment: int = _DEFAULT_AUGMENT
    """Augmentations of every task, not counting the task itself."""
    seed: int = 0
    subsample: int | None = None
    """Number of tasks drawn from the sources (None: all)."""
    processes: int = 1


@dataclass(frozen=True)
class PartSummary:
    """Sizes of one built part."""

    groups: int
    puzzles: int
    examples: int


@dataclass(frozen=True)
class Summary:
    """Result of ``build``."""

    parts: dict[str, PartSummary]
    short: int
    """Number of tasks that have fewer different augmentations than requested."""


@dataclass(frozen=True)
class _TaskPuzzles:
    """Task and its augmentations, encoded: K puzzles of the same pairs."""

    names: list[str]
    """Identifiers [K]."""
    train: tuple[Tokens, Tokens]
    """Inputs and labels uint8 [K * E, S] for training."""
    test: tuple[Tokens, Tokens] | None
    """Inputs and labels uint8 [K * E, S] of the questions; a label is all padding where the answer is not known."""


def build(out: Path | str, options: Options, on_progress: OnProgress = ignore) -> Summary:
    """Build the data folder ``out``, whole or not at all, with the published division into parts.

    Training: the demonstration pairs of every task, and the test pairs of training tasks. Test: the test pairs of
    evaluation tasks. For training, all pairs of a puzzle but one are moved to a random place on the canvas. Raises
    ``UserError`` for bad options or sources, or a disk without enough space.
    """
    _check(options)
    with atomic_folder(out) as folder:
        tasks = _draw(read_all(list(options.sources)), options)
        _check_space(folder, tasks, options.augment)
        names: list[str] = []
        short = 0
        with PartWriter(folder, "train", Arc()) as train, PartWriter(folder, "test", Arc()) as test:
            work = partial(_augmented, count=options.augment, seed=options.seed)
            for done, puzzles in enumerate(in_order(work, tasks, options.processes), start=1):
                identifiers = np.arange(len(puzzles.names)).astype(np.int32) + len(names) + 1  # 0 is the blank puzzle
                _add(train, puzzles.train, identifiers)
                if puzzles.test is not None:
                    _add(test, puzzles.test, identifiers)
                names += puzzles.names
                short += len(puzzles.names) <= options.augment
                on_progress("augmenting tasks", done, len(tasks))
            train.identifiers = test.identifiers = len(names) + 1
        if not len(test.groups):
            shutil.rmtree(test.root)
        write_identifiers(folder, names)
    writers = {"train": train, "test": test} if len(test.groups) else {"train": train}
    return Summary(
        {name: PartSummary(len(w.groups), len(w.puzzles), w.examples) for name, w in writers.items()},
        short,
    )


def _check(options: Options) -> None:
    check_least(
        {
            "--augment": (options.augment, 0),
            "--seed": (options.seed, 0),
            "--subsample": (options.subsample, 1),
            "--processes": (options.processes, 1),
        }
    )


def _draw(tasks: list[ArcTask], options: Options) -> list[ArcTask]:
    if options.subsample is None:
        return tasks
    if options.subsample > len(tasks):
        raise UserError(f"--subsample {options.subsample}: the sources have {len(tasks)} tasks", "give fewer")
    rng = np.random.default_rng([options.seed, _CHOICE_SEED])
    return [tasks[row] for row in np.sort(rng.permutation(len(tasks))[: options.subsample])]


def _check_space(folder: Path, tasks: list[ArcTask], augment: int) -> None:
    needed = sum(len(task.pairs) for task in tasks) * (augment + 1) * 2 * SIDE * SIDE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the data folder needs {needed / 1e9:.1f} GB, its disk has {free / 1e9:.1f} GB free",
            "choose another --out, or fewer augmentations with --augment",
        )


def _add(writer: PartWriter, pairs: tuple[Tokens, Tokens], identifiers: NDArray[np.int32]) -> None:
    count = len(identifiers)
    writer.add(
        *pairs,
        groups=np.array([count], np.int32),
        puzzles=np.full(count, len(pairs[0]) // count, np.int32),
        identifiers=identifiers,
    )


def _augmented(task: ArcTask, count: int, seed: int) -> _TaskPuzzles:
    """Return a task and ``count`` different augmentations of it, or as many as ``_RETRIES`` draws for each one yield.

    They depend only on the seed and the task's name.
    """
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    chosen = _different(task, count, rng)
    names = [task.name] + [augmentation.identifier(task.name) for augmentation in chosen[1:]]
    train = _encoded(task.train if task.asked else task.pairs, chosen, rng)
    test = _encoded(task.test, chosen, None) if task.asked else None
    return _TaskPuzzles(names, train, test)


def _different(task: ArcTask, count: int, rng: np.random.Generator) -> list[Augmentation]:
    """Return the identity and up to ``count`` random augmentations; no two of them give the task the same pairs."""
    flat = [_flattened(task.pairs, which) for which in range(dihedral.COUNT)]
    chosen = [Augmentation()]
    seen = {_fingerprint(flat[0], chosen[0])}
    for _ in range(_RETRIES * count):
        if len(chosen) > count:
            break
        augmentation = random_augmentation(rng)
        fingerprint = _fingerprint(flat[augmentation.which], augmentation)
        if fingerprint not in seen:
            seen.add(fingerprint)
            chosen.append(augmentation)
    return chosen


def _flattened(pairs: Sequence[Pair], which: int) -> list[tuple[bytes, bytes]]:
    """Return (shapes, cells) of every pair under a symmetry."""
    turned = [[dihedral.transform(grid, which) for grid in pair if grid is not None] for pair in pairs]
    return [(bytes(n for grid in pair for n in grid.shape), b"".join(g.tobytes() for g in pair)) for pair in turned]


def _fingerprint(pairs: list[tuple[bytes, bytes]], augmentation: Augmentation) -> bytes:
    """Return a hash that two augmentations share exactly if they give the same pairs, in any order."""
    table = bytes(augmentation.colours).ljust(256, b"\0")
    cells = sorted(shapes + cells.translate(table) for shapes, cells in pairs)
    return hashlib.blake2b(b"".join(cells), digest_size=16).digest()


def _encoded(
    pairs: Sequence[Pair], chosen: list[Augmentation], rng: np.random.Generator | None
) -> tuple[Tokens, Tokens]:
    """Return inputs and labels uint8 [K * E, S] of the pairs under every augmentation, moved on the canvas by ``rng``.

    ``rng`` None: not moved.
    """
    canvases = [[_wide(pair, which) for pair in pairs] for which in range(dihedral.COUNT)]
    colours = np.zeros((len(chosen), 256), np.uint8)  # token → token
    colours[:, :FIRST_COLOUR] = np.arange(FIRST_COLOUR)
    colours[:, FIRST_COLOUR : FIRST_COLOUR + COLOURS] = np.array([one.colours for one in chosen]) + FIRST_COLOUR
    moves = _moves(pairs, chosen, rng)  # [K, E, 2]
    encoded = np.empty((2, len(chosen), len(pairs), SIDE, SIDE), np.uint8)
    for puzzle, augmentation in enumerate(chosen):
        for index, wide in enumerate(canvases[augmentation.which]):
            row, column = SIDE - moves[puzzle, index]
            window = wide[:, row : row + SIDE, column : column + SIDE]  # [2, 30, 30]
            encoded[:, puzzle, index] = colours[puzzle][window]
    inputs, labels = encoded.reshape(2, -1, SIDE * SIDE)
    return inputs, labels


def _wide(pair: Pair, which: int) -> NDArray[np.uint8]:
    """Return input and output uint8 [2, 61, 61] with the grids' top left cells at (30, 30), end markers included.

    Each 30 x 30 window of it is a canvas with the grids in another place.
    """
    wide = np.zeros((2, 2 * SIDE + 1, 2 * SIDE + 1), np.uint8)
    for side, grid in zip(wide, pair, strict=True):
        if grid is not None:
            turned = dihedral.transform(grid, which)
            height, width = turned.shape
            side[SIDE + height, SIDE : SIDE + width] = END
            side[SIDE : SIDE + height, SIDE + width] = END
            side[SIDE : SIDE + height, SIDE : SIDE + width] = turned + FIRST_COLOUR
    return wide


def _moves(pairs: Sequence[Pair], chosen: list[Augmentation], rng: np.random.Generator | None) -> NDArray[np.int64]:
    """Return (row, column) int64 [K, E, 2] of the grids' top left cells, one for both input and output of a pair."""
    moves = np.zeros((len(chosen), len(pairs), 2), np.int64)
    if rng is None:
        return moves
    sizes = np.array([np.max([grid.shape for grid in pair if grid is not None], axis=0) for pair in pairs])  # [E, 2]
    turned = np.array([dihedral.transform(np.zeros((1, 2)), one.which).shape == (2, 1) for one in chosen])
    room = SIDE - np.where(turned[:, None, None], sizes[:, ::-1], sizes)  # [K, E, 2]
    moves = rng.integers(room + 1)
    moves[np.arange(len(chosen)), rng.integers(len(pairs), size=len(chosen))] = 0
    return moves


def read_questions(folder: Path | str, limit: int | None = None) -> Questions:
    """Return the test part of a data folder: its first ``limit`` tasks (None: all) with all their augmentations.

    ``hrm_edge.tasks.arc_votes`` derives the questions, the votes and the submission from it.
    """
    part = read_part(folder, "test", Arc())
    names = read_identifiers(folder, part.metadata)
    puzzles = int(part.group_indices[: len(part.group_indices) if limit is None else limit + 1][-1])
    sizes = np.diff(part.puzzle_indices[: puzzles + 1])
    ids = part.puzzle_identifiers[:puzzles].repeat(sizes).astype(np.int32)
    groups = np.diff(part.group_indices)
    number = np.arange(len(part.puzzle_identifiers)) - part.group_indices[:-1].repeat(groups)  # number within its task
    rows = slice(len(ids))
    return Questions(
        [names[identifier] for identifier in ids.tolist()],
        ids,
        number[:puzzles].repeat(sizes),
        np.array(part.inputs[rows], np.uint8),
        np.array(part.labels[rows], np.uint8),
        part.metadata.num_puzzle_identifiers,
    )
