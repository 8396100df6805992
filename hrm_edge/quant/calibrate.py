"""Activation scales from the inputs of every linear layer over all steps of the recurrence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hrm_edge.model.hrm import HRM
from hrm_edge.model.layers import Linear
from hrm_edge.model.session import TorchSession
from hrm_edge.quant.observers import BINS, bound_of
from hrm_edge.quant.policy import Policy, int8_layers
from hrm_edge.recipe import Quantization
from hrm_edge.session import rollout
from hrm_edge.spec import INT8_MAX
from hrm_edge.tasks.puzzles import Puzzles

_Observer = Callable[[str, Tensor], None]


def _observe(model: HRM, layers: dict[str, Linear], puzzles: Puzzles, steps: int, observe: _Observer) -> None:
    """Show ``observe`` every input of ``layers`` in all ``steps`` steps; late states count as much as early ones."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: observe(name, inputs[0])

    handles = [layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        for _ in rollout(TorchSession(model), puzzles, steps):
            pass
    finally:
        for handle in handles:
            handle.remove()


def activation_scales(
    model: HRM, puzzles: Puzzles, options: Quantization, steps: int, policy: Policy | None = None
) -> dict[str, float]:
    """Return the scale (value of one INT8 step) of the input of every layer that the policy quantizes.

    Symmetric: scale = bound / 127, the bound by the recipe's observer
    (``hrm_edge.quant.observers``) on all inputs of all steps of the recurrence. Layers that round each row by its own
    peak have nothing to observe: their bound is 1.
    """
    every = int8_layers(model, policy)
    layers = {name: layer for name, layer in every.items() if not layer.by_row}
    tops = dict.fromkeys(layers, 0.0)

    def see_max(name: str, x: Tensor) -> None:
        tops[name] = max(tops[name], x.abs().max().item())

    _observe(model, layers, puzzles, steps, see_max)
    bounds = tops
    if options.observer != "max":
        counts = _histograms(model, layers, tops, puzzles, steps)
        bounds = {name: bound_of(counts[name].numpy(), top, options) for name, top in tops.items()}
    # a row that is rounded by its own peak ends at 1
    return {name: max(bounds.get(name, 1.0), 1e-8) / INT8_MAX for name in every}


def channel_peaks(model: HRM, puzzles: Puzzles, steps: int) -> dict[str, Tensor]:
    """Return largest magnitude [in] of every input channel of every layer that the policy quantizes."""
    layers = int8_layers(model)
    peaks = {name: torch.zeros(layer.weight.shape[1]) for name, layer in layers.items()}

    def see(name: str, x: Tensor) -> None:
        peaks[name] = torch.maximum(peaks[name], x.detach().abs().flatten(0, -2).amax(0).cpu())

    _observe(model, layers, puzzles, steps, see)
    return peaks


def _histograms(
    model: HRM, layers: dict[str, Linear], tops: dict[str, float], puzzles: Puzzles, steps: int
) -> dict[str, Tensor]:
    """Count the magnitudes of each layer [BINS], up to the known largest one, in a second pass."""
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in layers}

    def see(name: str, x: Tensor) -> None:
        counts[name] += torch.histc(x.detach().abs().float().cpu(), bins=BINS, min=0.0, max=tops[name] or 1.0).double()

    _observe(model, layers, puzzles, steps, see)
    return counts
