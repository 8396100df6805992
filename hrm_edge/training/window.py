"""Figures of training between two log lines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hrm_edge.model.act import ActStep
from hrm_edge.training.distributed import World

FIGURES = (
    "loss",
    "lm_loss",
    "q_halt_loss",
    "cell_accuracy",
    "right_now",
    "halted_right",
    "mean_steps",
    "samples_per_s",
)


@dataclass
class Window:
    """Sums since the last log line over this rank's slots; tensors, so that a GPU need not be waited for every step.

    ``rows`` counts the slots of all ranks.
    """

    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    sums: Tensor | None = None

    def add(self, batch: int, step: ActStep) -> None:
        loss, carry = step.loss, step.carry
        halted = carry.halted
        sums = torch.stack(
            [
                loss.total.detach().double(),
                loss.lm.double(),
                loss.q_halt.double(),
                loss.cell_accuracy.double(),
                loss.right.sum().double(),
                halted.sum().double(),
                carry.steps[halted].sum().double(),
                loss.right[halted].sum().double(),
            ]
        )
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += batch

    def line(self, world: World) -> dict[str, float]:
        """Return the figures over all ranks; every rank has to call it."""
        assert self.sums is not None
        total, lm, q_halt, cells, right, halted, steps, right_halted = world.sum(self.sums).tolist()
        figures = (
            total / self.rows,
            lm / self.rows,
            q_halt / self.rows,
            cells / self.rows,
            right / self.rows,
            right_halted / max(1.0, halted),
            steps / max(1.0, halted),
            self.rows / (time.monotonic() - self.started),
        )
        return dict(zip(FIGURES, figures, strict=True))
