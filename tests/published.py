"""Numbers of the published HRM and TRM implementations (``tests/golden``), and the models of their weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrm_edge.model.hrm import HRM
from hrm_edge.spec import variant_spec

GOLDEN = Path(__file__).parent / "golden"
PREFIX = "model.inner."  # of the published tensors' names

Arrays = dict[str, NDArray[np.generic]]


def arrays_of(name: str) -> Arrays:
    """Everything in ``golden/NAME.npz``."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def tensor(arrays: Arrays, key: str) -> Tensor:
    return torch.from_numpy(arrays[key].copy())


def weights_of(arrays: Arrays) -> dict[str, Tensor]:
    """Weights and buffers by our names."""
    return {key.removeprefix(f"w/{PREFIX}"): tensor(arrays, key) for key in arrays if key.startswith("w/")}


def model_of(arrays: Arrays) -> HRM:
    """Our model of the sizes and weights that the published one had."""
    config = json.loads(str(arrays["config_json"]))
    weights = weights_of(arrays)
    two_stacks = any(name.startswith("H_level.") for name in weights)  # TRM's config has H_layers too, which it ignores
    own = {"h_layers": config["H_layers"]} if two_stacks else {"puzzle_len": config["puzzle_emb_len"]}
    spec = variant_spec(
        "full" if two_stacks else "trm-mixer" if config["mlp_t"] else "trm",
        vocab=config["vocab_size"],
        seq_len=config["seq_len"],
        hidden=config["hidden_size"],
        heads=config["num_heads"],
        l_layers=config["L_layers"],
        h_cycles=config["H_cycles"],
        l_cycles=config["L_cycles"],
        expansion=config["expansion"],
        puzzle_dim=config["puzzle_emb_ndim"],
        puzzles=config["num_puzzle_identifiers"],
        max_steps=config["halt_max_steps"],
        **own,
    )
    model = HRM(spec)
    model.load_state_dict(weights, strict=True)
    return model


def close(found: Tensor, expected: NDArray[np.generic], tolerance: float = 4e-5) -> None:
    """Raise ``AssertionError`` unless both agree within ``tolerance`` times the largest expected magnitude.

    The default is for what one step computes: float64 is up to 7e-6 from the published float32, as is a processor that
    adds in another order.
    """
    scale = np.abs(expected).max() or 1.0
    np.testing.assert_allclose(found.detach().numpy() / scale, expected / scale, rtol=0, atol=tolerance)
