"""Quantization-aware training (QAT): fine-tune with INT8 rounding where calibration alone misses its gate.

The scales are those of the weights that the run starts from and stay as they are; the weights learn to live with them.
"""

from __future__ import annotations

from hrm_edge.data.dataset import Dataset
from hrm_edge.errors import UserError
from hrm_edge.model.fake_quant import scale_of
from hrm_edge.model.hrm import HRM
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import linear_layers
from hrm_edge.recipe import Recipe


def train_rounded(model: HRM, recipe: Recipe, data: Dataset) -> None:
    """Make the layers that INT8 export quantizes round as it does from now on; see ``model.fake_quant``.

    Calibrates on the head of ``data``, so that a resumed run finds the same scales again.
    """
    if not recipe.init:
        raise UserError(
            "recipe key 'quantization.aware' is true without 'init': rounding is trained into a trained model",
            "name a run, a checkpoint, a float artifact, also a shipped one: --set init=MODEL",
        )
    head = data.head(recipe.quantization.calibration_puzzles)
    was_training, device = model.training, model.H_init.device
    scales = activation_scales(model.cpu(), head, recipe.quantization, model.spec.max_steps)
    model.to(device).train(was_training)
    layers = linear_layers(model)
    for name, scale in scales.items():
        layers[name].input_scale = scale_of(scale, layers[name].weight)
