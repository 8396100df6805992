"""Figures of training between two log lines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hrm_edge.model.act import ActStep


@dataclass
class Window:
    """Sums since the last log line, kept as tensors so that a GPU need not be waited for every step."""

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

    def line(self) -> dict[str, float]:
        assert self.sums is not None
        total, lm, q_halt, cells, right, halted, steps, right_halted = self.sums.tolist()
        return {
            "loss": total / self.rows,
            "lm_loss": lm / self.rows,
            "q_halt_loss": q_halt / self.rows,
            "cell_accuracy": cells / self.rows,
            "right_now": right / self.rows,
            "halted_right": right_halted / max(1.0, halted),
            "mean_steps": steps / max(1.0, halted),
            "samples_per_s": self.rows / (time.monotonic() - self.started),
        }
