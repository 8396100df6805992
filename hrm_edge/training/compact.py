"""A run small enough to keep in git while it lasts: its newest checkpoint in half precision, without the carry.

What is left out is cheap to begin anew: the slots take new puzzles, drawn in another order than those before. The
averages of gradients are in bfloat16, since squares of small gradients underflow in float16. What a run gains by the
rest of its bits is far below what one step changes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hrm_edge.checkpoint import EMA_FILE, MODEL_FILE, checkpoints, read_checkpoint
from hrm_edge.errors import UserError
from hrm_edge.files import read_json, write_text
from hrm_edge.model.weights import load_tensors
from hrm_edge.recipe import Recipe
from hrm_edge.training.checkpoint import LOOP_FILE, OPTIMIZER_FILE, RECIPE_FILE, Snapshot, prune, save_checkpoint

_HALF = {MODEL_FILE: torch.float16, EMA_FILE: torch.float16, OPTIMIZER_FILE: torch.bfloat16}
_OWN = ("data_hash", "feed", "generator", "ranks")  # of the machine and the data that the run was on


def write_compact(run: Path, out: Path) -> Path:
    """Write the newest checkpoint of ``run`` to ``out``, a run folder too, and return the checkpoint's folder.

    What ``out`` held of the same run before is replaced. Raises ``UserError`` where ``run`` holds no checkpoint, where
    ``out`` holds something else, and where a weight is too large for float16.
    """
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint", "give a run folder of 'hrm-edge train'")
    newest = found[-1]
    info, loop = read_checkpoint(newest), read_json(newest / LOOP_FILE)
    older = checkpoints(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not older)):
        raise UserError(f"{out} is something else than a kept run", "choose another folder")
    if any(read_checkpoint(folder).recipe_hash != info.recipe_hash for folder in older):
        raise UserError(f"{out} keeps a run of another recipe", "choose another folder, or remove it first")
    recipe = Recipe.model_validate(loop["recipe"]).model_copy(update={"data": "", "init": ""})  # paths of a machine
    loop = {key: value for key, value in loop.items() if key not in _OWN}
    loop |= {"recipe": recipe.model_dump(mode="json"), "best": None}  # whose checkpoint is not kept
    tensors = {
        name: {key: _halved(key, tensor, dtype) for key, tensor in load_tensors(newest / name).items()}
        for name, dtype in _HALF.items()
        if (newest / name).is_file()
    }
    folder = save_checkpoint(out, Snapshot(info, tensors, loop, recipe.dump()))
    write_text(out / RECIPE_FILE, recipe.dump())
    prune(out, keep=1)
    return folder


def _halved(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point() or not tensor.dim():  # counters stay exact
        return tensor
    half = tensor.to(dtype)
    if not half.isfinite().all():
        raise UserError(f"'{name}' has a value that is too large for half precision", "keep the whole checkpoint")
    return half
