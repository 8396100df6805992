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
from hrm_edge.tasks.base import PAD_TOKEN, Task, exact

SLOTS = 256


def evaluate(
    spec: ModelSpec,
    weights: dict[str, Tensor],
    data: Dataset,
    task: Task,
    options: Evaluate,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """``exact_accuracy`` and ``cell_accuracy`` of ``options.puzzles`` examples, and how many they were."""
    model = HRM(spec).to(device)
    load_weights(model, weights, "the run's weights")
    rows = data.spread(options.puzzles)
    inputs, labels = data.examples(rows)
    answers = solve(
        TorchSession(model, dtype=dtype),
        task,
        inputs,
        puzzle_ids=data.identifiers(rows),
        halt=options.halt,
        max_steps=options.max_steps or spec.max_steps,
        slots=SLOTS,
    )
    known = labels != PAD_TOKEN
    hits = (answers.answers == labels) & known
    return {
        "exact_accuracy": float(exact(answers.answers, labels).mean()),
        "cell_accuracy": float(hits.sum() / max(1, known.sum())),
        "puzzles": float(len(rows)),
    }
