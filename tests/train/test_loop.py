"""The training loop on real 4x4 puzzles: it learns, it resumes bit for bit, and what goes wrong is said."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm_edge.checkpoint import checkpoints, find_checkpoint
from hrm_edge.cli.main import main
from hrm_edge.data.dataset import Dataset, Sampler
from hrm_edge.data.layout import PartWriter
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import GateError, UserError
from hrm_edge.model.load import load_model, load_session
from hrm_edge.recipe import Recipe
from hrm_edge.tasks import get_task
from hrm_edge.training.loggers import LOG_FILE
from hrm_edge.training.loop import Trainer, start

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=200, test_count=40, seed=0))
    return folder


def recipe(data: Path, **train: Any) -> Recipe:
    options = {"batch": 16, "steps": 12, "warmup": 2, "lr": 2e-3, "precision": "fp32", "compile": False, **train}
    return Recipe.model_validate(
        {
            "task": "mini-sudoku",
            "variant": "nano",
            "data": str(data),
            "model": {"hidden": 16, "heads": 4, "max_steps": 3},
            "augment": {"symmetries": True, "extra_clues": [0, 6], "extra_clues_end": [0, 2]},
            "train": options,
            "evaluate": {"every": 6, "puzzles": 8},
            "checkpoints": {"every": 3, "keep": 2},
        }
    )


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    tensors = {f"w/{n}": t for n, t in trainer.learner.model.state_dict().items()}
    tensors |= {f"c/{n}": t for n, t in trainer.learner.carry.tensors().items()}
    if trainer.learner.ema:
        tensors |= {f"e/{n}": t for n, t in trainer.learner.ema.average.items()}
    return tensors


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw", "loss": "softmax", "gradient": "last_cycle"},
        {"optimizer": "muon", "precision": "bf16"},
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    chosen = recipe(data, **options)
    whole = start(chosen, tmp_path / "whole", resume=False)
    whole.run()
    first = start(chosen, tmp_path / "parts", resume=False)
    first.run(stop=lambda: first.learner.step >= 4)  # in mid-epoch, between two checkpoints, with a carry in flight
    second = start(chosen, tmp_path / "parts", resume=True)
    assert second.learner.step == 4
    outcome = second.run()
    assert outcome.finished
    assert_equal(state_of(whole), state_of(second))


def test_full_variant_with_puzzle_table_and_continue_head_trains_and_resumes(data: Path, tmp_path: Path) -> None:
    model = {"hidden": 16, "heads": 2, "h_layers": 1, "l_layers": 1, "puzzle_dim": 16, "max_steps": 3}
    chosen = recipe(data, steps=4).model_copy(update={"variant": "full", "model": model})
    whole = start(chosen, tmp_path / "whole", resume=False)
    before = whole.learner.model.puzzle_emb.weights.clone()
    whole.run()
    assert not torch.equal(before, whole.learner.model.puzzle_emb.weights)
    part = start(chosen, tmp_path / "part", resume=False)
    part.run(stop=lambda: part.learner.step >= 2)
    again = start(chosen, tmp_path / "part", resume=True)
    again.run()
    assert_equal(state_of(whole), state_of(again))


def test_it_learns(data: Path, tmp_path: Path) -> None:
    trainer = start(recipe(data, steps=60, batch=64), tmp_path / "run", resume=False)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    losses = [line["lm_loss"] for line in train]
    assert losses[-1] < 0.8 * losses[0]
    assert {"step", "samples", "lr", "samples_per_s", "mean_steps"} <= train[0].keys()
    assert lines[-1]["kind"] == "eval"
    assert lines[-1]["puzzles"] == 8


def test_the_newest_and_the_best_checkpoint_are_kept(data: Path, tmp_path: Path) -> None:
    trainer = start(recipe(data, steps=30), tmp_path / "run", resume=False)
    trainer.run()
    names = [p.name for p in checkpoints(tmp_path / "run")]
    assert names[-2:] == ["step-00000027", "step-00000030"]
    assert len(names) <= 3
    best = find_checkpoint(tmp_path / "run")
    metrics = {
        p.name: json.loads((p / "checkpoint.json").read_text())["metrics"] for p in checkpoints(tmp_path / "run")
    }
    assert metrics[best.name]["exact_accuracy"] >= max(m.get("exact_accuracy", 0) for m in metrics.values())
    model, info, _ = load_model(tmp_path / "run")
    assert info.spec == model.spec
    session, about = load_session(best)
    assert about["task"] == "mini-sudoku"
    carry = session.initial_carry(2)
    _, logits, q = session.step(np.ones((2, 16), np.uint8), np.zeros(2, np.int32), carry)
    assert logits.shape == (2, 16, 6)
    assert q.shape == (2, 1)


def test_time_limit_saves_and_says_it_is_not_finished(data: Path, tmp_path: Path) -> None:
    trainer = start(recipe(data), tmp_path / "run", resume=False)
    outcome = trainer.run(time_limit=0.0)
    assert (outcome.step, outcome.finished) == (1, False)
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000001"]


def test_a_changed_recipe_is_refused_by_its_keys(data: Path, tmp_path: Path) -> None:
    start(recipe(data), tmp_path / "run", resume=False).run(time_limit=0.0)
    with pytest.raises(UserError, match=r"the recipe differs .*train\.lr \(was 0\.002, is 0\.5\)"):
        start(recipe(data, lr=0.5), tmp_path / "run", resume=True)


def test_a_second_run_in_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    start(recipe(data), tmp_path / "run", resume=False).run(time_limit=0.0)
    with pytest.raises(UserError, match="holds a run already\nadd --resume"):
        start(recipe(data), tmp_path / "run", resume=False)


def test_resume_without_a_run_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint"):
        start(recipe(data), tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    trainer = start(recipe(data), tmp_path / "run", resume=False)
    trainer.run(stop=lambda: trainer.learner.step >= 3)
    with torch.no_grad():
        trainer.learner.params["lm_head.weight"].fill_(float("nan"))
    with pytest.raises(GateError, match="not finite at step 6\nthe last good checkpoint is kept"):
        trainer.run()
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000003"]
    model, _, _ = load_model(tmp_path / "run")
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_patience_counts_evaluations_in_a_row_that_were_worse(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing solved is no decline; a new best starts the count anew; a resumed run goes on counting."""
    accuracies = {3: 0.0, 6: 0.0, 9: 0.25, 12: 0.125, 15: 0.5, 18: 0.375, 21: 0.25, 24: 0.75}

    def as_planned(*_: Any, **__: Any) -> dict[str, float]:
        return {"exact_accuracy": accuracies[trainers[-1].learner.step], "cell_accuracy": 0.5}

    monkeypatch.setattr("hrm_edge.training.loop.evaluate", as_planned)
    chosen = recipe(data, steps=30)
    chosen = chosen.model_copy(update={"evaluate": chosen.evaluate.model_copy(update={"every": 3, "patience": 2})})
    trainers = [start(chosen, tmp_path / "run", resume=False)]
    trainers[0].run(stop=lambda: trainers[0].learner.step >= 19)
    trainers.append(start(chosen, tmp_path / "run", resume=True))
    outcome = trainers[1].run()
    assert (outcome.step, outcome.finished) == (21, True)
    assert outcome.reason == "evaluate.patience: 2 evaluations worse than step 15, which is kept"
    assert find_checkpoint(tmp_path / "run").name == "step-00000015"


