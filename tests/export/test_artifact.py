"""Checkpoint to artifact to session: what is in the folder, what the gate says, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from hrm_edge.cli.export import export as command
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import GateError, UserError
from hrm_edge.manifest import Manifest, Parity, read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.model.load import load_model
from hrm_edge.model.session import TorchSession
from hrm_edge.parity import AccuracyDrop, Measured, _cosines, judge, measure
from hrm_edge.quant.policy import int8_layers
from hrm_edge.recipe import Limits, Quantization, Recipe
from hrm_edge.report.figures import decibels
from hrm_edge.runtime import open_artifact
from hrm_edge.solve import solve
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.training.loop import start
from tests.export.written import export


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mini"
    build(get_task("mini-sudoku"), folder, Options(source="generate", count=500, test_count=60, seed=0))
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A briefly trained model with a puzzle table, so that every input of the graph is used."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.model_validate(
        {
            "task": "mini-sudoku",
            "variant": "nano",
            "data": str(data),
            "model": {"hidden": 32, "heads": 2, "max_steps": 4, "puzzle_dim": 32, "grid_heads": False},
            "augment": {"symmetries": True},
            "train": {"batch": 64, "steps": 60, "warmup": 5, "lr": 3e-3, "precision": "fp32", "compile": False},
            "evaluate": {"every": 1000, "puzzles": 8},
            "limits": {"puzzles": 48},
            "quantization": {"calibration_puzzles": 32},
        }
    )
    start(recipe, folder, resume=False).run()
    return folder


@pytest.fixture(scope="module")
def artifacts(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    model, info, _ = load_model(run)
    made = {}
    for precision in ("fp32", "fp16", "int8"):
        made[precision] = tmp_path_factory.mktemp("artifacts") / precision
        export(
            model, info, made[precision], precision=precision, calibration=data,
            quantization=Quantization(calibration_puzzles=32), limits=Limits(puzzles=48),
        )  # fmt: skip
    return made


def test_float_artifact_answers_as_torch_does(run: Path, data: Path, artifacts: dict[str, Path]) -> None:
    model, _, _ = load_model(run)
    session, manifest = open_artifact(artifacts["fp32"])
    givens = np.load(data / "test" / "all__inputs.npy")
    task = get_task("mini-sudoku")
    ours = solve(session, task, givens, halt="fixed", slots=7)
    theirs = solve(TorchSession(model), task, givens, halt="fixed", slots=16)
    assert (ours.answers == theirs.answers).all(-1).mean() > 0.97
    assert [p.steps for p in manifest.parity] == [1, 4]
    assert manifest.parity[0].logits_max_abs < 1e-4
    assert manifest.parity[-1].logits_median_abs < 1e-4
    assert manifest.gate.passed, manifest.gate.failures
    assert manifest.provenance["checked_on"] == f"{data.name}/test"


def test_int8_artifact_is_smaller_and_says_how_it_was_made(data: Path, artifacts: dict[str, Path]) -> None:
    manifest = read_manifest(artifacts["int8"])
    quantization = manifest.quantization
    assert quantization is not None
    assert quantization["calibration"] == {"source": f"{data.name}/train", "puzzles": 32, "steps": 4}
    assert set(quantization["float_layers"]) == {"q_head", "lm_head"}
    assert len(quantization["input_scales"]) == quantization["layers"] == 16
    sizes = {p: sum(e.bytes for e in read_manifest(folder).files.values()) for p, folder in artifacts.items()}
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
    parts = quantization["bytes"]
    linear = sum(layer.weight.numel() for layer in int8_layers(HRM(manifest.spec)).values())
    stored = [numpy_helper.to_array(i).nbytes for i in onnx.load(artifacts["int8"] / "step.onnx").graph.initializer]
    assert parts["int8"] == linear  # a byte each
    assert sum(parts[kind] for kind in ("int8", "scales", "float", "constants")) == sum(stored)
    assert 10 < manifest.parity[-1].logits_sqnr_db < 100
    session, _ = open_artifact(artifacts["int8"])
    _, logits, _ = session.step(np.ones((3, 16), np.uint8), np.zeros(3, np.int32), session.initial_carry(3))
    assert np.isfinite(logits).all()


def test_half_artifact_carries_half_and_stays_close(artifacts: dict[str, Path]) -> None:
    session, manifest = open_artifact(artifacts["fp16"])
    assert session.dtype == np.float16
    assert manifest.parity[-1].logits_sqnr_db > 30


def test_same_weights_give_the_same_graph(run: Path, data: Path, artifacts: dict[str, Path], tmp_path: Path) -> None:
    model, info, _ = load_model(run)
    again = export(model, info, tmp_path / "again", precision="fp32", calibration=data, limits=Limits(puzzles=8))
    assert again.files["step.onnx"] == read_manifest(artifacts["fp32"]).files["step.onnx"]


def test_without_a_path_the_packages_puzzles_check_floats_and_int8_is_refused(run: Path, tmp_path: Path) -> None:
    model, info, _ = load_model(run)
    manifest = export(model, info, tmp_path / "fp32", precision="fp32", limits=Limits(puzzles=16))
    assert manifest.provenance["checked_on"] == "the package's own puzzles"
    assert manifest.parity[0].puzzles == 16
    with pytest.raises(UserError, match=r"INT8 needs real puzzles to calibrate on.*no set for mini.*\n.*--calibration"):
        export(model, info, tmp_path / "int8", precision="int8")
    assert not (tmp_path / "int8").exists()


def test_a_puzzle_file_is_halved_and_too_few_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    model, info, _ = load_model(run)
    task = get_task("mini-sudoku")
    lines = [task.format(row) for row in np.load(data / "test" / "all__inputs.npy")]
    file = tmp_path / "puzzles.txt"
    file.write_text("\n".join(lines[:40]) + "\n")
    manifest = export(model, info, tmp_path / "int8", precision="int8", calibration=file)
    assert manifest.quantization is not None
    assert manifest.quantization["calibration"]["puzzles"] == 20
    assert manifest.parity[0].puzzles == 20
    file.write_text("\n".join(lines[:10]) + "\n")
    with pytest.raises(UserError, match="the calibration set has 5 puzzles, at least 16 are needed"):
        export(model, info, tmp_path / "few", precision="int8", calibration=file)


def test_a_missed_limit_marks_the_artifact_and_exits_1(run: Path, data: Path, tmp_path: Path) -> None:
    model, info, _ = load_model(run)
    strict = Limits(puzzles=16, sqnr_db_int8=150.0)
    manifest = export(model, info, tmp_path / "int8", precision="int8", calibration=data, limits=strict)
    assert not manifest.gate.passed
    assert "the limit is 150 dB" in manifest.gate.failures[0]
    _, reread = open_artifact(tmp_path / "int8")
    assert not reread.gate.passed


def test_command_prints_the_table_and_the_next_command(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    result = CliRunner().invoke(command, [str(run), "--out", str(out), "--fp32", "--calibration", str(data)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"Next: hrm-edge bench {out} --data {data}"
    assert isinstance(read_manifest(out), Manifest)
    again = CliRunner().invoke(command, [str(run), "--out", str(out), "--fp32"])
    assert isinstance(again.exception, UserError)
    assert "already exists" in str(again.exception)


def test_the_gate_names_every_miss() -> None:
    parity = Parity(
        steps=4, puzzles=100, logits_max_abs=1.0, logits_median_abs=0.1, logits_sqnr_db=19.0, carry_cosine=0.9,
        same_answers=0.5, carry_cosine_mean=0.99,
    )  # fmt: skip
    gate = judge(Measured([parity], [], AccuracyDrop(0.6, (0.1, 1.1))), "int8", Limits())
    assert [f.split(",")[0] for f in gate.failures] == [
        "SQNR of the logits is 19.0 dB after 4 steps on 100 puzzles",
        "the carry's mean cosine with torch's is 0.9900 after 4 steps on 100 puzzles",
        "exact accuracy falls by 0.60 points on 100 puzzles (95 %: +0.10 to +1.10)",
    ]
    loose = Limits(sqnr_db_fp16=19.0, sqnr_db_int8=19.0, carry_cosine=0.99)
    assert judge(Measured([parity], [], AccuracyDrop(0.5, (0.0, 1.0))), "int8", loose).passed
    assert not judge(
        Measured([parity], [], AccuracyDrop(0.2, (0.0, 1.0))), "fp16", loose
    ).passed  # float16 may lose 0.1 only
    assert len(judge(Measured([parity], [], None), "fp32", Limits()).failures) == 2


def test_the_gate_holds_the_puzzles_that_both_settle_unless_they_are_too_few() -> None:
    figures = {"steps": 4, "logits_max_abs": 1.0, "logits_median_abs": 0.1, "carry_cosine": 0.9, "same_answers": 0.5}
    everywhere = Parity(puzzles=100, logits_sqnr_db=10.0, carry_cosine_mean=0.9, **figures)
    converged = Parity(over="both settle", puzzles=80, logits_sqnr_db=25.0, carry_cosine_mean=0.999, **figures)
    worse = Parity(over="torch settles", puzzles=90, logits_sqnr_db=12.0, carry_cosine_mean=0.95, **figures)
    assert judge(Measured([everywhere], [converged, worse], None), "int8", Limits()).passed
    assert not judge(Measured([everywhere], [converged, worse], AccuracyDrop(0.6, (0.0, 1.0))), "int8", Limits()).passed
    few = converged.model_copy(update={"puzzles": 15})
    assert len(judge(Measured([everywhere], [few], None), "int8", Limits()).failures) == 2
    bad = converged.model_copy(update={"logits_sqnr_db": 19.5})
    failures = judge(Measured([everywhere], [bad], None), "int8", Limits()).failures
    assert failures == [
        "SQNR of the logits is 19.5 dB after 4 steps on 80 puzzles that both settle, the limit is 20 dB"
    ]


def test_command_ends_with_1_when_the_gate_fails(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "task": "mini-sudoku",
            "variant": "nano",
            "data": str(data),
            "model": {"hidden": 16, "heads": 4, "max_steps": 2},
            "train": {"batch": 8, "steps": 1, "precision": "fp32", "compile": False},
            "evaluate": {"puzzles": 8},
            "limits": {"puzzles": 16, "sqnr_db_int8": 150.0},
        }
    )
    start(recipe, tmp_path / "run", resume=False).run()
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "int8"), "--int8", "--calibration", str(data)]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, GateError)
    assert "the limit is 150 dB" in str(result.exception)
    assert not read_manifest(tmp_path / "int8").gate.passed


def test_measure_sees_a_difference_of_one_answer(run: Path, artifacts: dict[str, Path], data: Path) -> None:
    """An artifact of other weights is told apart from the model."""
    model, _, _ = load_model(run)
    session, _ = open_artifact(artifacts["fp32"])
    inputs, labels = (np.load(data / "test" / f"all__{n}.npy")[:32] for n in ("inputs", "labels"))
    task = get_task("mini-sudoku")
    check = Puzzles.of(task, inputs, labels, called="test")
    same = measure(TorchSession(model), session, check, 2)
    with torch.no_grad():
        model.lm_head.weight[3] += 0.5
    other = measure(TorchSession(model), session, check, 2)
    assert same.everywhere[-1].logits_sqnr_db > 80 > 30 > other.everywhere[-1].logits_sqnr_db
    assert all(part.carry_cosine > 0.999 for part in same.apart)
    found = solve(TorchSession(load_model(run)[0]), task, inputs, halt="fixed", max_steps=2)
    solved = int(task.verify(inputs, found.answers).sum())
    counts = {"both settle": solved, "torch settles": solved, "unsettled": 32 - solved}
    assert {part.over: part.puzzles for part in same.apart} == {over: n for over, n in counts.items() if n}


def test_decibels_and_cosine() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) == 200.0
    a = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    found = _cosines(a, np.array([[1.0, 0.0], [1.0, 0.0]], np.float32))
    assert found.tolist() == pytest.approx([1.0, 2**-0.5])
