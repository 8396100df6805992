"""Checkpoint folders: written whole, verified on open; safetensors and JSON only.

A run folder holds ``checkpoints/step-00000100/`` … and ``best.json``; a checkpoint folder holds ``model.safetensors``
(weights and buffers), ``ema.safetensors`` (averaged weights) and ``checkpoint.json``, written last with every hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.files import check_input, read_json
from hrm_edge.manifest import FileEntry, FileName, read_record, verify_files
from hrm_edge.model.hrm import HRM
from hrm_edge.spec import ModelSpec, buffer_shapes, parameter_shapes

CHECKPOINT = "checkpoint.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
BEST = "best.json"
CHECKPOINTS = "checkpoints"
SCHEMA_VERSION = 1
OTHER_SIZE = "the checkpoint is of another variant or size: check the recipe's variant and model keys"


class CheckpointInfo(BaseModel):
    """``checkpoint.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hrm-edge checkpoint"] = "hrm-edge checkpoint"
    schema_version: int = SCHEMA_VERSION
    task: str
    spec: ModelSpec
    recipe_hash: str
    step: int
    samples: int
    metrics: dict[str, float] = {}
    identifiers: str | None = None
    """Hash of the data folder's ``identifiers.json``: what the rows of the puzzle table mean."""
    files: dict[FileName, FileEntry] = {}

    def origin(self) -> dict[str, Any]:
        """Return what provenance records about the weights."""
        return {
            "step": self.step,
            "samples": self.samples,
            "recipe_hash": self.recipe_hash,
            "identifiers": self.identifiers,
        }


def read_checkpoint(folder: Path) -> CheckpointInfo:
    """Read and verify one checkpoint folder."""
    path = folder / CHECKPOINT
    again = "copy it again, or go on from another checkpoint of the run"
    if not path.is_file():
        raise UserError(f"{folder} is no checkpoint: {CHECKPOINT} is missing", again)
    info = read_record(path, CheckpointInfo, SCHEMA_VERSION, again=again)
    verify_files(folder, info.files, again=again)
    return info


def checkpoints(run: Path) -> list[Path]:
    """Return all checkpoint folders of a run, oldest first."""
    found = (run / CHECKPOINTS).glob("step-*") if (run / CHECKPOINTS).is_dir() else ()
    return sorted(p for p in found if (p / CHECKPOINT).is_file())


def find_checkpoint(path: Path | str) -> Path:
    """Return the checkpoint that ``path`` stands for: itself, or a run's best one, else its newest."""
    path = Path(path)
    if (path / CHECKPOINT).is_file():
        return path
    if (path / BEST).is_file():
        named = read_json(path / BEST)
        best = path / CHECKPOINTS / str(named.get("checkpoint", "") if isinstance(named, dict) else "")
        if (best / CHECKPOINT).is_file():
            return best
    newest = checkpoints(path)
    if not newest:
        raise UserError(f"{path} holds no checkpoint", "give a run or checkpoint folder of 'hrm-edge train'")
    return newest[-1]


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
            found = list(tensors[name].shape)
            raise UserError(f"{source}: '{name}' is {found}, {variant} needs {list(shape)}{because}", hint)
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