def test_a_torn_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    start(recipe(data), tmp_path / "run", resume=False).run(time_limit=0.0)
    file = checkpoints(tmp_path / "run")[-1] / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model\.safetensors: hash mismatch"):
        load_model(tmp_path / "run")
    file.write_bytes(bytes(content[:100]))
    with pytest.raises(UserError, match=r"model\.safetensors has 100 bytes"):
        start(recipe(data), tmp_path / "run", resume=True)


def test_a_resume_on_changed_data_is_refused(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    start(recipe(folder), tmp_path / "run", resume=False).run(time_limit=0.0)

    def reverse() -> None:
        for name in ("inputs", "labels"):
            path = folder / "train" / f"all__{name}.npy"
            np.save(path, np.load(path)[::-1])

    reverse()
    with pytest.raises(UserError, match=r"is not what .*step-00000001 was trained on\nput the run's data back"):
        start(recipe(folder), tmp_path / "run", resume=True)
    reverse()
    assert start(recipe(folder), tmp_path / "run", resume=True).run().finished


def test_a_position_beyond_the_data_is_refused_where_the_checkpoint_has_no_hash(data: Path, tmp_path: Path) -> None:
    """As older versions saved it: with the same groups and fewer examples the sampler never came to an end."""
    folder = shutil.copytree(data, tmp_path / "data")
    several = PartWriter(folder, "train", get_task("mini-sudoku"))
    whole = Dataset(data, "train", get_task("mini-sudoku"))
    part = whole.part
    with several:
        count = len(part) // 4
        sizes = np.ones(count, np.int32)
        several.add(part.inputs[: 4 * count], part.labels[: 4 * count], groups=sizes, puzzles=4 * sizes)
    trainer = start(recipe(folder), tmp_path / "run", resume=False)
    trainer.run(stop=lambda: trainer.learner.feed.sampler.position > count)
    state = trainer.learner.feed.sampler.state()
    with PartWriter(folder, "train", get_task("mini-sudoku")) as fewer:
        fewer.add(part.inputs[:count], part.labels[:count], groups=sizes)
    with pytest.raises(UserError, match=f"at example {state['position']} of an epoch that has {count}"):
        Sampler(Dataset(folder, "train", get_task("mini-sudoku")), 0).restore(state)
    for wrong in (-1, 10**9):
        with pytest.raises(UserError, match="resume with the data folder the run was started with"):
            Sampler(Dataset(data, "train", get_task("mini-sudoku")), 0).restore(
                {**state, "groups": len(part), "position": wrong}
            )


def test_a_data_folder_of_another_task_is_refused(data: Path, tmp_path: Path) -> None:
    wrong = recipe(data).model_copy(update={"task": "sudoku"})
    with pytest.raises(UserError, match="data folder of another task: expected sudoku, found mini-sudoku"):
        start(wrong, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hrm_edge", "train", *arguments]


@pytest.fixture
def recipe_file(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mini_test.yaml"
    path.write_text(recipe(data, steps=100_000).dump())
    return path


def test_ctrl_c_saves_and_exits_130_with_the_way_on(recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(str(recipe_file), "--out", str(run)), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not checkpoints(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    step = load_model(checkpoints(run)[-1])[1].step
    assert f"step {step}" in " ".join(errors.split())
    assert main(["train", str(recipe_file), "--out", str(run), "--resume", "--time-limit", "0s"]) == 0
    assert load_model(checkpoints(run)[-1])[1].step > step


def test_a_full_disk_ends_with_a_message_and_keeps_what_was_whole(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (soft, hard) = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # any write beyond fails as on a full disk
    try:
        assert main(["train", str(recipe_file), "--out", str(run)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert "File too large" in said
    assert "Traceback" not in said
    assert checkpoints(run) == []
    assert list((run / "checkpoints").iterdir()) == []  # nothing half-written
