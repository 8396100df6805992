"""Turns the residual stream before quantization, without changing the function, so that no channel is an outlier.

QuaRot (arXiv 2404.00456): where the norm is RMSNorm without a weight, a state z may be written as z R with any
orthogonal R, since |z R| = |z|. What reads the state gets R into its columns, what adds to it gets R into its rows.
With a Hadamard matrix every channel becomes a mix of all others, and a scale per tensor wastes less of its range on
few loud ones.

Axes: D hidden, N puzzles of a table, P puzzle tokens.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from hrm_edge.model.hrm import HRM
from hrm_edge.spec import ModelSpec

_SEED = 0
_READERS = ("qkv_proj.weight", "gate_up_proj.weight", "up_proj.weight", "lm_head.weight", "q_head.weight")
_WRITERS = ("o_proj", "down_proj")


def can_rotate(spec: ModelSpec) -> bool:
    """Return whether turning the residual stream keeps the function.

    It does not through LayerNorm, with half a puzzle vector, or where an MLP over positions bends every channel alone.
    """
    keeps = spec.norm == "rms" and spec.mixing == "attention" and not spec.connections
    return keeps and spec.puzzle_dim % spec.hidden == 0


def rotation(hidden: int) -> Tensor:
    """Return an orthogonal [D, D], equal at every call: Hadamard with random signs, or any where D is no power of 2."""
    generator = torch.Generator().manual_seed(_SEED)
    if hidden & (hidden - 1):
        return torch.linalg.qr(torch.randn(hidden, hidden, generator=generator, dtype=torch.float64))[0].float()
    matrix = torch.ones(1, 1)
    while len(matrix) < hidden:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    signs = torch.randint(0, 2, (hidden, 1), generator=generator) * 2 - 1
    return signs * matrix / math.sqrt(hidden)


@torch.no_grad()
def rotated(model: HRM, by: Tensor) -> HRM:
    """Return a copy of ``model`` whose states are multiplied by ``by`` [D, D]; its logits and q do not change."""
    other = copy.deepcopy(model)
    for name, value in other.state_dict().items():
        if name.endswith(_READERS) or name.startswith("embed_") or name in ("H_init", "L_init", "puzzle_emb.weights"):
            value.copy_((value.unflatten(-1, (-1, len(by))) @ by).flatten(-2))  # several vectors of D side by side
        elif name.endswith(tuple(f"{writer}.weight" for writer in _WRITERS)):
            value.copy_(by.T @ value)
        elif name.endswith(tuple(f"{writer}.bias" for writer in _WRITERS)):
            value.copy_(value @ by)
    return other
