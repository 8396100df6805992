"""What the documents' commands take and a user brings: a photo, puzzles, archives of ARC, a published checkpoint."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import yaml

from hrm_edge.files import write_text
from hrm_edge.tasks.samples import sample_file
from tests.vision.scenes import EASY, OTHER, paper, scene

ARC = Path(__file__).parent / "data" / "arc"
RATED = 32  # puzzles in test.csv


def photos(folder: Path) -> None:
    """Draw ``photo.jpg`` and two in ``photos``."""
    (folder / "photos").mkdir()
    for path, puzzle in (("photo.jpg", EASY), ("photos/one.jpg", EASY), ("photos/two.jpg", OTHER)):
        assert cv2.imwrite(str(folder / path), scene(paper(puzzle)))


def puzzles(folder: Path) -> None:
    """Write ``puzzles.csv``, the package's samples, and ``test.csv``, a few of them as Sudoku-Extreme has them."""
    text = sample_file("sudoku").read_text(encoding="utf-8")
    write_text(folder / "puzzles.csv", text)
    rows = [row.split(",") for row in text.splitlines()[1 : RATED + 1]]
    rated = "".join(f"samples,{question},{answer},0\n" for question, answer in rows)
    write_text(folder / "test.csv", "source,question,answer,rating\n" + rated)


def archives(folder: Path) -> None:
    """Pack a few tasks as GitHub offers them, ``arc-agi-1.tar.gz``, ``concept-arc.tar.gz`` and ``arc-agi-2.tar.gz``."""
    for name, tree in (("arc-agi-1", "ARC-AGI"), ("concept-arc", "ConceptARC"), ("arc-agi-2", "ARC-AGI")):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(ARC / tree, arcname=f"{tree}-master")


def published(folder: Path) -> None:
    """Write ``checkpoint.pt`` and its ``all_config.yaml``: small random weights of the published implementation."""
    import torch

    from tests.published import PREFIX, arrays_of

    arrays = arrays_of("hrm_v1_rope")
    weights = {key.removeprefix("w/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(f"w/{PREFIX}")}
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in weights.items()}, folder / "checkpoint.pt")
    arch = {
        "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", "loss": {"loss_type": "stablemax_cross_entropy"},
        "H_cycles": 2, "L_cycles": 2, "H_layers": 2, "L_layers": 1, "hidden_size": 64, "num_heads": 2, "expansion": 4,
        "pos_encodings": "rope", "puzzle_emb_ndim": 64, "halt_max_steps": 3, "halt_exploration_prob": 0.1,
    }  # fmt: skip
    config = {"arch": arch, "data_path": "data/sudoku-extreme-1k-aug-1000", "epochs": 20000, "lr": 7e-5}
    write_text(folder / "all_config.yaml", yaml.safe_dump(config))
