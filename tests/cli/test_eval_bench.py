"""``hrm-edge eval`` and ``bench`` from end to end on a real artifact and a real checkpoint, and what they refuse."""

from __future__ import annotations

import json

import pytest

from hrm_edge.report.schema import BenchReport, EvalReport
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from tests.artifacts import rounds_needed, write_singles_artifact

MINI = Sudoku(2, 2)
VERBS = ["eval", "bench"]


def needed(mini) -> list[int]:
    return [rounds_needed(MINI, MINI.parse(line)) for line in (mini / "plain.txt").read_text().split()]


@pytest.mark.parametrize("name", ["answered.csv", "plain.txt"])
def test_eval_answers_all_with_the_files_answers_or_the_solvers(run, mini, name):
    done = run("eval", mini / "model", "--data", mini / name, "--json", "-", "--threads", 1)
    assert done.code == 0
    report = EvalReport.model_validate_json(done.out)
    assert (report.count, report.exact_accuracy, report.verified, report.false_verified) == (12, 1.0, 12, 0)
    assert report.mean_steps == sum(needed(mini)) / 12
    assert report.data.answers == ("data" if name == "answered.csv" else "solver")
    assert report.engine.threads == 1
    assert report.model.kind == "artifact"
    assert "exact accuracy" in done.err  # the table makes room for the JSON
    assert done.err.splitlines()[-1].startswith("Next: hrm-edge bench ")


@pytest.mark.parametrize("verb", VERBS)
def test_files_as_people_have_them(run, mini, tmp_path, verb):
    """What it was taken for is in the report; of a limited file no more is read, so its fourth line is no fault."""
    lines = (mini / "plain.txt").read_text().split()
    answer = MINI.format(require_unique(MINI, MINI.parse(lines[0])))
    file = tmp_path / "kaggle.csv"
    file.write_bytes(f"quizzes,solutions\n{lines[0]},{answer}\n{lines[1]},\nno puzzle\n".encode("utf-16"))
    measured = () if verb == "eval" else ("--duration", "1s", "--power", "none")
    done = run(verb, mini / "model", "--data", file, "--limit", 2, "--json", "-", *measured)
    assert done.code == 0, done.err
    data = json.loads(done.out)["data"]
    assert (data["puzzles"], data["answers"]) == (2, "data and solver")
    assert data["read_as"] == "CSV, columns quizzes and solutions, UTF-16"
    assert f"{file}: read as CSV, columns quizzes and solutions, UTF-16" in done.err
    done = run(verb, mini / "model", "--data", file, *measured)
    assert done.code == 2
    assert "kaggle.csv, line 4, column 9: 1 fields, the header has 2" in done.err


def test_eval_reports_by_views(run, mini, tmp_path):
    file = tmp_path / "out" / "eval.json"
    done = run(
        "eval", mini / "model", "--data", mini / "answered.csv", "--views", 5, "--max-steps", 2, "--json", file,
        "--markdown", tmp_path / "eval.md", "--halt", "fixed", "--limit", 10,
    )  # fmt: skip
    assert done.code == 0
    report = json.loads(file.read_text())
    solvable = sum(steps <= 2 for steps in needed(mini)[:10])
    assert 0 <= solvable < 10
    assert report["verified"] == solvable  # no symmetry makes a deduction shorter
    assert report["exact_accuracy"] == solvable / 10
    assert [at["views"] for at in report["by_views"]] == [1, 4, 5]
    assert report["by_views"][0]["mean_steps"] == 2
    assert report["mean_steps"] == (2 * solvable + 10 * (10 - solvable)) / 10
    assert (report["views"], report["halt"], report["max_steps"], report["count"]) == (5, "fixed", 2, 10)
    assert "| 4 | " in (tmp_path / "eval.md").read_text()
    assert f"Report: {file}" in done.out
    assert done.out.splitlines()[-1] == f"Next: hrm-edge bench {mini / 'model'} --data {mini / 'answered.csv'}"


