"""Losses of deep supervision. Axes: B batch, S cells, V vocabulary, Q halting outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def _stablemax_log_probs(logits: Tensor) -> Tensor:
    """Return log(s(x) / sum s(x)) with s(x) = x + 1 for x >= 0 and 1 / (1 - x) below, in float64 (arXiv 2501.04697)."""
    x = logits.double()
    s = torch.where(x >= 0, x + 1, 1 / (1 - x.clamp(max=0)))
    return s.log() - s.sum(-1, keepdim=True).log()


def _token_losses(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return cross-entropy per cell [B, S] of logits [B, S, V] with labels [B, S]; 0 where the label is ``IGNORE``."""
    valid = labels != IGNORE
    safe = labels.clamp(min=0).long()
    if kind == "softmax":
        losses = F.cross_entropy(logits.float().flatten(0, 1), safe.flatten(), reduction="none").view_as(safe)
    else:
        losses = -_stablemax_log_probs(logits).gather(-1, safe.unsqueeze(-1)).squeeze(-1)
    return torch.where(valid, losses, 0.0)


class StepLoss(NamedTuple):
    """Sums over the rows of a batch (detached, except ``total``)."""

    total: Tensor
    lm: Tensor
    q_halt: Tensor
    q_continue: Tensor
    right: Tensor  # [B] bool: the whole sequence is right
    cell_accuracy: Tensor


def step_loss(
    logits: Tensor, q: Tensor, labels: Tensor, *, kind: str, q_continue_target: Tensor | None = None
) -> StepLoss:
    """Return lm + 0.5 * (BCE(q_halt, whole sequence right) + BCE(q_continue, target)), summed over rows.

    ``logits`` [B, S, V], or [C, B, S, V] after each of C cycles: lm is then the mean of their losses, while what is
    right and the accuracy are those of the last. Each cell's loss is divided by its row's number of valid labels.
    Rows without a valid label (padding) count in nothing.
    """
    valid = labels != IGNORE
    counts = valid.sum(-1)
    real = counts > 0
    cycles = logits if logits.ndim == 4 else logits.unsqueeze(0)
    shares = counts.clamp(min=1).unsqueeze(-1) * len(cycles)
    lm = torch.stack([(_token_losses(cycle, labels, kind) / shares).sum() for cycle in cycles]).sum()
    logits = cycles[-1]
    with torch.no_grad():
        hits = (logits.argmax(-1) == labels) & valid
        right = real & (hits.sum(-1) == counts)
        accuracy = (hits.sum(-1) / counts.clamp(min=1))[real].sum()
    weight = real.float()
    q_halt = F.binary_cross_entropy_with_logits(q[:, 0], right.float(), weight=weight, reduction="sum")
    q_continue = torch.zeros_like(q_halt)
    if q_continue_target is not None:
        q_continue = F.binary_cross_entropy_with_logits(q[:, 1], q_continue_target, weight=weight, reduction="sum")
    total = lm + 0.5 * (q_halt + q_continue)
    return StepLoss(total, lm.detach(), q_halt.detach(), q_continue.detach(), right, accuracy)
