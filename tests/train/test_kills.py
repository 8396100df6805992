"""Killed at random moments, resumed: the end is that of an uninterrupted run, bit for bit, and nothing is torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hrm_edge.checkpoint import checkpoints
from hrm_edge.data.sudoku import Options, build
from hrm_edge.model.load import load_model
from hrm_edge.model.weights import load_tensors
from hrm_edge.recipe import load_recipe
from hrm_edge.tasks import get_task
from hrm_edge.training.loop import start
from tests.train.ranks import ROOT, recipe

STEPS = 20
LOAD_S = 280.0
TORCHRUN = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
TORCHRUN += ["--max-restarts", "3"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every step is saved, so that most kills meet a checkpoint being written or an old one being removed."""
    folder = tmp_path_factory.mktemp("kills")
    build(get_task("mini-sudoku"), folder / "data", Options(source="generate", count=200, test_count=40, seed=0))
    chosen = recipe(folder / "data", steps=STEPS)
    checkpoint = chosen.checkpoints.model_copy(update={"every": 1})
    evaluate = chosen.evaluate.model_copy(update={"every": 15})
    path = folder / "recipe.yaml"
    path.write_text(chosen.model_copy(update={"checkpoints": checkpoint, "evaluate": evaluate}).dump())
    return path


def train(recipe_file: Path, run: Path, ranks: int, *more: str, torchrun: bool = False) -> subprocess.Popen[bytes]:
    words = ["-m", "hrm_edge", "train", str(recipe_file), "--out", str(run), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if torchrun:
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # as the help of 'train' says
        words = [*TORCHRUN, "--nproc-per-node", str(ranks), *words]
    elif ranks > 1:
        words += ["--nproc", str(ranks)]
    return subprocess.Popen([sys.executable, *words], env=environment)


def final_state(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoints(run)[-1]
    assert folder.name == f"step-{STEPS:08d}"
    return {f"{file.name}/{n}": t for file in folder.glob("*.safetensors") for n, t in load_tensors(file).items()}


@pytest.fixture(scope="module")
def uninterrupted(recipe_file: Path) -> dict[int, dict[str, torch.Tensor]]:
    """Final state by number of ranks, made when it is asked for."""

    class Made(dict[int, dict[str, torch.Tensor]]):
        def __missing__(self, ranks: int) -> dict[str, torch.Tensor]:
            run = recipe_file.parent / f"whole{ranks}"
            if ranks == 1:  # here, which spares a start
                start(load_recipe(recipe_file), run, resume=False).run()
            else:
                assert train(recipe_file, run, ranks).wait(LOAD_S) == 0
            self[ranks] = final_state(run)
            return self[ranks]

    return Made()


def workers(launcher: int) -> list[int]:
    """Processes that the launcher has started."""
    return [int(word) for word in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LOAD_S
    while not any(int(p.name[-8:]) >= step for p in checkpoints(run)):
        assert process.poll() is None, "ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_and_resume(recipe_file: Path, run: Path, ranks: int, seed: int, victim: str) -> None:
    """SIGKILL the launcher (or only process), or a worker, at a random moment; go on to the end."""
    rng = random.Random(seed)
    process = train(recipe_file, run, ranks, torchrun=victim == "torchrun's worker")
    wait_for_step(run, rng.randrange(1, STEPS * 2 // 3), process)
    time.sleep(rng.uniform(0, 0.05))
    if victim != "launcher":  # its launcher starts all workers again, from the last checkpoint
        os.kill(rng.choice(workers(process.pid)), signal.SIGKILL)
        assert process.wait(LOAD_S) == 0
        return
    process.kill()
    process.wait()
    for folder in checkpoints(run):
        load_model(folder)  # checks every hash of the folder
    assert checkpoints(run)[-1].name != f"step-{STEPS:08d}"
    if ranks == 1:  # here, which spares a start
        start(load_recipe(recipe_file), run, resume=True).run()
    else:
        assert train(recipe_file, run, ranks, "--resume").wait(LOAD_S) == 0


CASES = [(1, "launcher")] * 5 + [(2, "launcher")] * 3 + [(2, "worker")] * 2 + [(2, "torchrun's worker")]


@pytest.mark.parametrize(
    ("seed", "ranks", "victim"),
    [pytest.param(i, *case, marks=[pytest.mark.slow] if i else []) for i, case in enumerate(CASES)],
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    recipe_file: Path,
    uninterrupted: dict[int, dict[str, torch.Tensor]],
    tmp_path: Path,
    seed: int,
    ranks: int,
    victim: str,
) -> None:
    kill_and_resume(recipe_file, tmp_path / "run", ranks, seed, victim)
    expected, found = uninterrupted[ranks], final_state(tmp_path / "run")
    assert expected.keys() == found.keys()
    assert {"model.safetensors/lm_head.weight", "carry.safetensors/z_h"} <= expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
