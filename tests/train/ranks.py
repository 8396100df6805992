"""Ranks for tests: this process is rank 0, the others are processes that run this file."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hrm_edge.recipe import Recipe
from hrm_edge.training.distributed import World, joined
from hrm_edge.training.loop import Trainer, start

ROOT = Path(__file__).parents[2]


def recipe(data: Path, model: dict[str, Any] | None = None, variant: str = "nano", **train: Any) -> Recipe:
    """A small model on 4x4 Sudoku whose every option that draws random numbers is on."""
    options = {"batch": 16, "steps": 12, "warmup": 2, "lr": 2e-3, "precision": "fp32", "compile": False, **train}
    return Recipe.model_validate(
        {
            "task": "mini-sudoku",
            "variant": variant,
            "data": str(data),
            "model": {"hidden": 16, "heads": 4, "max_steps": 4, **(model or {})},
            "augment": {"symmetries": True, "extra_clues": [0, 6], "extra_clues_end": [0, 2]},
            "train": {**options, "halt_exploration": 0.5},
            "evaluate": {"every": 6, "puzzles": 9},
            "checkpoints": {"every": 3, "keep": 2},
        }
    )


def eager_trainer(recipe: Recipe, run: Path, world: World) -> Trainer:
    """A trainer whose head halts a slot as soon as it may, so that slots change at every step."""
    trainer = start(recipe, run, resume=False, world=world)
    with torch.no_grad():
        bias = trainer.learner.model.q_head.bias
        assert bias is not None
        bias[0] = 1.0
    return trainer


def gradients(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """Filled with the gradients of every step that the trainer does from now on."""
    seen: list[dict[str, torch.Tensor]] = []

    def keep(*_: Any) -> None:
        found = trainer.learner.params.items()
        seen.append({name: p.grad.clone() for name, p in found if p.grad is not None})

    trainer.learner.optimizers[0].register_step_pre_hook(keep)
    return seen


@contextlib.contextmanager
def ranks(count: int, recipe: Recipe, run: Path) -> Iterator[World]:
    """The world of rank 0 of ``count``, while the others make an eager trainer and run it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    others = [
        subprocess.Popen(
            [sys.executable, __file__, recipe.model_dump_json(), str(run)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
        )
        for rank in range(1, count)
    ]
    before = dict(os.environ)
    os.environ.update({**common, "RANK": "0", "LOCAL_RANK": "0"})
    try:
        with joined(60) as world:
            yield world
        codes = [other.wait(60) for other in others]
        assert codes == [0] * (count - 1), codes
    finally:
        os.environ.clear()
        os.environ.update(before)
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    with joined(60) as world:
        eager_trainer(Recipe.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), world).run()
