"""Files of the two parts of a published data set, on the hub or in a local folder."""

from __future__ import annotations

from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.packages import unusable
from hrm_edge.tasks.base import Task

_HUB_DATASETS = {"sudoku": "sapientinc/sudoku-extreme", "maze": "sapientinc/maze-30x30-hard-1k"}
_HUB_FILES = {"train": "train.csv", "test": "test.csv"}
_ENDINGS = (".csv", ".csv.gz", ".txt", ".txt.gz")


def hub_files(task: Task) -> dict[str, Path]:
    """Download the published CSV files, or take them from the hub's cache: split → path. Needs the extra ``hub``."""
    if task.name not in _HUB_DATASETS:
        raise UserError(
            f"the hub has no data set of {task.name}", f"use --source generate, or --source PATH of {task.name} puzzles"
        )
    dataset = _HUB_DATASETS[task.name]
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise unusable("huggingface_hub", error, "which --source hub needs") from error
    try:
        return {split: Path(hf_hub_download(dataset, name, repo_type="dataset")) for split, name in _HUB_FILES.items()}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"{dataset} could not be downloaded: {reason}",
            "check the network, or download train.csv and test.csv elsewhere and give their folder as --source",
        ) from error


def folder_files(folder: Path, task: Task | None = None) -> dict[str, Path]:
    """Return the files of a local folder's parts: split → ``train.csv``, ``train.csv.gz``, ``train.txt``, …"""
    endings = (*_ENDINGS, ".npz") if task is not None and task.family == "maze" else _ENDINGS
    files = {}
    for split in _HUB_FILES:
        paths = [folder / f"{split}{ending}" for ending in endings if (folder / f"{split}{ending}").is_file()]
        if not paths:
            raise UserError(
                f"{folder} has no {_HUB_FILES[split]}",
                f"a source folder holds train.csv and test.csv, or the like with {', '.join(endings[1:])}",
            )
        files[split] = paths[0]
    return files
