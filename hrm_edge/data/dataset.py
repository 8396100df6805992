"""Batches of a data folder: memory-mapped, seeded, resumable, shared between processes.

Axes: B batch, S cells, N examples, G groups.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm_edge.data.layout import Metadata, Part, read_part
from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.puzzles import Puzzles

_LABELS = 20_000  # labels of a part to check against the rules; each takes up to half a millisecond

Batch = tuple[Tokens, Tokens, NDArray[np.int32]]
"""Inputs, labels [B, S] and puzzle identifiers [B]."""


class Dataset:
    """One part of a data folder; ``len`` is its number of examples, which are read when requested.

    ``scan`` reads every token once to check it, and checks labels against the task's rules: all, or ``_LABELS`` evenly
    spaced ones where there are more. One process of a host is enough for that. Raises ``UserError``.
    """

    def __init__(self, folder: Path | str, split: str, task: Task, *, scan: bool = True) -> None:
        self.folder, self.split, self.task = Path(folder), split, task
        self.part: Part = read_part(folder, split, task, scan=None if scan else 0)
        if scan and task.has_rules:
            self._check_labels()

    def _check_labels(self) -> None:
        for rows in np.array_split(self.spread(_LABELS), max(1, _LABELS // 4096)):
            inputs, labels, _ = self.examples(rows)
            wrong = rows[~self.task.verify(inputs, labels)]
            if len(wrong):
                raise UserError(
                    f"{self.folder}/{self.split}, example {wrong[0]}: its label is no solution of its input by the "
                    f"rules of {self.task.name}",
                    "build the folder again with 'hrm-edge data build'",
                )

    @property
    def metadata(self) -> Metadata:
        """Content of ``dataset.json``."""
        return self.part.metadata

    @property
    def groups(self) -> int:
        """Number of groups, G; an epoch draws one puzzle from each."""
        return len(self.part.group_indices) - 1

    def __len__(self) -> int:
        return len(self.part)

    def spread(self, count: int) -> NDArray[np.int64]:
        """Return at most ``count`` evenly spaced examples int64 [n]; an ARC part begins with
        one task's augmentations.
        """
        chosen = min(count, len(self))
        return np.arange(chosen, dtype=np.int64) * len(self) // max(1, chosen)

    def examples(self, rows: NDArray[np.int64]) -> Batch:
        """Return the examples ``rows`` [B]: inputs, labels uint8 [B, S] and puzzle identifiers int32 [B]."""
        owners = np.searchsorted(self.part.puzzle_indices, rows, side="right") - 1
        identifiers = self.part.puzzle_identifiers[owners].astype(np.int32)
        return self.part.inputs[rows].astype(np.uint8), self.part.labels[rows].astype(np.uint8), identifiers

    def head(self, limit: int) -> Puzzles:
        """Return the first ``limit`` examples."""
        examples = self.examples(np.arange(min(limit, len(self))))
        return Puzzles.of(self.task, *examples, called=f"{self.folder.name}/{self.split}")


class Sampler:
    """Endless stream of examples: every epoch shuffles the groups and draws one random puzzle from each.

    All examples of a drawn puzzle are used, in random order; a batch may continue into the next epoch. The stream
    depends only on ``seed``, not on the batch sizes. Ranks that train together share one stream and each read their own
    part of it, so it does not depend on the number of ranks.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        if not dataset.groups:
            raise UserError(f"{dataset.folder}/{dataset.split} holds no examples", "build it again with examples")
        self.dataset, self.seed = dataset, seed
        self.epoch, self.position = 0, 0
        self._order = self._epoch_order(0)

    def take(self, count: int, share: slice = slice(None)) -> Batch:
        """Return those of the next ``count`` examples that are in ``share``; the others are skipped unread."""
        return self.dataset.examples(self._rows(count)[share])

    def state(self) -> dict[str, int]:
        """Return the position as plain numbers, from which ``restore`` continues with the next example."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position, "groups": self.dataset.groups}

    def restore(self, state: dict[str, int]) -> None:
        """Go to a saved position. Raises ``UserError`` if it is of other data."""
        if state["groups"] != self.dataset.groups:
            raise UserError(
                f"{self.dataset.folder} has {self.dataset.groups} groups, the saved run had {state['groups']}",
                "resume with the data folder the run was started with",
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
        self._order = self._epoch_order(self.epoch)
        if not 0 <= self.position < len(self._order):
            raise UserError(
                f"the saved run was at example {self.position} of an epoch that has {len(self._order)} in "
                f"{self.dataset.folder}",
                "resume with the data folder the run was started with",
            )

    def _rows(self, count: int) -> NDArray[np.int64]:
        pieces = [np.zeros(0, np.int64)]
        while count:
            piece = self._order[self.position : self.position + count]
            pieces.append(piece)
            count -= len(piece)
            self.position += len(piece)
            if self.position == len(self._order):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._epoch_order(self.epoch)
        return np.concatenate(pieces)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return the examples of an epoch in order, int64 [n]."""
        rng = np.random.default_rng([self.seed, epoch])
        part = self.dataset.part
        starts = part.group_indices[:-1].astype(np.int64)
        sizes = np.diff(part.group_indices).astype(np.int64)
        order = rng.permutation(len(sizes))
        puzzles = (starts + np.floor(rng.random(len(sizes)) * sizes).astype(np.int64))[order]
        first = part.puzzle_indices[puzzles].astype(np.int64)
        lengths = part.puzzle_indices[puzzles + 1].astype(np.int64) - first
        if (lengths == 1).all():
            return first
        owner = np.repeat(np.arange(len(puzzles)), lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        shuffled = np.lexsort((rng.random(len(owner)), owner))  # random order inside each puzzle
        return (first[owner] + within)[shuffled]
