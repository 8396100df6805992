"""Puzzles for the slots: drawn from the data set, made easier by the curriculum, seen under a random symmetry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm_edge.data.dataset import Dataset, Sampler
from hrm_edge.errors import UserError
from hrm_edge.model.losses import IGNORE
from hrm_edge.recipe import Augment
from hrm_edge.tasks.sudoku import reveal


class Feed:
    """Draws exactly as many puzzles as slots have halted; its state is small, JSON, and restores bit for bit."""

    def __init__(self, dataset: Dataset, augment: Augment, seed: int) -> None:
        """Raise ``UserError`` for extra clues of a task that has none."""
        self.task = task = dataset.task
        if task.family != "sudoku":
            for key in ("extra_clues", "extra_clues_end"):
                if getattr(augment, key) not in (None, (0, 0)):
                    raise UserError(f"recipe key 'augment.{key}': {task.name} has no clues to add", "leave it out")
        self.sampler = Sampler(dataset, seed)
        self.augment = augment
        self.rng = np.random.default_rng([seed, 1])

    def take(self, count: int, progress: float, share: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ``count`` puzzles for all ranks and return those of ``share``, N of them.

        (inputs [N, S], labels [N, S], puzzle_ids [N]), all int32. Every rank draws the random numbers of all, so that
        a puzzle looks the same however many ranks there are; only its own puzzles are read and changed.

        Labels that the data set leaves out, such as the canvas around an ARC grid, are ``IGNORE``.
        ``progress`` in [0, 1] is the share of the training done, which moves the curriculum.
        """
        inputs, labels, ids = self.sampler.take(count, share)
        low, high = self._extra_clues(progress)
        if high > 0:
            clues, order = self.rng.integers(low, high + 1, count), self.rng.random((count, self.task.seq_len))
            inputs = reveal(inputs, labels, clues[share], order[share])
        if self.augment.symmetries:
            views = self.task.random_views(count, self.rng)[share]
            inputs, labels = views.apply(inputs), views.apply(labels)
        as_tensor = [torch.from_numpy(a.astype(np.int32)) for a in (inputs, labels, ids)]
        unlabelled = self.sampler.dataset.metadata.ignore_label_id
        if unlabelled is not None:
            as_tensor[1].masked_fill_(as_tensor[1] == unlabelled, IGNORE)
        return as_tensor[0], as_tensor[1], as_tensor[2]

    def _extra_clues(self, progress: float) -> tuple[int, int]:
        start, end = self.augment.extra_clues, self.augment.extra_clues_end or self.augment.extra_clues
        low, high = (round(a + (b - a) * progress) for a, b in zip(start, end, strict=True))
        return low, high

    def anew(self, seed: int) -> Feed:
        """Return a feed of the same puzzles under another seed."""
        return Feed(self.sampler.dataset, self.augment, seed)

    def state(self) -> dict[str, Any]:
        """Return JSON-ready state of the sampler and of the random generator."""
        return {"sampler": self.sampler.state(), "rng": self.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self.sampler.restore(state["sampler"])
        self.rng.bit_generator.state = state["rng"]
