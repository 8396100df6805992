"""An engine beside its artifact: what the sidecar says after it, on a simulated GPU that executes the step for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from hrm_edge import zoo
from hrm_edge.api import engine_parity
from hrm_edge.api.answers import sample_puzzles
from hrm_edge.api.engine_parity import check_built, check_set, engine_limits, measure_engine, parity_text
from hrm_edge.cli.main import main
from hrm_edge.files import write_json
from hrm_edge.manifest import STEP_FILE, read_manifest
from hrm_edge.parity import measure
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.runtime.trt import build, device, identity
from hrm_edge.runtime.trt import open as opening
from hrm_edge.runtime.trt.cuda import _CudaPython
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE, EngineParity, entry_of, read_engine
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import write_singles_artifact
from tests.runtime.simulated import ORIN, Device, add_engine, cuda_runtime, simulated_api

MINI = Sudoku(2, 2)


def less_exact(source: Path, to: Path, by: float) -> None:
    """The graph with some of its logits off by a share."""
    graph = onnx.load(source)
    (weight,) = (initializer for initializer in graph.graph.initializer if initializer.name == "to_logits")
    value = numpy_helper.to_array(weight).copy()
    value[:2] *= 1 + by
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    onnx.save(graph, to)


def engine_folder(artifact: Path, off_by: float | None = None) -> Path:
    """The artifact with an engine of an Orin in it; ``off_by``: that of a graph that is less exact."""
    add_engine(artifact, simulated_api(Device()))  # the simulated plan is the ONNX file
    if off_by is not None:
        less_exact(artifact / STEP_FILE, artifact / "other.onnx", off_by)
        (artifact / "other.onnx").replace(artifact / PLAN_FILE)
        raw = json.loads((artifact / SIDECAR_FILE).read_text())
        write_json(artifact / SIDECAR_FILE, {**raw, "plan": entry_of(artifact / PLAN_FILE).model_dump()})
    return artifact


def mini(tmp_path: Path, off_by: float | None = None, precision: str = "fp32") -> Path:
    return engine_folder(write_singles_artifact(tmp_path / "engine", MINI, precision=precision), off_by)


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a simulated Orin with TensorRT."""
    simulated = Device()
    monkeypatch.setattr(opening, "find_api", lambda name: simulated_api(simulated))
    monkeypatch.setattr(opening, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(opening, "find_cuda", lambda: _CudaPython(cuda_runtime(simulated)))
    monkeypatch.setattr(device, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(build, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(build, "find_api", lambda name: simulated_api(simulated))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_parity, "FEWEST_PUZZLES", 24)
    monkeypatch.setattr(engine_parity, "REFERENCE_S", 0.0)


def measured(folder: Path) -> EngineParity:
    session, manifest = open_artifact(folder, backend="tensorrt")
    return measure_engine(session, manifest, check_set(manifest.task, None), lambda message: None)


def check_passed(folder: Path) -> EngineParity:
    """Over all steps, the carry brought from the device; the record and the sidecar agree."""
    assert json.loads((folder / SIDECAR_FILE).read_text())["parity"] == "not measured"
    found = measured(folder)
    assert found.gate.passed, found.gate.failures
    manifest, again = read_manifest(folder), read_engine(folder)
    assert again.parity == (found,)
    assert again.parity_on("Orin", "tensorrt-cuda") == found
    assert again.parity_on("Orin", "torch_tensorrt-cuda") is None
    assert again.parity_on("Thor", "tensorrt-cuda") is None
    assert [row.steps for row in found.after] == [1, 4, manifest.spec.max_steps]
    assert {row.puzzles for row in found.after} == {24}
    assert found.held.over == "both settle"
    assert found.accuracy_lost_points == pytest.approx(0.0, abs=100 / 24)
    assert found.puzzles_from == "the package's own puzzles"
    assert parity_text(found).endswith("(Orin)")
    measured(folder)
    assert len(read_engine(folder).parity) == 1  # the later one took its place
    return found


@pytest.mark.usefixtures("orin", "few")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_that_computes_the_same_passes(tmp_path: Path, precision: str) -> None:
    found = check_passed(mini(tmp_path, precision=precision))
    assert found.held.logits_sqnr_db == 200
    assert found.held.carry_cosine == pytest.approx(1.0)
    assert found.held.same_answers == 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("orin", "few")
@pytest.mark.parametrize("name", ["sudoku-nano", "sudoku-nano-fp16", "sudoku-nano-int8"])
def test_the_shipped_models_engines_pass(tmp_path: Path, name: str) -> None:
    shipped = zoo.folder_of(name)
    assert shipped is not None
    shutil.copytree(shipped, tmp_path / "engine")
    found = check_passed(engine_folder(tmp_path / "engine"))
    assert found.held.logits_sqnr_db > 40
    assert found.held.carry_cosine_mean == pytest.approx(1.0, abs=1e-3)


@pytest.mark.usefixtures("orin", "few")
def test_the_figures_are_those_of_two_sessions(tmp_path: Path) -> None:
    """A less exact engine against the artifact, as two ONNX Runtime sessions say it."""
    folder = mini(tmp_path, off_by=0.02)
    found = measured(folder)
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    shutil.copyfile(folder / PLAN_FILE, plain / STEP_FILE)
    manifest = read_manifest(folder)
    sessions = (OrtSession(each, manifest.model_copy(update={"files": {}})) for each in (folder, plain))
    expected = measure(*sessions, check_set(MINI.name, None).head(24), manifest.spec.max_steps)
    assert found.after == expected.everywhere
    assert found.held == expected.gate_row()
    assert 30 < found.held.logits_sqnr_db < 45  # 2 % of half of the logits


def test_what_the_artifact_was_held_to_holds_the_engine() -> None:
    shipped = zoo.folder_of("sudoku-nano-int8")
    assert shipped is not None
    manifest = read_manifest(shipped)
    limits = engine_limits(manifest, 256)
    assert limits.sqnr_db_int8 == manifest.gate.limits["logits_sqnr_db"]
    assert limits.carry_cosine == manifest.gate.limits["carry_cosine_mean"]
    assert limits.accuracy_drop_points == max(manifest.gate.limits["accuracy_drop_points"], 100 / 256)
    assert engine_limits(manifest, 10).accuracy_drop_points == 10.0  # one of ten


BENCH = ["--duration", "0.2s", "--limit", "8", "--power", "none"]


@pytest.mark.usefixtures("orin", "few")
def test_bench_measures_once_and_reports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, report = mini(tmp_path), tmp_path / "report.json"
    assert main(["bench", str(folder), *BENCH, "--json", str(report)]) == 0
    said = capsys.readouterr()
    assert "comparing the engine with ONNX Runtime on 24 puzzles, 16 steps each" in said.err
    assert "engine beside ONNX Runtime" in said.out
    document = json.loads(report.read_text())
    assert document["engine_parity"]["device"] == "Orin"
    assert document["engine_parity"]["gate"]["passed"]
    assert main(["bench", str(folder), *BENCH, "--json", str(report)]) == 0
    assert "comparing the engine" not in capsys.readouterr().err
    assert json.loads(report.read_text())["engine_parity"] == document["engine_parity"]


@pytest.mark.usefixtures("orin", "few")
def test_an_engine_that_misses_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 when it is measured, a warning whenever it is used afterwards."""
    folder = mini(tmp_path, off_by=0.02)
    assert main(["bench", str(folder), *BENCH]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the engine misses its artifact's limits on Orin: logits of the median puzzle differ by" in said
    assert "is marked; see its engine.json" in said
    marked = read_engine(folder).parity_on("Orin", "tensorrt-cuda")
    assert marked is not None
    assert not marked.gate.passed
    assert any(
        "of the answers are ONNX Runtime's" in failure or "median" in failure for failure in marked.gate.failures
    )
    sample = Path(sample_puzzles("sudoku")).read_text().splitlines()[1].split(",")[0]
    main(["solve", sample, "--model", str(folder)])
    assert "Warning" in (warned := capsys.readouterr().err)
    assert "its engine misses its gate" in warned


@pytest.mark.usefixtures("orin", "few")
def test_a_read_only_folder_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mini(tmp_path)

    def denied(engine: identity.Engine, path: Path) -> None:
        raise identity.UserError(f"{path}: Read-only file system", "choose another folder")

    monkeypatch.setattr(identity.Engine, "write", denied)
    session, manifest = open_artifact(folder, backend="tensorrt")
    told: list[str] = []
    found = measure_engine(session, manifest, check_set(MINI.name, None), told.append)
    assert found.gate.passed
    assert "is measured, but not kept" in told[-1]


def exported(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """``export --backend tensorrt``, its builder replaced by a copy of the simulated plan."""

    def make(request: Any, tell: Any) -> dict[str, Any]:
        shutil.copyfile(folder / PLAN_FILE, request.plan)
        return {"seconds": 1.0, "peak_memory_bytes": 1, "layers": 3, "timing_cache": False}

    monkeypatch.setattr(build, "_run_worker", make)
    return main(["export", str(folder), "--out", str(out), "--backend", "tensorrt", "--no-cache"])


@pytest.mark.usefixtures("orin", "few")
def test_export_measures_what_it_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = mini(tmp_path)
    assert exported(good, tmp_path / "good", monkeypatch) == 0
    said = capsys.readouterr().out
    assert "carry cosine 1.0000" in " ".join(said.split())
    assert said.splitlines()[-1] == f"Next: hrm-edge bench {tmp_path / 'good'}"
    assert read_engine(tmp_path / "good").parity != "not measured"
    bad = mini(tmp_path / "2", off_by=0.02)
    assert exported(bad, tmp_path / "bad", monkeypatch) == 1
    assert "the engine misses its artifact's limits" in " ".join(capsys.readouterr().err.split())
    assert read_engine(tmp_path / "bad").parity != "not measured"  # marked, and there


@pytest.mark.usefixtures("orin")
def test_what_cannot_be_measured_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mini(tmp_path)
    engine = read_engine(folder)
    other = engine.model_copy(update={"identity": engine.identity.model_copy(update={"sm": (86,)})})
    assert check_built(folder, other, print) == (None, "it is not for the GPU here (SM87)")

    def nothing() -> Any:
        raise device.UserError("no GPU: libcuda.so.1 is missing", "")

    monkeypatch.setattr(opening, "find_cuda", lambda: nothing())
    assert check_built(folder, engine, print) == (None, "no GPU: libcuda.so.1 is missing")
    monkeypatch.setattr(device, "find_gpu", nothing)
    assert check_built(folder, engine, print) == (None, "there is no GPU here")
