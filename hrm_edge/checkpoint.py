"""Checkpoint folders as records: what they hold, verified when they are opened; no torch needed.

A run folder holds ``checkpoints/step-00000100/`` … and ``best.json``; a checkpoint folder holds ``model.safetensors``
(weights and buffers), ``ema.safetensors`` (averaged weights) and ``checkpoint.json``, written last with every hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from hrm_edge.manifest import FileEntry, FileName, verify_files
from hrm_edge.records import Record, read_record
from hrm_edge.spec import ModelSpec

CHECKPOINT = "checkpoint.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
BEST = "best.json"
CHECKPOINTS = "checkpoints"
SCHEMA_VERSION = 1


class CheckpointInfo(Record):
    """``checkpoint.json``."""

    kind: Literal["hrm-edge checkpoint"] = "hrm-edge checkpoint"
    schema_version: int = SCHEMA_VERSION
    task: str
    spec: ModelSpec
    recipe_hash: str
    step: int
    samples: int
    metrics: dict[str, float] = Field(default={})
    identifiers: str | None = None
    """Hash of the data folder's ``identifiers.json``: what the rows of the puzzle table mean."""
    files: dict[FileName, FileEntry] = Field(default={})

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
    folders = (run / CHECKPOINTS).glob("step-*") if (run / CHECKPOINTS).is_dir() else ()
    return sorted(p for p in folders if (p / CHECKPOINT).is_file())


def find_checkpoint(path: Path | str) -> Path:
    """Return the checkpoint that ``path`` stands for: itself, or a run's best one, else its newest."""
    path = Path(path)
    if (path / CHECKPOINT).is_file():
        return path
    if (path / BEST).is_file():
        named = read_json(path / BEST)
        if not isinstance(named, dict) or not isinstance(named.get("checkpoint"), str):
            raise UserError(f"{path / BEST} names no checkpoint", "remove it: the newest one is taken then")
        best = path / CHECKPOINTS / named["checkpoint"]
        if (best / CHECKPOINT).is_file():
            return best
    newest = checkpoints(path)
    if not newest:
        raise UserError(f"{path} holds no checkpoint", "give a run or checkpoint folder of 'hrm-edge train'")
    return newest[-1]


def is_checkpoint(path: Path) -> bool:
    """Return whether ``path`` is a checkpoint folder or a run folder with checkpoints."""
    return (path / CHECKPOINT).is_file() or (path / CHECKPOINTS).is_dir()
