"""The report's schema, its figures and its renderings."""

from __future__ import annotations

import io
import json

import pytest
from pydantic import ValidationError

from hrm_edge.device.identity import Device
from hrm_edge.device.state import read_state
from hrm_edge.files import read_json, write_json
from hrm_edge.report.figures import accuracy_drop, decibels, latency_ms, wilson_95
from hrm_edge.report.schema import AtViews, BenchReport, Data, Engine, EvalReport, ModelInfo, Power, WarmUp
from hrm_edge.report.text import markdown, number, tables
from hrm_edge.terminal import open_console

ANSWERS = {
    "count": 200, "exact_accuracy": 0.985, "exact_accuracy_interval_95": (0.957, 0.995), "verified": 197,
    "false_verified": 0, "mean_steps": 3.5,
}  # fmt: skip
COMMON = {
    **ANSWERS,
    "created": "2026-01-02T03:04:05+00:00",
    "model": ModelInfo(
        name="mini|x", path="a/mini", kind="artifact", task="mini-sudoku", variant="nano", precision="int8",
        parameters=661_761, size_bytes=812_345, sha256="ab", gate_passed=True,
    ),
    "engine": Engine(backend="onnxruntime-cpu", version="1.20", threads=None, slots=1),
    "device": Device(
        machine="NVIDIA Jetson Orin Nano", cpu="ARMv8", cores=6, memory_bytes=8 * 10**9, os="Ubuntu", kernel="5.15",
        architecture="aarch64", python="3.10.12", versions={"numpy": "1.26"},
    ),
    "data": Data(path="data/mini", task="mini-sudoku", puzzles=200, answers="data"),
    "halt": "rules", "max_steps": 16, "views": 4, "seed": 0, "steps_histogram": {3: 150, 5: 50},
}  # fmt: skip
EVAL = EvalReport(
    **COMMON, mean_views=1.2, duration_s=2.0, throughput_per_s=100.0,
    by_views=[AtViews(views=1, **ANSWERS), AtViews(views=4, **{**ANSWERS, "exact_accuracy": 1.0})],
)  # fmt: skip
STATE = read_state()
BENCH = BenchReport(
    **COMMON, command="hrm-edge bench a/mini", scenario="single-stream", queries=500, duration_s=5.0,
    warnings=["[clocks] are not locked"], warm_up=WarmUp(steps=8, seconds=0.1, stable=False),
    latency_ms=latency_ms([0.010, 0.012]), latency_ms_quantiles=[10.0] * 50 + [12.0] * 51, latency_trace=[(2.5, 11.0)],
    step_latency_ms=latency_ms([0.003]), stage_ms={"encode": 0.1, "step": 9.0}, mean_batch=1.0, throughput_per_s=100.0,
    solved_per_s=98.5, power=Power(reason="no meter"), energy_j_per_puzzle=None, energy_j_per_puzzle_net=None,
    energy_j_per_solved=None, energy_j_per_solved_net=None, energy_reason="nothing measured power",
    parity=[{"steps": 1, "logits_sqnr_db": 80.0}, {"steps": 16, "x": 40.25, "y": None}],
    device_before=STATE, device_after=STATE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (50, 100, 0.4038315, 0.5961685), (0, 20, 0.0, 0.1611252), (1, 1, 0.2065493, 1.0)],
)  # worked out with the closed form in exact arithmetic; 8 of 10 and 0 of 20 are textbook examples
def test_wilson_interval(successes, count, low, high):
    assert wilson_95(successes, count) == pytest.approx((low, high), abs=1e-6)


def test_wilson_interval_of_nothing_is_everything():
    assert wilson_95(0, 0) == (0.0, 1.0)
    assert wilson_95(37, 37)[1] == 1.0
    assert wilson_95(0, 37)[0] == 0.0


def test_paired_interval():
    assert accuracy_drop(30, 10, 2000).points == 1.0
    low, high = accuracy_drop(30, 10, 2000).interval_95
    assert low < 1.0 < high
    assert high - low == pytest.approx(2 * 1.96 * 100 * (41 / 2002**2) ** 0.5, rel=0.01)
    low, high = accuracy_drop(0, 0, 2000).interval_95
    assert low < 0.0 < high  # no change seen is no proof of none


def test_decibels():
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert decibels(1.0, 0.0) == decibels(1e30, 1e-30) == 200


def test_latency_is_by_nearest_rank_and_in_ms():
    shuffled = [((7 * k) % 100 + 1) / 1000 for k in range(100)]  # 1 … 100 ms
    found = latency_ms(shuffled)
    assert (found.p50, found.p90, found.p99, found.min) == pytest.approx((50, 90, 99, 1))
    assert found.mean == pytest.approx(50.5)
    one = latency_ms([0.004])
    assert {one.p50, one.p90, one.p99, one.min, one.mean} == {4.0}
    assert latency_ms([0.001, 0.002]).p90 == pytest.approx(2)


