"""``hrm-edge bench`` beyond one report: protocols, pages, reports side by side, sweeps, strictness, a reference."""

from __future__ import annotations

import contextlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hrm_edge import load
from hrm_edge.api.measure import _own_float32
from hrm_edge.bench.protocol import read_protocol
from hrm_edge.files import read_json, write_json
from hrm_edge.report.read import read_bench
from hrm_edge.report.schema import BenchReport, Sweep
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import write_singles_artifact

MINI = Sudoku(2, 2)
PROTOCOLS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "protocols").glob("*.yaml"))
QUICK = ("--duration", "0.05s", "--power", "none")


@pytest.fixture(scope="session")
def reported(mini, tmp_path_factory):
    """Two reports of one model under the same options: ``a.json`` and ``b.json``."""
    from hrm_edge.cli import main as frame

    folder = tmp_path_factory.mktemp("reported")
    for name in ("a", "b"):
        arguments = ["bench", mini / "model", "--data", mini / "plain.txt", *QUICK, "--json", folder / f"{name}.json"]
        assert frame.main([str(argument) for argument in arguments]) == 0
    return folder


def changed(source: Path, target: Path, **fields: object) -> Path:
    """A report with some fields replaced; ``a__b`` is ``b`` within ``a``."""
    raw = read_json(source)
    for name, value in fields.items():
        *path, last = name.split("__")
        place = raw
        for key in path:
            place = place[key]
        place[last] = value
    write_json(target, raw)
    return target


# -- the page -----------------------------------------------------------------------------------------------------


def svgs(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_page_needs_nothing_else_and_holds_the_report(run, mini, tmp_path):
    page_file = tmp_path / "out" / "page.html"
    arguments = ("--data", mini / "plain.txt", *QUICK, "--html", page_file, "--json", tmp_path / "r.json")
    assert run("bench", mini / "model", *arguments).code == 0
    page = page_file.read_text()
    drawn = svgs(page)
    assert len(drawn) == 5  # no power was measured, so that plot is not there
    titles = "".join("".join(text.itertext()) for text in drawn)
    for title in ("Latency distribution", "Latency over time", "Steps per puzzle", "Stages of a puzzle", "Roofline"):
        assert title in titles
    assert "prediction, not measured" in titles
    (roofline,) = (one for one in drawn if "Roofline" in "".join(one.itertext()))
    axes, legend = (f".//{{*}}g[@id='{name}']" for name in ("axes_1", "legend_1"))
    assert roofline.find(legend) is not None
    assert roofline.find(axes).find(legend) is None  # beside the axes, where no line is
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page)  # nothing is fetched
    assert not re.search(r"url\((?!#)", page)
    assert 'name="viewport"' in page
    data = re.search(r'<script type="application/json" id="reports">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == [read_json(tmp_path / "r.json")]


# -- compare --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def side_by_side(reported):
    """``c.json``, ``c.md`` and ``c.html`` of a report and a slower one whose model's name is no good text; stdout."""
    from hrm_edge.cli import main as frame

    fields = {"latency_ms__p90": 1e3, "model__precision": "int8", "model__name": EVIL}
    slower = changed(reported / "b.json", reported / "slow.json", **fields)
    files = [word for kind in ("json", "markdown", "html") for word in (f"--{kind}", reported / f"c.{kind}")]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert frame.main([str(word) for word in ("bench", "--compare", reported / "a.json", slower, *files)]) == 0
    return out.getvalue()


EVIL = "</script><script>alert(1)</script><b>"


def test_reports_side_by_side(side_by_side, reported):
    table = read_json(reported / "c.json")
    assert [row["speed_against_first"] < 0.5 for row in table["reports"]] == [False, True]
    assert table["regressions"] == []
    assert "singles fp32, onnxruntime-cpu" in (reported / "c.markdown").read_text()
    assert "Accuracy against time" in (reported / "c.html").read_text()
    assert side_by_side.splitlines()[-1].endswith("--max-regression 10")


def test_text_of_users_cannot_break_the_page(side_by_side, reported):
    page = (reported / "c.html").read_text()
    assert page.count("<script") == page.count("</script>") == 1
    assert "alert(1)" in page
    assert "<b>alert" not in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"latency_ms__p90": 1e3}, "slower, the limit is 10%"),
        ({"exact_accuracy": 0.5}, "exact accuracy is 50.00 points lower"),
        ({"energy_j_per_puzzle": 0.3}, "200.0% more energy per puzzle"),
    ],
)
def test_a_regression_fails_the_gate_and_is_named(run, reported, tmp_path, fields, words):
    base = changed(reported / "a.json", tmp_path / "base.json", energy_j_per_puzzle=0.1)
    same = changed(reported / "a.json", tmp_path / "same.json", energy_j_per_puzzle=0.1)
    assert run("bench", "--compare", base, same, "--max-regression", 10).code == 0
    worse = changed(same, tmp_path / "worse.json", **fields)
    done = run("bench", "--compare", base, worse, "--max-regression", 10)
    assert done.code == 1
    assert words in done.err
    assert run("bench", "--compare", base, worse).code == 0  # no gate was asked for


