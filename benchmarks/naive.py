"""What a user gets who exports the step without this package: ``torch.onnx.export`` with its defaults."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.spec import STEP_OUTPUTS


class Step(torch.nn.Module):
    """The published step's signature: what an exporter or a compiler is given."""

    def __init__(self, model: HRM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Any, z_h: Any, z_l: Any, puzzle: Any = None) -> Any:
        return self.model(tokens, puzzle, z_h, z_l)


def require_exporter() -> None:
    """``UserError`` where the exporter lacks a package."""
    if importlib.util.find_spec("onnxscript") is None:
        raise UserError("torch.onnx.export needs onnxscript, which is not installed", "pip install onnxscript")


def naive_export(model: HRM, feeds: dict[str, NDArray[Any]], path: Path) -> None:
    """Write the step for the shapes of ``feeds``: tokens, z_h, z_l and, where the model takes one, puzzle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices
        torch.onnx.export(
            Step(model), tuple(map(torch.from_numpy, feeds.values())), str(path), input_names=list(feeds),
            output_names=list(STEP_OUTPUTS), dynamo=True, external_data=False,
        )  # fmt: skip