@pytest.mark.parametrize("report", [EVAL, BENCH], ids=lambda report: report.kind)
def test_json_round_trip(report, tmp_path):
    write_json(tmp_path / "r.json", report.model_dump(mode="json"))
    raw = read_json(tmp_path / "r.json")
    assert type(report).model_validate(raw) == report
    assert raw["schema_version"] == {"hrm-edge eval": 1, "hrm-edge bench": 2}[report.kind]
    assert raw["steps_histogram"] == {"3": 150, "5": 50}


def test_a_report_carries_no_folders_of_the_machine():
    def data(path: str) -> str:
        return Data(path=path, task="sudoku", puzzles=1, answers="data").path

    assert (data("/home/ann/sets/easy.csv"), data("/home/ann/built/")) == ("easy.csv", "built")
    assert data("sets/easy.csv") == "sets/easy.csv"
    command = "hrm-edge bench /home/ann/a --data=/home/ann/d.csv --power none --json '/x/a b.json'"
    made = BenchReport(**{**BENCH.model_dump(), "command": command})
    assert made.command == "hrm-edge bench a --data=d.csv --power none --json 'a b.json'"
    assert BenchReport.model_validate(made.model_dump()) == made


def test_contract_keys():
    bench = json.loads(BENCH.model_dump_json())
    assert set(bench["latency_ms"]) == {"p50", "p90", "p99", "mean", "min"}
    assert {"throughput_per_s", "exact_accuracy", "power", "device", "engine", "parity"} <= set(bench)
    assert bench["energy_j_per_puzzle"] is None
    assert bench["energy_reason"] == "nothing measured power"
    assert (bench["power"]["meter"], bench["power"]["power_w_mean"]) == (None, None)
    assert bench["power"]["reason"] == "no meter"
    found = json.loads(EVAL.model_dump_json())
    assert {"count", "exact_accuracy", "verified", "false_verified", "mean_steps", "views"} <= set(found)


def test_the_schema_is_closed():
    with pytest.raises(ValidationError, match="latency_p90"):
        EvalReport(**{**EVAL.model_dump(), "latency_p90": 3})
    with pytest.raises(ValidationError, match="energy_reason"):
        BenchReport(**{k: v for k, v in BENCH.model_dump().items() if k != "energy_reason"})


def rendered(report) -> str:
    console = open_console(width=200, file=io.StringIO())
    for table in tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("render", [rendered, markdown])
def test_renderings_say_what_matters(render):
    bench, found = render(BENCH), render(EVAL)
    for words in (
        "98.50 % (95 %: 95.70 to 99.50)", "197 of 200, 0 of them wrong", "661,761 parameters, 812.3 kB",
        "p50 10, p90 12", "100 puzzles/s, 98.5 solved/s", "never became stable", "– no meter", "after 16 steps",
        "NVIDIA Jetson Orin Nano, 6 cores, 8 GB", "– nothing measured power", "[clocks] are not locked",
        "encode 0.1, step 9",
    ):  # fmt: skip
        assert words in bench
    assert "of them wrong" in found
    assert "100.00 %" in found
    assert "energy" not in found


def test_markdown_is_a_table_that_a_pipe_does_not_break():
    lines = markdown(EVAL).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    main, views = rows[: rows.index("| views | exact accuracy | verified | of them wrong | mean steps |")], rows[-4:]
    assert {line.replace("\\|", "").count("|") for line in main} == {3}
    assert {line.count("|") for line in views} == {6}
    assert "mini\\|x" in markdown(EVAL)
    assert lines[0] == "# hrm-edge eval: mini|x"
    assert "by views" not in rendered(EVAL.model_copy(update={"by_views": EVAL.by_views[:1]}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.148, "0.148"), (4.7, "4.7"), (124.4, "124"), (1234.6, "1,235"), (98765.0, "98,765"), (0.0000123, "0.0000123"),
     (0, "0"), (-3.14159, "-3.14"), (float("nan"), "nan")],
)  # fmt: skip
def test_figures_have_no_exponent(value, text):
    assert number(value) == text


def test_parity_says_what_is_compared_on_which_puzzles_and_whether_it_is_fine():
    """The figures of the shipped INT8 model, which look broken without their puzzles and their limits."""
    row = {"over": "all", "steps": 16, "puzzles": 2000, "logits_sqnr_db": 13.41, "carry_cosine": 0.142,
           "carry_cosine_mean": 0.9622, "same_answers": 0.8475}  # fmt: skip
    shown = markdown(BENCH.model_copy(update={"parity": [row]}))
    assert "after 16 steps on 2,000 puzzles, 84.8% give the same answer" in shown
    assert "states' cosine 0.9622 in the mean and 0.1420 for the worst puzzle" in shown
    assert "within the limits of the export: yes" in shown
    missed = BENCH.model.model_copy(update={"gate_passed": False})
    assert "limits of the export: NO" in markdown(BENCH.model_copy(update={"parity": [row], "model": missed}))
    row = {**row, "over": "both settle", "steps": 1}
    engine = {"held": row, "gate": {"passed": True}}
    shown = markdown(BENCH.model_copy(update={"parity": [], "engine_parity": engine}))
    assert "after 1 step on 2,000 puzzles that both solve" in shown
    assert "within the limits of the engine: yes" in shown
