"""``make trm`` to its end: a TRM built, trained, exported and measured as a user does it. Minutes of one core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hrm_edge.model.load import load_model
from hrm_edge.model.session import TorchSession
from hrm_edge.runtime import open_artifact
from hrm_edge.solve import solve
from hrm_edge.tasks import get_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parent.parent
STEPS, COUNT = 16, 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, ``run``, ``fp32`` and ``int8``, as the script leaves them."""
    folder = tmp_path_factory.mktemp("trm") / "made"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["scripts/quickstart.sh", "recipes/mini-sudoku_trm-mixer.yaml", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    return folder


def questions(made: Path, name: str = "inputs") -> np.ndarray:
    return np.load(made / "data" / "test" / f"all__{name}.npy")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_99_percent_of_2000_unseen_puzzles_and_the_gate(made: Path, precision: str) -> None:
    session, manifest = open_artifact(made / precision)
    found = solve(session, get_task("mini-sudoku"), questions(made), halt="rules")
    right = (found.answers == questions(made, "labels")).all(1)
    assert len(right) == 2000
    assert right.mean() >= 0.99
    assert manifest.gate.passed
    held = manifest.parity[-1]
    assert (held.over, held.steps) == ("all", 8)
    assert held.logits_sqnr_db > {"fp32": 80, "int8": 20}[precision]


def test_float32_runs_16_steps_by_itself_within_1e_4_of_torch(made: Path) -> None:
    """Random weights cannot (``tests/model/test_trm.py``): a trained model comes to rest, and so do differences."""
    tokens, ids = questions(made)[:COUNT], np.zeros(COUNT, np.int32)
    reference, (exported, _) = TorchSession(load_model(made / "run")[0]), open_artifact(made / "fp32")
    ours, theirs = reference.initial_carry(COUNT), exported.initial_carry(COUNT)
    for _ in range(STEPS):
        ours, logits, _ = reference.step(tokens, ids, ours)
        theirs, found, _ = exported.step(tokens, ids, theirs)
    right = (logits[:].argmax(-1) == questions(made, "labels")[:COUNT]).all(1)
    assert right.sum() >= 0.95 * COUNT
    assert np.abs(logits[:] - found[:])[right].max() < 1e-4
