"""A float model becomes what an INT8 graph is written from: migrated weights, scales, and a description of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hrm_edge.callbacks import OnMessage
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import Policy, exceptions, read_policy, write_policy
from hrm_edge.quant.rotate import can_rotate, rotated, rotation
from hrm_edge.quant.sensitivity import find_policy
from hrm_edge.quant.smooth import smoothed
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.tasks.puzzles import Puzzles

_SENSITIVITY_PUZZLES = 32  # of the calibration set; a run of the whole recurrence for every layer


@dataclass(frozen=True)
class Quantized:
    """``model`` computes the float model's function; ``scales`` by layer are what its INT8 layers clip and round by."""

    model: HRM
    rotation: Tensor | None
    """[D, D]: the states of ``model`` are the float model's times this."""
    scales: dict[str, float]
    int8_weights: list[str]
    """Layers that a policy takes out of INT8: products in float, weights still stored in INT8."""
    description: dict[str, Any]


def prepare(
    model: HRM,
    puzzles: Puzzles,
    options: Quantization,
    limits: Limits,
    *,
    policy_file: Path | None,
    sensitivity_file: Path | None,
    on_message: OnMessage,
) -> Quantized:
    """Calibrate on ``puzzles`` over all steps; ``sensitivity_file``: rank the layers and write that policy first.

    ``policy_file``: read the layers that stay in float from there.
    """
    steps = model.spec.max_steps
    on_message(f"calibrating on {len(puzzles)} puzzles, {steps} steps each")
    written = smoothed(model, puzzles, options.smooth, steps) if options.smooth else model
    by = rotation(model.spec.hidden) if options.turn and can_rotate(model.spec) else None
    written = written if by is None else rotated(written, by)
    policy: Policy | None = None if policy_file is None else read_policy(policy_file, puzzles.task.name, model)
    scales = activation_scales(written, puzzles, options, steps, policy)
    if sensitivity_file is not None:
        head = puzzles.head(_SENSITIVITY_PUZZLES)
        policy = find_policy(written, scales, head, steps=steps, floor_db=limits.sqnr_db_int8, on_message=on_message)
        write_policy(sensitivity_file, policy)
        scales = {name: scale for name, scale in scales.items() if name not in policy.float_layers}
    description = {
        "scheme": "symmetric int8, zero point 0; weights per output channel, activations per tensor"
        + (", those of mlp_t per row by its peak" if model.spec.mixing == "mlp" else ""),
        "observer": options.observer,
        "smooth": options.smooth,
        "turned": by is not None,
        "percentile": options.percentile if options.observer == "percentile" else None,
        "calibration": {"source": puzzles.source.path, "puzzles": len(puzzles), "steps": steps},
        "layers": len(scales),
        "float_layers": exceptions(model, policy),
        "input_scales": scales,
    }
    return Quantized(written, by, scales, list(policy.float_layers) if policy else [], description)
