"""State that a session needs in addition to the step, from ``state.safetensors``: initial state, puzzle table.

Axes: B slots, P puzzle tokens, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hrm_edge.errors import UserError
from hrm_edge.files import check_input
from hrm_edge.manifest import Manifest
from hrm_edge.spec import ModelSpec

AGAIN = "export the model again with this version of hrm-edge"


@dataclass(frozen=True, eq=False)
class State:
    """In the float type of the carry."""

    spec: ModelSpec
    start: tuple[NDArray[Any], NDArray[Any]]  # what every position of z_h and z_l starts from, [D] each
    puzzle_table: NDArray[Any] | None  # [puzzles, puzzle_dim]; None where P is 0

    def puzzle_vectors(self, puzzle_ids: NDArray[np.int32]) -> NDArray[Any]:
        """Return rows of the puzzle table, padded with zeros to [B, P * D]."""
        assert self.puzzle_table is not None
        vectors = np.zeros((len(puzzle_ids), self.spec.puzzle_tokens * self.spec.hidden), self.puzzle_table.dtype)
        vectors[:, : self.spec.puzzle_dim] = self.puzzle_table[puzzle_ids]
        return vectors


def carry_dtype(manifest: Manifest) -> np.dtype[Any]:
    """Return the float type of an artifact's carry."""
    return np.dtype(np.float16 if manifest.precision == "fp16" else np.float32)


def read_state(path: Path, spec: ModelSpec, dtype: np.dtype[Any]) -> State:
    """Read the tensors with their shapes checked; ``dtype`` is the carry's."""
    check_input(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", AGAIN) from error
    wanted: dict[str, tuple[int, ...]] = {"z_h_init": (spec.hidden,), "z_l_init": (spec.hidden,)}
    if spec.puzzle_dim:
        wanted["puzzle_table"] = (spec.puzzles, spec.puzzle_dim)
    for name, shape in wanted.items():
        has = state[name].shape if name in state else None
        if has != shape:
            is_now = "is missing" if has is None else f"is {list(has)}"
            raise UserError(f"{path}: '{name}' {is_now}, the manifest's model needs {list(shape)}", AGAIN)
    table = state["puzzle_table"].astype(dtype) if spec.puzzle_dim else None
    return State(spec, (state["z_h_init"].astype(dtype), state["z_l_init"].astype(dtype)), table)
