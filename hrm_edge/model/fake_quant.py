"""INT8 rounding in floating point with a gradient that passes straight through, for QAT and for sensitivity runs.

Axes: C output channels of a weight. The gradient is that of the identity inside the range and zero outside
(straight-through estimator, arXiv 1308.3432; clipped as in arXiv 1806.08342).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_edge.spec import INT8_MAX


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    ratio = (x / scale).clamp(-INT8_MAX, INT8_MAX)  # the clamp is what stops the gradient of clipped values
    return (ratio + (ratio.round() - ratio).detach()) * scale


def fake_quantized(x: Tensor, scale: Tensor) -> Tensor:
    """Return activations rounded to ``scale`` times an integer of [-127, 127], in x's dtype; computed in float32."""
    return _rounded(x.float(), scale).to(x.dtype)


def fake_quantized_rows(weight: Tensor) -> Tensor:
    """Return a matrix [C, in] rounded per output channel, as the export stores it."""
    scale = weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-8) / INT8_MAX
    return _rounded(weight, scale)


def scale_of(value: float, like: Tensor) -> Tensor:
    """Return a scale as a tensor on the device of ``like``."""
    return torch.tensor(value, dtype=torch.float32, device=like.device)
