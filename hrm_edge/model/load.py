"""From a path to a model: a run or checkpoint folder of ours, or a published state-dict file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hrm_edge.checkpoint import EMA_FILE, MODEL_FILE, CheckpointInfo, find_checkpoint, read_checkpoint
from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.model.published import PublishedInfo, find_published, read_published
from hrm_edge.model.session import TorchSession
from hrm_edge.model.weights import OTHER_SIZE, check_tensors, load_tensors, load_weights


def load_model(path: Path | str, task: str | None = None) -> tuple[HRM, CheckpointInfo | PublishedInfo, Path]:
    """Return a model in float32, with a checkpoint's averaged weights where it has them: (model, info, folder or file).

    ``task``: name of a published file's task, where the file does not tell it.
    """
    file = find_published(Path(path))
    if file is not None:
        published, tensors = read_published(file, task)
        model = HRM(published.spec)
        model.load_state_dict(tensors, strict=True)
        return model.eval(), published, file
    if task is not None:
        raise UserError(f"--task is for a published file, {path} says its own", "leave it out")
    folder = find_checkpoint(path)
    info = read_checkpoint(folder)
    tensors = load_tensors(folder / MODEL_FILE)
    if EMA_FILE in info.files:
        tensors.update(load_tensors(folder / EMA_FILE))
    check_tensors(info.spec, tensors, folder, OTHER_SIZE)  # before a model of that size is built
    model = HRM(info.spec)
    load_weights(model, tensors, folder)
    return model.eval(), info, folder


def load_session(path: Path | str, task: str | None = None) -> tuple[TorchSession, dict[str, Any]]:
    """Return a float32 session on :func:`load_model`'s model, and what it is: task, path, origin of the weights."""
    model, info, place = load_model(path, task)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = {"task": info.task, "path": str(place), **info.origin()}
    return TorchSession(model.to(device)), about
