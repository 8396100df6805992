"""Exact accuracy during training, on puzzles spread evenly over the test part."""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_edge.data.dataset import Dataset
from hrm_edge.model.hrm import HRM
from hrm_edge.model.session import TorchSession
from hrm_edge.model.weights import load_weights
from hrm_edge.recipe import Evaluate
from hrm_edge.solve import solve
from hrm_edge.spec import ModelSpec
from hrm_edge.tasks.base import PAD_TOKEN, exact
from hrm_edge.training.distributed import World

_SLOTS = 256


def evaluate(
    spec: ModelSpec,
    weights: dict[str, Tensor],
    data: Dataset,
    options: Evaluate,
    *,
    world: World,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Measure ``exact_accuracy`` and ``cell_accuracy`` on ``options.puzzles`` examples.

    The ranks share the examples out; each gets the figures of all.
    """
    model = HRM(spec).to(world.device)
    load_weights(model, weights, "the run's weights")
    rows = data.spread(options.puzzles)[world.rank :: world.size]
    inputs, labels, ids = data.examples(rows)
    solutions = solve(
        TorchSession(model, dtype=dtype),
        data.task,
        inputs,
        puzzle_ids=ids,
        halt=options.halt,
        views=options.views,
        max_steps=options.max_steps or spec.max_steps,
        slots=_SLOTS,
    )
    known = labels != PAD_TOKEN
    hits = (solutions.answers == labels) & known
    mine = [exact(solutions.answers, labels).sum(), hits.sum(), known.sum(), len(rows)]
    right, cells_right, cells, puzzles = world.sum(torch.tensor(mine, dtype=torch.int64)).tolist()
    return {
        "exact_accuracy": right / puzzles,
        "cell_accuracy": cells_right / max(1, cells),
        "puzzles": float(puzzles),
    }
