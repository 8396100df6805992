"""Our figures against independent ones: ONNX Runtime's profiler, the wall clock, a meter's own cost."""

from __future__ import annotations

import json
from unittest.mock import Mock

import onnxruntime
import pytest

from hrm_edge import zoo
from hrm_edge.bench.scenarios import BenchOptions, Solver, single_stream
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.manifest import STEP_FILE
from hrm_edge.power import open_meter
from hrm_edge.power.ina import Ina3221
from hrm_edge.runtime import open_artifact
from hrm_edge.solve import SolveOptions
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file
from tests import machines


@pytest.mark.slow
def test_latency_agrees_with_the_profiler_and_the_wall_clock(tmp_path):
    folder, task, source = zoo.folder_of("sudoku-nano"), get_task("sudoku"), sample_file("sudoku")
    assert folder is not None
    assert source is not None
    session, _ = open_artifact(folder, 1, "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    profiled = onnxruntime.InferenceSession(str(folder / STEP_FILE), options, providers=["CPUExecutionProvider"])
    session._session = profiled  # the same engine, watched
    givens = load_puzzles(source, task, 16)
    measured = single_stream(
        Solver(session, task, SolveOptions(max_steps=16, slots=1)),
        givens,
        BenchOptions(duration_s=3.0),
        lambda share: None,
    )
    events = json.loads((tmp_path / profiled.end_profiling()).read_text())
    runs = [event["dur"] / 1e6 for event in events if event["name"] == "model_run"]
    assert len(runs) == len(measured.timed.step_s)
    assert sum(measured.timed.step_s) == pytest.approx(sum(runs), rel=0.05)
    assert sum(measured.latency_s) == pytest.approx(measured.duration_s, rel=0.05)


def test_a_meter_reads_the_two_files_of_every_rail_and_nothing_else(tmp_path):
    """Which costs less than 1% of a core at 20 readings a second (0.2 ms each, beside much other work)."""
    meter = open_meter("ina3221", machines.agx_orin(tmp_path).system, on_cpu=False).meter
    assert isinstance(meter, Ina3221)
    assert meter.period_s == 0.05
    counting = Mock(wraps=meter.system)
    meter.system = counting
    assert len(meter.read().rails_w) == len(meter._rails) == 4
    wanted = {path for rail in meter._rails for path in (rail.millivolts, rail.milliamperes)}
    assert [name for name, _, _ in counting.mock_calls] == ["read"] * 8
    assert {call.args[0] for call in counting.read.call_args_list} == wanted
