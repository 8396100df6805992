"""hrm-edge: train, quantize, export and run Hierarchical Reasoning Models on edge devices.

    import hrm_edge

    model = hrm_edge.load("sudoku-nano")
    print(model.solve("530070000600195000098000060800060003400803001700020006060000280000419005000080079"))

``load`` opens a model, which then solves, evaluates, benches and exports; ``train`` trains a recipe. What is exported
here is loaded when it is first used: importing the package takes milliseconds and needs no torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant of that name: importing it takes longer than all of this file
if TYPE_CHECKING:
    from typing import Any

    from hrm_edge.api.answers import sample_puzzles as sample_puzzles
    from hrm_edge.api.model import Model as Model
    from hrm_edge.api.model import load as load
    from hrm_edge.api.solve import Result as Result
    from hrm_edge.api.train import train as train
    from hrm_edge.errors import GateError as GateError
    from hrm_edge.errors import UserError as UserError

__version__ = "0.1.0"

_EXPORTS = {  # name → the module that has it
    "GateError": "hrm_edge.errors",
    "Model": "hrm_edge.api.model",
    "Result": "hrm_edge.api.solve",
    "UserError": "hrm_edge.errors",
    "load": "hrm_edge.api.model",
    "sample_puzzles": "hrm_edge.api.answers",
    "train": "hrm_edge.api.train",
}
__all__ = ["GateError", "Model", "Result", "UserError", "__version__", "load", "sample_puzzles", "train"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hrm_edge' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