def test_eval_is_the_same_whatever_the_slots(run, mini):
    reports = []
    for slots in (1, 7):
        arguments = ("--views", 3, "--max-steps", 3, "--halt", "head", "--seed", 4, "--slots", slots, "--json", "-")
        report = json.loads(run("eval", mini / "model", "--data", mini / "plain.txt", *arguments).out)
        assert report["engine"]["slots"] == slots
        reports.append({key: report[key] for key in ("verified", "steps_histogram", "by_views", "mean_views")})
    assert reports[0] == reports[1]


def test_bench_single_stream(run, mini, tmp_path):
    file = tmp_path / "bench.json"
    done = run(
        "bench",
        mini / "model",
        "--data",
        mini / "answered.csv",
        "--duration",
        "0.2s",
        "--power",
        "none",
        "--json",
        file,
    )
    assert done.code == 0
    report = BenchReport.model_validate_json(file.read_text())
    assert report.scenario == "single-stream"
    assert report.queries >= 64
    assert report.duration_s >= 0.2
    assert (report.count, report.exact_accuracy, report.engine.slots, report.mean_batch) == (12, 1.0, 1, 1)
    assert 0 < report.step_latency_ms.min <= report.latency_ms.min <= report.latency_ms.p50 <= report.latency_ms.p99
    assert report.throughput_per_s == report.solved_per_s
    assert sum(report.steps_histogram.values()) == 12
    assert report.energy_j_per_puzzle is None
    assert report.energy_reason
    assert report.cold_start is not None
    assert report.command.startswith("hrm-edge bench model --data answered.csv")
    assert report.parity[0]["carry_cosine"] == 1
    assert done.out.splitlines()[-1] == f"Next: hrm-edge bench --compare {file} OTHER.json"


def test_bench_offline(run, mini):
    arguments = ("--scenario", "offline", "--slots", 4, "--duration", "0.1s", "--power", "none", "--json", "-")
    report = BenchReport.model_validate_json(run("bench", mini / "model", "--data", mini / "plain.txt", *arguments).out)
    assert (report.scenario, report.count, report.engine.slots) == ("offline", 12, 4)
    assert report.queries % 12 == 0
    assert 1 < report.mean_batch <= 4
    assert report.power.reason == "not asked for (--power none)"


def test_a_checkpoint_runs_on_torch(run, trained):
    done = run("eval", trained, "--data", trained.parent / "data", "--limit", 6, "--json", "-")
    assert done.code == 0, done.err
    report = EvalReport.model_validate_json(done.out)
    assert (report.count, report.model.kind, report.engine.backend) == (6, "checkpoint", "torch-cpu")
    assert report.false_verified == 0
    assert report.engine.version == report.device.versions["torch"]
    assert "hrm-edge export" in done.err.splitlines()[-1]
    done = run("bench", trained, "--data", trained.parent / "data", "--duration", "0.1s", "--json", "-")
    assert BenchReport.model_validate_json(done.out).parity == []


def test_paired_with_another_model(run, mini, trained):
    done = run("eval", mini / "model", "--data", mini / "answered.csv", "--paired", trained, "--json", "-")
    assert done.code == 0, done.err
    paired = EvalReport.model_validate_json(done.out).paired
    assert paired is not None
    assert (paired.model.kind, paired.backend) == ("checkpoint", "torch-cpu")
    assert paired.exact_accuracy < 1  # the singles solver is right on all twelve
    assert (paired.only_other, paired.only_this) == (0, round(12 * (1 - paired.exact_accuracy)))
    assert paired.lost_points == pytest.approx(-100 * paired.only_this / 12)
    assert paired.lost_points_interval_95[0] < paired.lost_points < paired.lost_points_interval_95[1]
    assert "exact accuracy lost" in done.err


