"""Several ranks do what one does: the same puzzles, draws and gradients, the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hrm_edge.checkpoint import checkpoints
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.model.weights import load_tensors
from hrm_edge.tasks import get_task
from hrm_edge.training.checkpoint import CARRY_FILE
from hrm_edge.training.distributed import World, _backend, _place, alone
from hrm_edge.training.loggers import LOG_FILE, read_lines
from hrm_edge.training.loop import Trainer, start
from hrm_edge.training.precision import Bf16
from tests.train.ranks import eager_trainer, gradients, ranks, recipe

FULL = {"h_layers": 1, "l_layers": 1, "puzzle_dim": 16}
TIMES = {"samples_per_s", "seconds", "eval_seconds"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=200, test_count=40, seed=0))
    return folder


@pytest.mark.parametrize("variant", ["full", pytest.param("nano", marks=pytest.mark.slow)])
def test_two_ranks_equal_one(data: Path, tmp_path: Path, variant: str) -> None:
    """Full: with a puzzle table and the continue head, whose target comes from a second pass."""
    chosen = recipe(data, FULL if variant == "full" else None, variant)
    one = eager_trainer(chosen, tmp_path / "one", alone())
    of_one = gradients(one)
    one.run()
    with ranks(2, chosen, tmp_path / "two") as world:
        two = eager_trainer(chosen, tmp_path / "two", world)
        of_two = gradients(two)
        two.run()
        assert isinstance(two.data.part.inputs, np.memmap)  # read as it is needed, by no rank as a whole
    assert len(of_one) == len(of_two) == chosen.train.steps
    for a, b in zip(of_one, of_two, strict=True):
        assert a.keys() == b.keys() == one.learner.params.keys()
        norm = torch.stack([g.norm() for g in a.values()]).norm()
        assert norm > 0
        for name in a:
            assert (a[name] - b[name]).norm() <= 1e-5 * norm, name
    if variant == "full":
        table = one.learner.model.puzzle_emb.weights
        assert table.any()
        torch.testing.assert_close(two.learner.model.puzzle_emb.weights, table, rtol=1e-5, atol=1e-7)

    carries = [load_tensors(checkpoints(tmp_path / name)[-1] / CARRY_FILE) for name in ("one", "two")]
    assert 0 < carries[0]["halted"].sum() < chosen.train.batch
    for name, tensor in carries[0].items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, carries[1][name]), name
    logs = [read_lines(tmp_path / name / LOG_FILE) for name in ("one", "two")]
    assert [line["kind"] for line in logs[0]] == ["eval", "train", "eval"]
    for first, second in zip(*logs, strict=True):
        for key in first.keys() - TIMES:
            assert first[key] == (second[key] if key == "kind" else pytest.approx(second[key], rel=1e-4)), key

    again = start(chosen, tmp_path / "two", resume=True)
    assert "on 1 ranks, saved on 2" in again.notes[-1]
    assert torch.equal(again.learner.carry.z_h, carries[1]["z_h"])


def test_a_batch_that_ranks_cannot_share_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"which 3 processes cannot share equally\nuse --set train\.batch=15"):
        Trainer(recipe(data), tmp_path / "run", World(torch.device("cpu"), 0, 3), resume=False, bf16=Bf16(False, ""))


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, (1, 2, 0)),
    ],
)
def test_rank_by_launcher(environment: dict[str, str], place: tuple[int, int, int] | None) -> None:
    assert _place(environment) == place


def test_backend_by_device_and_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    monkeypatch.setattr("torch.distributed.is_mpi_available", lambda: False)
    assert _backend(cpu, {"RANK": "0"}) == "gloo"
    assert _backend(cuda, {"RANK": "0"}) == "cpu:gloo,cuda:nccl"
    with pytest.raises(UserError, match="mpirun started this, but this torch was built without MPI"):
        _backend(cpu, {"PMI_RANK": "0"})
    monkeypatch.setattr("torch.distributed.is_mpi_available", lambda: True)
    assert _backend(cpu, {"PMI_RANK": "0"}) == "mpi"
