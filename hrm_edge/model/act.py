"""Adaptive computation time in training: slots that carry their state over optimizer steps.

Axes: B slots, S cells, T positions, D hidden, V vocabulary. One optimizer step per ACT step (deep supervision); the
carry is detached in between (HRM, arXiv 2506.21734, sections 2 and appendix; TRM's halt-only head where Q = 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hrm_edge.model.hrm import HRM
from hrm_edge.model.losses import IGNORE, StepLoss, step_loss

Forward = Callable[[Tensor, "Tensor | None", Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass
class TrainCarry:
    """State of B slots. A halted slot takes a new puzzle before the next step."""

    z_h: Tensor  # [B, T, D]
    z_l: Tensor  # [B, T, D]
    steps: Tensor  # [B] int32, ACT steps done on the present puzzle
    halted: Tensor  # [B] bool
    inputs: Tensor  # [B, S] int32
    labels: Tensor  # [B, S] int32
    puzzle_ids: Tensor  # [B] int32

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))


def fresh_carry(model: HRM, batch: int, dtype: torch.dtype) -> TrainCarry:
    """Return a carry whose slots have all halted, so that the first ``admit`` fills every one of them."""
    device = model.H_init.device
    z_h, z_l = model.initial_state(batch, dtype)
    cells = torch.zeros(batch, model.spec.seq_len, dtype=torch.int32, device=device)
    return TrainCarry(
        z_h.clone(),
        z_l.clone(),
        steps=torch.zeros(batch, dtype=torch.int32, device=device),
        halted=torch.ones(batch, dtype=torch.bool, device=device),
        inputs=cells,
        labels=torch.full_like(cells, IGNORE),
        puzzle_ids=torch.zeros(batch, dtype=torch.int32, device=device),
    )


def admit(model: HRM, carry: TrainCarry, inputs: Tensor, labels: Tensor, puzzle_ids: Tensor) -> TrainCarry:
    """Fill halted slots with their rows of the new batch [B, ...], from the start; the others keep their puzzle."""
    halted = carry.halted
    row, cube = halted.unsqueeze(-1), halted.view(-1, 1, 1)
    z_h, z_l = model.initial_state(len(halted), carry.z_h.dtype)
    return TrainCarry(
        torch.where(cube, z_h, carry.z_h),
        torch.where(cube, z_l, carry.z_l),
        steps=torch.where(halted, 0, carry.steps),
        halted=torch.zeros_like(halted),
        inputs=torch.where(row, inputs, carry.inputs),
        labels=torch.where(row, labels, carry.labels),
        puzzle_ids=torch.where(halted, puzzle_ids, carry.puzzle_ids),
    )


@dataclass
class ActStep:
    """Result of one training step: ``carry`` is detached, ``puzzle`` is the leaf to read a gradient from."""

    carry: TrainCarry
    loss: StepLoss
    logits: Tensor
    q: Tensor
    puzzle: Tensor | None
    q_continue_target: Tensor | None


def draw_minimum_steps(
    batch: int, max_steps: int, exploration: float, generator: torch.Generator | None = None
) -> Tensor | None:
    """Return steps that each slot must do before it may halt, int64 [batch]: exploration of the halting head.

    With probability ``exploration`` uniform in [2, max_steps], else 0; None where nothing is explored.
    """
    if exploration <= 0 or max_steps <= 1:
        return None
    device = generator.device if generator is not None else None
    explores = torch.rand(batch, generator=generator, device=device) < exploration
    minimum = torch.randint(2, max_steps + 1, (batch,), generator=generator, device=device)
    return torch.where(explores, minimum, 0)


def _halt_decision(q: Tensor, steps: Tensor, max_steps: int, minimum_steps: Tensor | None = None) -> Tensor:
    """Decide which slots stop, bool [B]: at max_steps, or by the head once ``minimum_steps`` [B] are done."""
    wants = q[:, 0] > q[:, 1] if q.shape[1] == 2 else q[:, 0] > 0
    halted = (steps >= max_steps) | wants
    return halted if minimum_steps is None else halted & (steps >= minimum_steps)


def act_step(
    model: HRM,
    carry: TrainCarry,
    *,
    loss: str,
    minimum_steps: Tensor | None = None,
    forward: Forward | None = None,
) -> ActStep:
    """Take one ACT step with gradient on an admitted carry; ``forward`` may be a compiled ``model``.

    ``minimum_steps`` [B] are those of :func:`draw_minimum_steps`.

    Training halts early as the head learns to; evaluation has its own loop in ``hrm_edge.solve``.
    """
    spec = model.spec
    step = model if forward is None else forward
    puzzle = model.puzzle_vectors(carry.puzzle_ids)
    if puzzle is not None:
        puzzle.requires_grad_(True)
    z_h, z_l, logits, q = step(carry.inputs, puzzle, carry.z_h, carry.z_l)
    z_h, z_l = z_h.detach(), z_l.detach()
    steps = carry.steps + 1
    with torch.no_grad():
        halted = _halt_decision(q, steps, spec.max_steps, minimum_steps)
        target = None
        if spec.q_outputs == 2:
            q_next = step(carry.inputs, puzzle, z_h, z_l)[3]
            best = torch.where(steps >= spec.max_steps, q_next[:, 0], q_next.max(-1).values)
            target = best.sigmoid()
    losses = step_loss(logits, q, carry.labels, kind=loss, q_continue_target=target)
    after = TrainCarry(z_h, z_l, steps, halted, carry.inputs, carry.labels, carry.puzzle_ids)
    return ActStep(after, losses, logits[-1] if logits.ndim == 4 else logits, q, puzzle, target)
