"""The full state of a training run, written as one folder and renamed into place; a kill leaves the last one whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from hrm_edge.checkpoint import BEST, CHECKPOINT, CHECKPOINTS, CheckpointInfo, checkpoints, read_checkpoint
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder, read_json, write_json
from hrm_edge.manifest import file_entries
from hrm_edge.model.act import TrainCarry
from hrm_edge.model.weights import load_tensors
from hrm_edge.training.precision import Precision

OPTIMIZER_FILE = "optimizer.safetensors"
CARRY_FILE = "carry.safetensors"
LOOP_FILE = "loop.json"
RECIPE_FILE = "recipe.yaml"


def _states(optimizers: list[torch.optim.Optimizer]) -> dict[int, dict[str, Tensor]]:
    """Return the state of every tensor that is trained, by the tensor's id."""
    return {id(p): o.state[p] for o in optimizers for group in o.param_groups for p in group["params"]}


def flatten_optimizers(optimizers: list[torch.optim.Optimizer], params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the optimizers' state by ``<parameter>/<slot>``; every slot of the optimizers in use is a tensor."""
    states = _states(optimizers)
    return {f"{name}/{slot}": value for name, p in params.items() for slot, value in states[id(p)].items()}


def restore_optimizers(
    optimizers: list[torch.optim.Optimizer], params: Mapping[str, Tensor], tensors: dict[str, Tensor]
) -> None:
    """Restore what :func:`flatten_optimizers` returned."""
    states = _states(optimizers)
    for key, value in tensors.items():
        name, slot = key.rsplit("/", 1)
        states[id(params[name])][slot] = value.to(params[name].device) if value.dim() else value


@dataclass
class Snapshot:
    """A moment of a run, detached from it: tensors copied to the CPU, the rest plain values."""

    info: CheckpointInfo
    tensors: dict[str, dict[str, Tensor]]
    """File name → its tensors: ``MODEL_FILE``, ``OPTIMIZER_FILE``, ``CARRY_FILE``, ``EMA_FILE`` where averaged."""
    loop: dict[str, Any]
    recipe: str


def save_checkpoint(run: Path, moment: Snapshot) -> Path:
    """Write ``checkpoints/step-XXXXXXXX`` of ``run``; an existing one of the same step is left as it is."""
    folder = _checkpoint_folder(run, moment.info.step)
    if (folder / CHECKPOINT).is_file():
        return folder
    with atomic_folder(folder) as temporary:
        for name, tensors in moment.tensors.items():
            # through bytes: a full disk is then an OSError, which the caller turns into a message
            (temporary / name).write_bytes(save(tensors))
        write_json(temporary / LOOP_FILE, moment.loop)
        (temporary / RECIPE_FILE).write_text(moment.recipe, encoding="utf-8")
        names = sorted(p.name for p in temporary.iterdir())
        files = file_entries(temporary, names)
        write_json(temporary / CHECKPOINT, moment.info.model_copy(update={"files": files}).model_dump(mode="json"))
    return folder


def _checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint of ``step``, whether or not it exists."""
    return run / CHECKPOINTS / f"step-{step:08d}"


class Best(NamedTuple):
    """The best evaluation so far: by exact accuracy, then by cells."""

    step: int
    metrics: dict[str, float]

    def beaten_by(self, metrics: dict[str, float]) -> bool:
        """Return whether ``metrics`` are at least as good. Of two equals the later one has seen more."""
        keys = ("exact_accuracy", "cell_accuracy")
        return [metrics[k] for k in keys] >= [self.metrics[k] for k in keys]


def mark_best(run: Path, best: Best) -> None:
    """Point ``best.json`` at a checkpoint of the run."""
    write_json(run / BEST, {"checkpoint": _checkpoint_folder(run, best.step).name, "metrics": best.metrics})


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints and the best one."""
    best = read_json(run / BEST)["checkpoint"] if (run / BEST).is_file() else None
    for folder in checkpoints(run)[:-keep]:
        if folder.name != best:
            # under a name that is no checkpoint's, so that a kill in between leaves none with files missing
            going = folder.rename(folder.with_name(f".{folder.name}.tmp"))
            shutil.rmtree(going)


class Restored:
    """State that a resumed run starts from, read lazily from a verified checkpoint folder."""

    def __init__(self, run: Path) -> None:
        folders = checkpoints(run)
        if not folders:
            raise UserError(f"--resume: {run} holds no checkpoint", "start it without --resume")
        self.folder = folders[-1]
        self.info = read_checkpoint(self.folder)
        if OPTIMIZER_FILE not in self.info.files:
            raise UserError(f"--resume: {run} keeps weights alone", "begin another run from them: init=" + str(run))
        self.loop: dict[str, Any] = read_json(self.folder / LOOP_FILE)

    @property
    def precision(self) -> Precision:
        """Precision that the run has trained in so far."""
        precision: Precision = self.loop["recipe"]["train"]["precision"]
        return precision

    @property
    def is_compact(self) -> bool:
        """Whether ``scripts/keep_run.py`` wrote it: without the carry and the position in the data."""
        return not (self.folder / CARRY_FILE).is_file()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file, those stored in half precision in float32."""
        stored = load_tensors(self.folder / name)
        return {key: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for key, t in stored.items()}

    def carry(self, device: torch.device, slots: slice) -> TrainCarry:
        """Return the carry of some of the slots, which are saved in order for all ranks."""
        tensors = load_tensors(self.folder / CARRY_FILE)
        return TrainCarry(**{name: t[slots].to(device) for name, t in tensors.items()})
