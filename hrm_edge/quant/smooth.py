"""Moves outliers of activations into weights before quantization, without changing the function.

SmoothQuant (arXiv 2211.10438): x W = (x / s)(s W) with one s per input channel. Here the division by s is folded into
the linear map that makes x, so it costs nothing: the rows of ``up`` in SwiGLU (silu(gate) * up is linear in up), and
the rows of V in attention (its output is linear in V). The inputs of the other matrices are normalized states that
the residual shares; they stay as they are.

Axes: D hidden, F inner, C input channels of a layer.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from hrm_edge.model.hrm import HRM
from hrm_edge.model.layers import Linear
from hrm_edge.quant.calibrate import channel_peaks
from hrm_edge.spec import GROUPS
from hrm_edge.tasks.puzzles import Puzzles


def _balance(peaks: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Return s [C] = peak(x)^strength / peak(w)^(1 - strength) of weight [out, C]; 1 where a channel is never used."""
    columns = weight.abs().amax(0)
    s = peaks**strength / columns.clamp(min=1e-8) ** (1 - strength)
    return torch.where((peaks > 0) & (columns > 0), s.clamp(1e-3, 1e3), torch.ones_like(s))


@torch.no_grad()
def smoothed(model: HRM, puzzles: Puzzles, strength: float, steps: int) -> HRM:
    """Return a copy of ``model`` with the same function, whose down and output projections see fewer outliers.

    ``puzzles`` calibrate, run for ``steps`` steps. ``strength`` in (0, 1): how much of the range moves from the
    activations to the weights.
    """
    peaks = channel_peaks(model, puzzles, steps)
    other = copy.deepcopy(model)
    hidden = model.spec.hidden
    for name, into in peaks.items():
        weight = other.get_parameter(f"{name}.weight")
        if name.endswith((".mlp.down_proj", ".mlp_t.down_proj")) and model.spec.mlp == "swiglu":
            source = name.replace("down_proj", "gate_up_proj")
            first = weight.shape[1]  # rows of the gate come before those of up
        elif name.endswith("self_attn.o_proj"):
            source, first = name.replace("o_proj", "qkv_proj"), 2 * hidden
        else:
            continue
        sources = [source]
        if model.spec.mixing == "groups":  # the groups' products are added to those of gate and up
            sources += [f"{name.removesuffix('.mlp.down_proj')}.{group}_proj" for group in GROUPS]
        s = _balance(into, weight, strength)
        weight.mul_(s)
        for layer in map(other.get_submodule, sources):
            assert isinstance(layer, Linear)
            layer.weight[first:].div_(s.unsqueeze(1))
            if layer.bias is not None:
                layer.bias[first:].div_(s)
    return other
