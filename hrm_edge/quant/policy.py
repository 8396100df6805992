"""Which linear layers run in INT8, and why the others do not."""

from __future__ import annotations

from torch import nn

from hrm_edge.model.hrm import HRM
from hrm_edge.model.layers import Linear

FLOAT_LAYERS = {
    "q_head": "its sign decides when to stop, and it is under 0.1% of the operations",
    "lm_head": "its output is the answer, and it is under 1% of the operations",
    "h_to_l": "carries the state between the levels, where an error returns in every later step",
    "l_to_h": "carries the state between the levels, where an error returns in every later step",
}


def linear_layers(model: HRM) -> dict[str, Linear]:
    """All linear layers of the model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def int8_layers(model: HRM) -> dict[str, Linear]:
    """Those that the policy quantizes: every matrix of every block."""
    return {name: layer for name, layer in linear_layers(model).items() if name not in FLOAT_LAYERS}


def exceptions(model: nn.Module) -> dict[str, str]:
    """The model's layers that stay in float, with the reason."""
    present = {name for name, module in model.named_modules() if isinstance(module, Linear)}
    return {name: reason for name, reason in FLOAT_LAYERS.items() if name in present}
