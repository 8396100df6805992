"""``benchmarks/cpu_step.py`` and ``cpu_halting.py``, run small: what their reports say, misses, and wrong input."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hrm_edge import zoo
from hrm_edge.errors import UserError
from hrm_edge.export.recover import ArtifactInfo, recover
from hrm_edge.files import read_json, write_json
from hrm_edge.manifest import MANIFEST
from hrm_edge.model.hrm import HRM
from hrm_edge.recipe import Limits
from hrm_edge.runtime import open_artifact, openvino, ort
from hrm_edge.runtime.choose import candidates
from hrm_edge.solve import solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from tests.bench.programs import ROOT, load_program, run_program
from tests.export.written import export

CORES = len(os.sched_getaffinity(0))
THREADS = len({1, CORES})


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """The programs set torch's number of threads for their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# -- one step --------------------------------------------------------------------------------------------------------


def small(name: str, **sizes: Any) -> Any:
    return variant_spec(name, **sizes, hidden=64, heads=2, h_layers=1, l_layers=1)


def old_exporter(model: HRM, feeds: Any, path: Path) -> None:
    """The default one needs a package that is not in the environment; what is measured of the file is the same."""
    naive = sys.modules["naive"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            naive.Step(model), tuple(map(torch.from_numpy, feeds.values())), str(path), input_names=list(feeds),
            dynamo=False,
        )  # fmt: skip


@pytest.fixture
def cpu_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    program = load_program("cpu_step", tmp_path, monkeypatch)
    monkeypatch.setattr(program, "variant_spec", small)
    monkeypatch.setattr(program, "require_exporter", lambda: None)
    monkeypatch.setattr(program, "naive_export", old_exporter)
    return program


