"""A torch model behind the ``Session`` protocol, and the way from a path to it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrm_edge.model.hrm import HRM
from hrm_edge.session import FRESH, StepResult
from hrm_edge.spec import ModelSpec

TorchCarry = tuple[Tensor, Tensor]  # z_h, z_l, each [B, T, D]


def gathered(carry: TorchCarry, start: TorchCarry, rows: NDArray[np.int64]) -> TorchCarry:
    """Return ``Session.gather`` of tensors; ``start``: initial states [len(rows), T, D]."""
    index = torch.from_numpy(rows).to(carry[0].device)
    fresh = (index == FRESH).view(-1, 1, 1)
    z_h, z_l = (
        torch.where(fresh, initial, state[index.clamp(min=0)]) for initial, state in zip(start, carry, strict=True)
    )
    return z_h, z_l


class TorchSession:
    """Runs a model's step eagerly, without gradient, on the device its weights are on."""

    max_batch = 1024

    def __init__(self, model: HRM, *, dtype: torch.dtype = torch.float32) -> None:
        self.model = model.eval()
        self.dtype = dtype

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def backend(self) -> str:
        return f"torch-{self.model.H_init.device.type}"

    def initial_carry(self, batch: int) -> TorchCarry:
        return self.model.initial_state(batch, self.dtype)

    def gather(self, carry: TorchCarry, rows: NDArray[np.int64]) -> TorchCarry:
        return gathered(carry, self.initial_carry(len(rows)), rows)

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: TorchCarry) -> StepResult:
        device = carry[0].device
        with torch.inference_mode():
            puzzle = self.model.puzzle_vectors(torch.from_numpy(puzzle_ids).to(device))
            cells = torch.from_numpy(tokens.astype(np.int32)).to(device)
            z_h, z_l, logits, q = self.model(cells, puzzle, *carry)
        return (z_h, z_l), logits.cpu().numpy(), q.cpu().numpy()