def test_an_artifact_that_failed_its_gate_is_announced(run, mini, tmp_path):
    folder = write_singles_artifact(tmp_path / "failed", MINI, gate_passed=False)
    done = run("eval", folder, "--data", mini / "plain.txt")
    assert done.code == 0
    assert f"Warning: {folder} failed its export gate: too bad" in done.err


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_missing_things(run, mini, inside, verb):
    (inside / "empty").mkdir()
    for model, words in (
        ("nothing", "no model 'nothing': there is no such folder or file"),
        ("empty", "the folder has neither manifest.json, checkpoint.json, checkpoints/ nor all_config.yaml"),
        ("nano", "'nano' is a variant without weights"),
    ):
        done = run(verb, model, "--data", mini / "plain.txt")
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert "a model is an artifact folder" in done.err
    done = run(verb, mini / "model", "--data", "nothing.csv")
    assert (done.code, done.out) == (2, "")
    assert "nothing.csv: No such file or directory" in done.err


def test_eval_needs_data_and_bench_has_the_packages_own(run, mini):
    assert "Missing option '--data'" in run("eval", mini / "model").err
    done = run("bench", mini / "model", "--duration", "0.1s", "--json", "-")
    assert done.code == 0
    assert json.loads(done.out)["data"]["puzzles"] == 256


@pytest.mark.parametrize("verb", VERBS)
def test_a_torn_artifact(run, mini, tmp_path, verb):
    folder = write_singles_artifact(tmp_path / "torn", MINI)
    data = bytearray((folder / "step.onnx").read_bytes())
    data[-9] ^= 1
    (folder / "step.onnx").write_bytes(bytes(data))
    done = run(verb, folder, "--data", mini / "plain.txt")
    assert (done.code, done.out) == (2, "")
    assert f"{folder / 'step.onnx'}: hash mismatch, sha256 is " in done.err
    assert "run 'hrm-edge export' again" in done.err


@pytest.mark.parametrize("verb", VERBS)
def test_data_of_another_task_and_bad_puzzles(run, mini, tmp_path, verb):
    for text, words in (
        ("0" * 81, "81"),
        ("1100000000000000", "contradictory givens: two 1s in row 1"),
        ("1000000000000000", "the puzzle has several solutions"),
        ("", "holds no puzzles"),
    ):
        (tmp_path / "p.txt").write_text(text + "\n")
        done = run(verb, mini / "model", "--data", tmp_path / "p.txt")
        assert (done.code, done.out) == (2, ""), words
        assert words in done.err
        assert "p.txt" in done.err


@pytest.mark.parametrize("verb", VERBS)
def test_an_unwritable_file_is_refused_before_the_work(run, mini, tmp_path, verb):
    """The model does not even exist: the file is looked at first."""
    (tmp_path / "file").write_text("")
    for target, words in ((tmp_path, "it is a folder"), (tmp_path / "file" / "x.json", "a file stands")):
        done = run(verb, "nothing", "--data", mini / "plain.txt", "--json", target)
        assert done.code == 2
        assert f"--json {target}" in done.err
        assert "choose another file with --json" in done.err
        assert "no model" not in done.err
        assert words in done.err or "Not a directory" in done.err or "File exists" in done.err


def test_slots_without_a_batch(run, mini):
    done = run("bench", mini / "model", "--data", mini / "plain.txt", "--slots", 4)
    assert done.code == 2
    assert "--slots is for --scenario offline" in done.err


def test_threads_of_a_checkpoint(run, trained):
    done = run("eval", trained, "--data", trained.parent / "data", "--threads", 1)
    assert done.code == 2
    assert "is a checkpoint, which torch runs" in done.err


def test_a_checkpoint_without_torch(run, trained, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("hrm_edge.model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    done = run("eval", trained, "--data", trained.parent / "data")
    assert done.code == 2
    assert f"{trained} is a checkpoint, which needs torch" in done.err
    assert "pip install 'hrm-edge[train]', or export it" in done.err


@pytest.mark.parametrize("text", ["10", "5 s", "s", "-1s", "1d"])
def test_a_duration_without_sense(run, mini, text):
    done = run("bench", mini / "model", "--data", "x", "--duration", text)
    assert done.code == 2
    assert f"'{text}' is no duration: write 200ms, 90s, 30m, 2h or 1h30m" in done.err