@pytest.mark.slow
@pytest.mark.ci
def test_the_step_program(cpu_step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Both verbs; every way once; the ratios are those of the times; a limit that is missed is exit code 1."""
    assert run_program(cpu_step, monkeypatch, "prepare", "--models", "full") == 0
    measure = ("measure", "--machine", "here", "--models", "full", "--rounds", "1")
    monkeypatch.setitem(cpu_step.LIMITS, "full", 1e9)
    assert run_program(cpu_step, monkeypatch, *measure) == 0
    said = capsys.readouterr()
    assert "missed" not in said.err
    assert "benchmarks/results/here/cpu-step.json" in said.out
    report = read_json(tmp_path / "benchmarks" / "results" / "here" / "cpu-step.json")
    assert (report["kind"], report["rounds"], report["cores"]) == ("hrm-edge cpu step", 1, CORES)
    assert report["versions"]["torch"] == torch.__version__
    (step,) = report["models"]
    check_step(step, report["base"])
    assert set(step["graphs"]) == {"ours", "naive"}
    for counts in step["graphs"].values():
        assert 0 < counts["onnxruntime"] <= counts["file"]
        assert counts["openvino"] > 0
    report["models"][0]["limit"] = 1e-9
    monkeypatch.setattr(cpu_step, "measure", lambda names, rounds: report)  # the same once more takes seconds
    assert run_program(cpu_step, monkeypatch, *measure) == 1
    assert "missed: full: " in (missed := capsys.readouterr().err)
    assert "of eager torch, wanted 1e-09" in missed


def check_step(step: dict[str, Any], base: str) -> None:
    rows = step["rows"]
    names = [row["name"] for row in rows]
    pairs = {(row["precision"], row["backend"]) for row in rows if row["graph"] == "ours"}
    usual = {(precision, b) for precision in ("fp32", "int8") for b in ("onnxruntime", "openvino", "openvino-bf16")}
    assert usual <= pairs <= {*usual, ("int8", "native")}
    inexact = [row for row in rows if row["graph"].startswith("inexact")]
    runtimes = sum(runtime.int8_arithmetic().products != "int8" for runtime in (ort, openvino))
    assert len(inexact) == THREADS * runtimes  # none where VNNI is there
    # eager torch, ours, the naive export
    assert len(set(names)) == len(names) == THREADS * (1 + len(pairs)) + 3 + len(inexact)
    by_name = {row["name"]: row for row in rows}
    assert by_name[base]["against_eager"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    for row in rows:
        assert row["ms"]["min"] == row["ms"]["median"] == row["ms"]["max"] > 0  # of one round
        ratio = row["ms"]["median"] / by_name[base]["ms"]["median"]
        assert row["against_eager"]["median"] == pytest.approx(ratio)
        assert row["gate_passed"] is None  # a gate says nothing of random weights
    ours = [row for row in rows if row["graph"] == "ours"]
    assert step["weights"] == "random"
    assert step["fastest"] == min(ours, key=lambda row: float(row["ms"]["median"]))["name"]
    assert step["reason"].startswith(f"{step['fastest']}: ")
    assert "the best of the naive export: naive fp32" in step["reason"]


def test_a_slow_first_step_is_all_of_a_turn(cpu_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []

    def step(seconds: float) -> None:
        clock[0] += seconds
        calls.append(seconds)

    monkeypatch.setattr(cpu_step, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert cpu_step.turn(lambda: step(0.6)) == pytest.approx(600)
    assert len(calls) == 1
    pending = iter((0.4, 0.001, 0.002, 0.003))  # the first finds cold caches
    assert cpu_step.turn(lambda: step(next(pending))) == pytest.approx(2.0)


def test_wrong_input_to_the_step_program(cpu_step: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run_program(cpu_step, monkeypatch, "measure", "--machine", "here", "--models", "full") == 2
    assert "full is not prepared\nrun: python benchmarks/cpu_step.py prepare" in capsys.readouterr().err
    for arguments, said in (
        (("measure", "--machine", "here", "--models", "tiny"), "invalid choice: 'tiny'"),
        (("measure",), "measure needs --machine"),
    ):
        with pytest.raises(SystemExit) as error:
            run_program(cpu_step, monkeypatch, *arguments)
        assert error.value.code == 2
        assert said in capsys.readouterr().err

    def lacks() -> None:
        raise UserError("torch.onnx.export needs onnxscript, which is not installed", "pip install onnxscript")

    monkeypatch.setattr(cpu_step, "require_exporter", lacks)
    assert run_program(cpu_step, monkeypatch, "prepare") == 2
    assert "needs onnxscript" in capsys.readouterr().err


def test_what_the_exporter_lacks(cpu_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    naive = sys.modules["naive"]
    monkeypatch.setattr(naive, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    with pytest.raises(UserError, match="needs onnxscript, which is not installed\npip install onnxscript"):
        naive.require_exporter()


# -- halting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cpu_halting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    program = load_program("cpu_halting", tmp_path, monkeypatch)
    for name, value in (("SLOTS", 4), ("COLD_STARTS", 2)):
        monkeypatch.setattr(program, name, value)
    # one thread count instead of two: each is a model that OpenVINO compiles
    monkeypatch.setattr(program, "candidates", lambda *given, batch: candidates(*given, 1, batch=batch))
    return program


SMALL = ("--machine", "here", "--rounds", "1", "--puzzles", "2", "--in-slots", "8")


@pytest.mark.slow
def test_the_halting_program(cpu_halting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The shipped model on few puzzles: shares, steps and ratios agree; limits decide the exit code."""
    monkeypatch.setattr(cpu_halting, "LIMIT_SOLVED", 1e9)
    monkeypatch.setattr(cpu_halting, "LIMIT_REFILL", 0.0)
    assert run_program(cpu_halting, monkeypatch, *SMALL) == 0
    said = capsys.readouterr()
    assert "missed" not in said.err
    report = read_json(tmp_path / "benchmarks" / "results" / "here" / "cpu-halting-sudoku-nano.json")
    assert [row["set"] for row in report["sets"]] == ["the package's own, minimal", "calibration set, easy to extreme"]
    assert report["way_one_at_a_time"].startswith(("fp32, ", "int8, "))
    assert 0 < report["cold_start_s"]["next"]["min"] <= report["cold_start_s"]["next"]["median"]
    for row in report["sets"]:
        check_halting(row["one_at_a_time"], row["slots"], report["steps"])
    monkeypatch.setattr(cpu_halting, "run", lambda options: report)
    monkeypatch.setattr(cpu_halting, "LIMIT_SOLVED", 0.0)
    assert run_program(cpu_halting, monkeypatch, *SMALL) == 1
    assert "missed: wanted at most 0.0 per solved puzzle" in capsys.readouterr().err


def check_halting(one: dict[str, Any], many: dict[str, Any], steps: int) -> None:
    assert (one["puzzles"], many["puzzles"]) == (2, 8)
    for share in (one["right"], one["eager_right"], many["right"], many["fixed_right"]):
        assert 0 <= share <= 1
    assert 1 <= one["mean_steps_of_solved"] <= one["mean_steps"] <= steps
    assert 1 <= many["mean_steps"] <= steps
    for ratio, ours, theirs in (
        (one["ratio"], one["ms_per_solved"], one["eager_ms_per_solved"]),
        (one["ratio_solved"], one["solved_ms"], one["eager_ms"]),
        (many["ratio"], many["refill_per_s"], many["fixed_per_s"]),
    ):
        assert ratio["median"] == pytest.approx(ours["median"] / theirs["median"])  # of one round
    assert one["eager_ms_per_solved"]["median"] * one["eager_right"] == pytest.approx(one["eager_ms"]["median"])


def test_wrong_input_to_the_halting_program(
    cpu_halting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run_program(cpu_halting, monkeypatch, *SMALL, "--model", "sudoku-tiny") == 2
    assert "error: sudoku-tiny is no artifact: manifest.json is missing" in capsys.readouterr().err
    assert run_program(cpu_halting, monkeypatch, *SMALL, "--model", "sudoku-nano-int8") == 2
    assert "its float32 weights are gone" in capsys.readouterr().err
    assert not (tmp_path / "benchmarks").exists()


def test_an_artifact_that_fails_its_gate_is_left_out(cpu_halting: Any, tmp_path: Path, capsys: Any) -> None:
    shipped = zoo.folder_of("sudoku-nano")
    assert shipped is not None
    failed = tmp_path / "failed"
    shutil.copytree(shipped, failed)
    raw = json.loads((failed / MANIFEST).read_text())
    write_json(failed / MANIFEST, {**raw, "gate": {**raw["gate"], "passed": False, "failures": ["too bad"]}})
    way, precision = cpu_halting.fastest([failed, shipped], 1)
    assert precision == "fp32"
    assert way.step_ms > 0
    assert "failed fails its gate: left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="no artifact passes its gate"):
        cpu_halting.fastest([failed], 1)


def test_a_model_that_solves_nothing_has_no_time_per_solved_puzzle(
    cpu_halting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    torch.manual_seed(0)
    sizes = {"vocab": 6, "seq_len": 16, "grid": (4, 4, 2, 2), "hidden": 32, "heads": 2, "max_steps": 2}
    model = HRM(variant_spec("nano", **sizes, grid_heads=False)).eval()
    info = ArtifactInfo(task="mini-sudoku", spec=model.spec, from_artifact={})
    export(model, info, tmp_path / "untrained", precision="fp32", limits=Limits(puzzles=16))
    assert run_program(cpu_halting, monkeypatch, *SMALL, "--model", str(tmp_path / "untrained")) == 2
    assert "hrm-edge solves none of the puzzles" in capsys.readouterr().err


def test_the_published_loop_is_the_sessions(cpu_halting: Any) -> None:
    """What halting is held against answers as the artifact does when it takes all the steps."""
    shipped = zoo.folder_of("sudoku-nano")
    assert shipped is not None
    model, info = recover(shipped)
    task = get_task(info.task)
    puzzles = cpu_halting.sets_of(task)["calibration set, easy to extreme"].head(2)
    answers = cpu_halting.fixed_in_torch(model, puzzles.givens)
    session, _ = open_artifact(shipped, backend="onnxruntime")
    expected = solve(session, task, puzzles.givens, halt="fixed", slots=2)
    assert (answers == expected.answers).mean() > 0.99
    assert cpu_halting.right(answers, puzzles) == pytest.approx(float((answers == puzzles.labels).all(1).mean()))
    assert cpu_halting.right(np.asarray(puzzles.labels), puzzles) == 1.0


# -- share solved against milliseconds -------------------------------------------------------------------------------


def test_the_anytime_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every way solves each puzzle alone; its curve never falls, and ends at what was solved."""
    program = load_program("anytime", tmp_path, monkeypatch)
    data = str(sample_file("sudoku"))
    ways = ("--way", "sudoku-nano", "--way", "sudoku-nano,steps=4,guesses=2")
    small = ("--data", data, "--machine", "here", "--puzzles", "3", "--budget", "1.0")
    assert run_program(program, monkeypatch, *small, *ways, "--plot", str(tmp_path / "plot.png")) == 0
    report = read_json(tmp_path / "benchmarks" / "results" / "here" / f"anytime-{Path(data).name.split('.')[0]}.json")
    assert [line["way"] for line in report["ways"]] == [*ways[1::2]]
    for line in report["ways"]:
        assert line["solved"] == len(line["solved_ms"]) <= 3
        assert line["solved_ms"] == sorted(line["solved_ms"])
        counts = list(line["solved_by_ms"].values())
        assert counts == sorted(counts)
        assert all(count == sum(ms <= int(mark) for ms in line["solved_ms"])
                   for mark, count in line["solved_by_ms"].items())  # fmt: skip
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "1000 ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("sudoku-nano,stpes=8", "'stpes=8' is no option of a way"),
        ("sudoku-nano,steps=many", "'steps=many' is no option of a way"),
    ],
)
def test_a_wrong_way_is_refused_before_anything_runs(
    way: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    program = load_program("anytime", tmp_path, monkeypatch)
    data = str(sample_file("sudoku"))
    assert run_program(program, monkeypatch, "--data", data, "--machine", "here", "--way", way) == 2
    assert what in capsys.readouterr().err


def test_a_results_file_names_no_place_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--data", str(tmp_path / "a.csv"), "--plot", "docs/b.png"])
    program = importlib.import_module("program")
    assert program.command_line() == "python benchmarks/x.py --data a.csv --plot docs/b.png"
    commands = [read_json(path).get("command", "") for path in (ROOT / "benchmarks" / "results").glob("*/*.json")]
    assert any(commands)
    assert not [c for c in commands if any(Path(word).is_absolute() for word in c.split())]
