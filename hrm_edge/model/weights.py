"""Tensors of a model: read from safetensors files, and held against its specification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.files import check_input
from hrm_edge.model.hrm import HRM
from hrm_edge.spec import ModelSpec, buffer_shapes, parameter_shapes

OTHER_SIZE = "the checkpoint is of another variant or size: check the recipe's variant and model keys"


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; raise ``UserError`` for a torn one."""
    check_input(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", "the file is torn: copy it again") from error


def load_weights(model: HRM, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Copy tensors into the model; a missing, extra or misshapen one is a ``UserError`` that names it."""
    check_tensors(model.spec, tensors, source, OTHER_SIZE)
    model.load_state_dict(tensors, strict=True)


def check_tensors(spec: ModelSpec, tensors: dict[str, Tensor], source: Path | str, hint: str) -> None:
    """Raise ``UserError`` naming the first tensor that a model of ``spec`` lacks, has not, or has in another shape."""
    wanted = {**parameter_shapes(spec), **buffer_shapes(spec)}
    variant = f"a {spec.variant} model"
    theirs, ours = family({name: tuple(tensor.shape) for name, tensor in tensors.items()}), family(wanted)
    because = "" if theirs == ours else f": the file is of {theirs}, {variant} of this recipe or config is {ours}"
    for name, shape in wanted.items():
        if name not in tensors:
            raise UserError(f"{source} has no tensor '{name}', which {variant} needs{because}", hint)
        if tuple(tensors[name].shape) != shape:
            size = list(tensors[name].shape)
            raise UserError(f"{source}: '{name}' is {size}, {variant} needs {list(shape)}{because}", hint)
    if extra := sorted(set(tensors) - set(wanted)):
        raise UserError(f"{source} has tensor '{extra[0]}', which {variant} does not have{because}", hint)


def family(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say in words what kind of model has tensors of these names and shapes."""
    hidden = (shapes.get("embed_tokens.embedding_weight") or (0,))[-1]
    kind = "an HRM (a stack of blocks for each level)"
    if not any(name.startswith("H_level.") for name in shapes):
        kind = "a TRM (one stack of blocks for both levels)"
    mixing = next((shape for name, shape in shapes.items() if name.endswith("mlp_t.down_proj.weight")), None)
    how = f"an MLP over {mixing[0]} positions" if mixing else "attention"
    return f"{kind} with {how} and hidden size {hidden}"
