"""``train.precision: auto``: what is chosen, what is said, and that a resumed run keeps it."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from hrm_edge.data.sudoku import Options, build
from hrm_edge.recipe import Recipe
from hrm_edge.tasks import get_task
from hrm_edge.training import precision
from hrm_edge.training.distributed import World
from hrm_edge.training.loop import Trainer, start
from hrm_edge.training.precision import Bf16, _bf16_time_ratio, bf16_on, decided
from tests.needs import installed
from tests.train.ranks import ROOT
from tests.train.ranks import recipe as small_recipe

KEPT_BF16 = "train.precision=auto is bf16, as the run began"
KEPT_FP32 = "train.precision=auto is fp32, as the run began"
SLOW_BF16 = "train.precision=bf16 is slow here: it is slow. A new run with 'auto' or 'fp32' is faster."
FAST, SLOW = Bf16(True, "it is fast"), Bf16(False, "it is slow")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=60, test_count=10, seed=0))
    return folder


@pytest.mark.parametrize(
    ("wanted", "bf16", "began_in", "chosen", "text"),
    [
        ("auto", FAST, None, "bf16", "train.precision=auto is bf16: it is fast"),
        ("auto", SLOW, None, "fp32", "train.precision=auto is fp32: it is slow"),
        ("auto", FAST, "bf16", "bf16", KEPT_BF16),
        ("auto", SLOW, "bf16", "bf16", f"{KEPT_BF16}; a new run would take fp32: it is slow"),
        ("auto", FAST, "fp32", "fp32", f"{KEPT_FP32}; a new run would take bf16: it is fast"),
        ("bf16", FAST, None, "bf16", ""),
        ("bf16", SLOW, None, "bf16", SLOW_BF16),
        ("fp32", FAST, "fp32", "fp32", ""),
        ("fp32", SLOW, None, "fp32", ""),
    ],
)  # fmt: skip
def test_what_is_chosen_and_said(wanted: str, bf16: Bf16, began_in: str | None, chosen: str, text: str) -> None:
    before = Recipe.model_validate({"task": "mini-sudoku", "variant": "nano", "train": {"precision": wanted}})
    recipe, said = decided(before, bf16, began_in)  # type: ignore[arg-type]
    assert (recipe.train.precision, said) == (chosen, text)
    assert recipe.model_copy(update={"train": before.train}) == before


def test_a_ratio_decides_and_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    assert 0.01 < _bf16_time_ratio() < 1000
    assert torch.get_num_threads() == threads
    world = World(torch.device("cpu"))
    for ratio, expected in ((0.47, "multiplies in bfloat16: a product takes 0.47"), (14.9, "only emulates bfloat16")):
        monkeypatch.setattr(precision, "_bf16_time_ratio", lambda ratio=ratio: ratio)
        found = bf16_on(world)
        assert found.is_native == (ratio < 1)
        assert expected in found.why


def test_one_slow_rank_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_bf16_time_ratio", lambda: 0.5)
    monkeypatch.setattr(World, "exchange", lambda self, value: [value, 0])
    assert bf16_on(World(torch.device("cpu"), 0, 2)) == (False, "the processor of another rank only emulates bfloat16")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's limit of instructions is for x86")
def test_a_processor_without_bf16_trains_in_float32_and_the_run_keeps_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch is held to AVX2, as on a machine that has no more; then the run moves to one that has."""
    installed("cc", "gcc")
    monkeypatch.setenv("HELD_BY_VARIABLES", "1")  # what every x86 processor can
    recipe = small_recipe(data, steps=3, precision="auto")
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    run = tmp_path / "run"
    done = subprocess.run(
        [ROOT / "scripts" / "held_to_avx2.sh", sys.executable, "-m", "hrm_edge", "train", tmp_path / "recipe.yaml",
         "--out", run, "--time-limit", "0s"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = " ".join(done.stderr.split())
    assert "train.precision=auto is fp32: this processor only emulates bfloat16: a product takes" in said
    assert " fp32 on " in said
    for path in (run / "recipe.yaml", next(run.glob("checkpoints/*/recipe.yaml"))):
        assert yaml.safe_load(path.read_text())["train"]["precision"] == "fp32"

    monkeypatch.setattr(precision, "_bf16_time_ratio", lambda: 0.5)
    resumed = start(recipe, run, resume=True)
    assert resumed.learner.dtype == torch.float32
    assert "auto is fp32, as the run began; a new run would take bf16: this processor multiplies" in resumed.notes[0]
    assert resumed.run().finished


def test_a_run_that_began_in_bf16_goes_on_under_auto(data: Path, tmp_path: Path) -> None:
    """A shipped recipe said bf16 and says auto now: the run of before goes on."""
    start(small_recipe(data, precision="bf16"), tmp_path / "run", resume=False).run(time_limit=0.0)
    resumed = start(small_recipe(data, precision="auto"), tmp_path / "run", resume=True)
    assert resumed.recipe.train.precision == "bf16"
    assert resumed.learner.dtype == torch.bfloat16


def test_a_slow_precision_is_said_before_training_starts(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_recipe(data, precision="bf16"), tmp_path / "run", World(torch.device("cpu")),
                      resume=False, bf16=SLOW)  # fmt: skip
    assert trainer.notes == [SLOW_BF16]
