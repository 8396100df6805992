"""The full state of a training run, written as one folder and renamed into place; a kill leaves the last one whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder, read_json, write_json
from hrm_edge.manifest import file_entries
from hrm_edge.model.act import TrainCarry
from hrm_edge.model.weights import (
    BEST,
    CHECKPOINT,
    CHECKPOINTS,
    EMA_FILE,
    MODEL_FILE,
    CheckpointInfo,
    checkpoints,
    load_tensors,
    read_checkpoint,
)

OPTIMIZER_FILE = "optimizer.safetensors"
CARRY_FILE = "carry.safetensors"
LOOP_FILE = "loop.json"
RECIPE_FILE = "recipe.yaml"


def flatten_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Optimizer state by ``<parameter>/<slot>``; every slot of the optimizers in use is a tensor."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for name, param in zip(names, params, strict=True):
        for slot, value in optimizer.state[param].items():
            state[f"{name}/{slot}"] = value
    return state


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`flatten_optimizer`."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    by_name = dict(zip(names, params, strict=True))
    for key, value in tensors.items():
        name, slot = key.rsplit("/", 1)
        param = by_name[name]
        optimizer.state[param][slot] = value.to(param.device) if value.dim() else value


def save_checkpoint(
    run: Path,
    info: CheckpointInfo,
    *,
    weights: dict[str, Tensor],
    ema: dict[str, Tensor] | None,
    optimizer: dict[str, Tensor],
    carry: TrainCarry,
    loop: dict[str, Any],
    recipe: str,
) -> Path:
    """Write ``checkpoints/step-XXXXXXXX`` of ``run``; an existing one of the same step is left as it is."""
    folder = run / CHECKPOINTS / f"step-{info.step:08d}"
    if (folder / CHECKPOINT).is_file():
        return folder
    with atomic_folder(folder) as temporary:
        _save(weights, temporary / MODEL_FILE)
        if ema is not None:
            _save(ema, temporary / EMA_FILE)
        _save(optimizer, temporary / OPTIMIZER_FILE)
        _save(carry.tensors(), temporary / CARRY_FILE)
        write_json(temporary / LOOP_FILE, loop)
        (temporary / RECIPE_FILE).write_text(recipe, encoding="utf-8")
        names = sorted(p.name for p in temporary.iterdir())
        files = file_entries(temporary, names)
        write_json(temporary / CHECKPOINT, info.model_copy(update={"files": files}).model_dump(mode="json"))
    return folder


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # through bytes: a full disk is then an OSError, which the caller turns into a message
    path.write_bytes(save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}))


def mark_best(run: Path, checkpoint: Path, metrics: dict[str, float]) -> None:
    """Point ``best.json`` at a checkpoint of the run."""
    write_json(run / BEST, {"checkpoint": checkpoint.name, "metrics": metrics})


def best_metrics(run: Path) -> dict[str, float]:
    """Metrics of the best checkpoint so far; empty where there is none."""
    return dict(read_json(run / BEST)["metrics"]) if (run / BEST).is_file() else {}


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints and the best one."""
    best = read_json(run / BEST)["checkpoint"] if (run / BEST).is_file() else None
    for folder in checkpoints(run)[:-keep]:
        if folder.name != best:
            shutil.rmtree(folder)


class Restored:
    """What a resumed run starts from, read lazily from a verified checkpoint folder."""

    def __init__(self, run: Path) -> None:
        found = checkpoints(run)
        if not found:
            raise UserError(f"--resume: {run} holds no checkpoint", "start it without --resume")
        self.folder = found[-1]
        self.info = read_checkpoint(self.folder)
        self.loop: dict[str, Any] = read_json(self.folder / LOOP_FILE)

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_tensors(self.folder / name)

    def carry(self, device: torch.device) -> TrainCarry:
        return TrainCarry(**{name: t.to(device) for name, t in self.tensors(CARRY_FILE).items()})
