"""Several ranks do what one does: the same puzzles, draws and gradients, the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hrm_edge.data.build import Options, build
from hrm_edge.tasks import get_task
from hrm_edge.train.distributed import alone
from tests.train.ranks import eager_trainer, gradients, ranks, recipe

FULL = {"h_layers": 1, "l_layers": 1, "puzzle_dim": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=200, test_count=40, seed=0))
    return folder


@pytest.mark.parametrize("variant", ["nano", "full"])
def test_two_ranks_equal_one(data: Path, tmp_path: Path, variant: str) -> None:
    chosen = recipe(data, FULL if variant == "full" else None, variant)
    one = eager_trainer(chosen, tmp_path / "one", alone())
    of_one = gradients(one)
    one.run()
    with ranks(2, chosen, tmp_path / "two") as world:
        two = eager_trainer(chosen, tmp_path / "two", world)
        of_two = gradients(two)
        two.run()
    worst = 0.0
    for a, b in zip(of_one, of_two, strict=True):
        norm = torch.stack([g.norm() for g in a.values()]).norm()
        for name in a:
            worst = max(worst, float((a[name] - b[name]).norm() / norm))
    print(worst)
    assert worst < 1e-5