def test_times_of_other_machines_are_shown_but_not_judged(run, reported, tmp_path):
    other = changed(reported / "b.json", tmp_path / "o.json", device__cpu="another", latency_ms__p90=1e4)
    done = run("bench", "--compare", reported / "a.json", other, "--max-regression", 10, "--json", tmp_path / "c.json")
    assert done.code == 0
    assert "another machine or power mode" in read_json(tmp_path / "c.json")["not_judged"][0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"halt": "fixed"}, "halting (rules and fixed)"), ({"views": 4}, "views (1 and 4)"),
     ({"data__sha256": "other"}, "puzzles ("), ({"scenario": "offline"}, "scenario (single-stream and offline)")],
)  # fmt: skip
def test_reports_of_different_protocols_are_refused_by_name(run, reported, tmp_path, fields, words):
    other = changed(reported / "b.json", tmp_path / "other.json", **fields)
    done = run("bench", "--compare", reported / "a.json", other, "--json", tmp_path / "c.json")
    assert (done.code, done.out) == (2, "")
    assert f"{reported / 'a.json'} and {other} were not measured alike: " in done.err.replace("\n", "")
    assert words in done.err
    assert not (tmp_path / "c.json").exists()


def test_files_that_are_no_reports(run, reported, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    for file, words in (
        (tmp_path / "x.json", "is no bench report"),
        (changed(reported / "a.json", tmp_path / "old.json", schema_version=1), "schema_version is 1"),
        (changed(reported / "a.json", tmp_path / "bad.json", queries="many"), "queries: Input should be a valid int"),
        (changed(reported / "a.json", tmp_path / "more.json", extra=1), "extra: Extra inputs are not permitted"),
        (tmp_path / "nothing.json", "No such file"),
    ):
        done = run("bench", "--compare", reported / "a.json", file)
        assert done.code == 2, words
        assert words in done.err
    assert "needs two reports" in run("bench", "--compare", reported / "a.json").err


# -- protocols ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_every_protocol_is_valid_and_says_its_command(path):
    protocol, digest = read_protocol(path)
    assert protocol.name == path.stem
    assert len(digest) == 64
    assert f"--protocol benchmarks/protocols/{path.name}" in path.read_text().splitlines()[0]


def test_a_protocol_sets_what_the_command_line_does_not(run, mini, tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\nabout: a\nscenario: offline\nduration: 0.05\nslots: 4\nviews: 2\n")
    arguments = ("--data", mini / "plain.txt", "--power", "none", "--protocol", tmp_path / "p.yaml", "--json", "-")
    report = BenchReport.model_validate_json(run("bench", mini / "model", *arguments).out)
    assert (report.scenario, report.engine.slots, report.views) == ("offline", 4, 2)
    assert report.protocol is not None
    assert (report.protocol.name, report.protocol.changed) == ("p", {})
    report = BenchReport.model_validate_json(run("bench", mini / "model", *arguments, "--views", 3).out)
    assert report.protocol is not None
    assert (report.views, report.protocol.changed) == (3, {"views": 3})


@pytest.mark.parametrize(
    ("text", "words"),
    [("name: p\nabout: a\nscenario: offline\nduration: 1\nslotz: 4\n", "slotz: Extra inputs are not permitted\n"),
     ("name: p\nabout: a\nscenario: server\nduration: 1\n", "scenario: Input should be"), ("a: [", "is not valid YAML"),
     ("name: p\nabout: a\nscenario: camera\nduration: -1\n", "duration: Input should be greater than 0")],
)  # fmt: skip
def test_a_protocol_that_is_wrong(run, mini, tmp_path, text, words):
    (tmp_path / "p.yaml").write_text(text)
    done = run("bench", mini / "model", "--protocol", tmp_path / "p.yaml")
    assert done.code == 2
    assert words in done.err


# -- one report, other ways -----------------------------------------------------------------------------------------


def test_camera(run, mini):
    arguments = ("--data", mini / "plain.txt", "--scenario", "camera", "--fps", 500, *QUICK, "--json", "-")
    report = BenchReport.model_validate_json(run("bench", mini / "model", *arguments).out)
    assert report.pace is not None
    assert report.pace.frames == report.queries + report.pace.dropped
    assert report.exact_accuracy == 1


@pytest.mark.parametrize("name", ["sudoku-nano-int8", "sudoku-nano-fp16"])
def test_a_shipped_models_own_float32_is_found(name):
    """It was exported from the float32 artifact, not from the checkpoint, and says so."""
    assert _own_float32(load(name)) == "sudoku-nano"
    assert _own_float32(load("sudoku-nano")) is None


def test_against_a_reference_in_the_same_run(run, mini, tmp_path):
    half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
    arguments = ("--data", mini / "plain.txt", *QUICK, "--reference", mini / "model", "--json", "-")
    report = BenchReport.model_validate_json(run("bench", half, *arguments).out)
    assert report.reference is not None
    assert [at.steps for at in report.reference.at] == [1, 4, 16]
    assert report.reference.at[-1].logits_sqnr_db > 40
    assert report.reference.at[-1].same_answers == 1
    plain = BenchReport.model_validate_json(run("bench", half, *arguments[:-4], "--json", "-").out)
    assert (plain.reference, plain.reference_reason) == (None, "no float32 artifact was named (--reference)")
    done = run("bench", mini / "model", *arguments[:-3], half)
    assert (done.code, f"--reference {half} is fp16" in done.err) == (2, True)


def test_strict_refuses_a_machine_that_is_not_ready(run, mini, monkeypatch, tmp_path):
    monkeypatch.setattr("hrm_edge.bench.run.warnings_before", lambda state, system: ["clocks are not locked"])
    arguments = ("--data", mini / "plain.txt", *QUICK, "--json", tmp_path / "r.json")
    done = run("bench", mini / "model", *arguments, "--strict")
    assert (done.code, (tmp_path / "r.json").exists()) == (2, False)
    assert "--strict: clocks are not locked" in done.err
    done = run("bench", mini / "model", *arguments)
    assert done.code == 0
    assert "clocks are not locked" in read_json(tmp_path / "r.json")["warnings"]
    assert "Warnings" in done.out


def test_strict_fails_a_run_that_was_disturbed_and_keeps_its_report(run, mini, monkeypatch, tmp_path):
    monkeypatch.setattr("hrm_edge.bench.run.warnings_before", lambda state, system: [])
    monkeypatch.setattr("hrm_edge.bench.run.warnings_after", lambda before, after: ["throttled: 3 events"])
    arguments = ("--data", mini / "plain.txt", *QUICK, "--json", tmp_path / "r.json", "--strict")
    done = run("bench", mini / "model", *arguments)
    assert done.code == 1
    assert "throttled: 3 events" in done.err
    assert "throttled: 3 events" in read_json(tmp_path / "r.json")["warnings"]


# -- sweeps ---------------------------------------------------------------------------------------------------------


def test_a_sweep_of_precision(run, mini, tmp_path):
    half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
    arguments = ("--sweep", "precision", "--data", mini / "plain.txt", "--limit", 5, *QUICK, "--json", "-")
    done = run("bench", mini / "model", half, *arguments)
    assert done.code == 0, done.err
    found = Sweep.model_validate_json(done.out)
    assert [(point.model.precision, point.count) for point in found.points] == [("fp32", 5), ("fp16", 5)]


def test_one_model_without_float_weights_has_no_precisions(run, mini, tmp_path):
    rounded = write_singles_artifact(tmp_path / "rounded", MINI, precision="int8")
    done = run("bench", rounded, "--sweep", "precision", "--data", mini / "plain.txt", *QUICK)
    assert (done.code, done.out) == (2, "")
    assert "--sweep precision: fp32 cannot be exported: Error: " in done.err
    assert "is an INT8 artifact: its float32 weights are gone\n  name an artifact for each precision" in done.err


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three exports with their gates, six minutes of one core, and a report each
def test_a_sweep_of_a_shipped_models_precisions(run, tmp_path):
    done = run("bench", "sudoku-nano", "--sweep", "precision", "--limit", 16, *QUICK, "--json", tmp_path / "s.json")
    assert done.code == 0, done.err
    found = Sweep.model_validate(read_json(tmp_path / "s.json"))
    assert [point.model.precision for point in found.points] == ["fp32", "fp16", "int8"]


@pytest.mark.slow  # eight processes
def test_a_sweep_of_precision_and_batch(run, mini, tmp_path):
    half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
    arguments = ("--sweep", "precision,batch", "--scenario", "offline", "--data", mini / "plain.txt", *QUICK)
    files = ("--json", tmp_path / "s.json", "--html", tmp_path / "s.html")
    done = run("bench", mini / "model", half, *arguments, *files)
    assert done.code == 0, done.err
    found = Sweep.model_validate(read_json(tmp_path / "s.json"))
    points = [(point.model.precision, point.engine.slots) for point in found.points]
    assert points == [(precision, slots) for precision in ("fp32", "fp16") for slots in (1, 4, 16, 64)]
    assert (found.axes, found.failed) == (["precision", "batch"], {})
    assert all(point.cold_start is not None and point.cold_start.total_ms > 0 for point in found.points)
    assert len(read_bench(tmp_path / "s.json")) == 8
    assert "8 reports side by side" in (tmp_path / "s.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--sweep", "precison"], "there is no axis 'precison'\n  did you mean 'precision'"),
     (["--sweep", "batch"], "--sweep batch is for --scenario offline"),
     (["--sweep", "power-mode"], "this machine has no nvpmodel modes"),
     (["--calibration", "x"], "--calibration is for --sweep"), (["--max-regression", "5"], "is for --compare")],
)  # fmt: skip
def test_what_cannot_be_swept(run, mini, arguments, words):
    done = run("bench", mini / "model", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_one_model_at_a_time(run, mini):
    done = run("bench", mini / "model", mini / "model")
    assert done.code == 2
    assert "one model at a time, not 2" in done.err
