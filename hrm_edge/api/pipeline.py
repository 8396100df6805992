"""The default pipeline, tried once: a shipped model solves a puzzle on this machine."""

from __future__ import annotations

import time

from hrm_edge import zoo
from hrm_edge.api.open import open_model
from hrm_edge.errors import UserError
from hrm_edge.solve import solve

EASY = "002968470000017200090002016783106020021079053540000061015820007000005000074031009"  # one step is enough


def try_pipeline() -> str:
    """Solve an easy puzzle with the shipped model on ONNX Runtime; returns how it went."""
    name = zoo.default_for("sudoku")
    if name is None:
        raise UserError("this installation holds no model", "pip install --force-reinstall hrm-edge")
    model = open_model(name, folder=zoo.folder_of(name))
    givens = model.task.parse(EASY)[None]
    began = time.perf_counter()
    (answer,) = solve(model.session, model.task, givens, halt="rules", views=64)
    elapsed_ms = 1e3 * (time.perf_counter() - began)
    if not answer.verified:
        raise UserError(f"{name} did not solve an easy puzzle", "pip install --force-reinstall hrm-edge")
    steps = f"{answer.steps} step{'s'[: answer.steps > 1]}"
    return f"{name} solved a puzzle in {elapsed_ms:.0f} ms and {steps}, verified by the rules"
