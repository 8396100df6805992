"""Files that users have today open tomorrow, and are written as they were, byte for byte (``tests/samples``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

import hrm_edge
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.recipe import load_recipe
from hrm_edge.report.read import read_bench
from hrm_edge.report.schema import BenchReport, EvalReport
from hrm_edge.runtime.trt.identity import read_engine

SAMPLES = Path(__file__).parent / "samples"
CHECKPOINT = SAMPLES / "run/checkpoints/step-00000002"


def checkpoint(folder: Path) -> BaseModel:
    pytest.importorskip("torch")
    from hrm_edge.checkpoint import read_checkpoint

    return read_checkpoint(folder)


RECORDS: dict[str, Callable[[Path], BaseModel]] = {
    "artifact/manifest.json": lambda path: read_manifest(path.parent),
    "engine/engine.json": lambda path: read_engine(path.parent),
    "run/checkpoints/step-00000002/checkpoint.json": lambda path: checkpoint(path.parent),
    "eval.json": lambda path: EvalReport.model_validate_json(path.read_bytes()),
    "bench.json": lambda path: BenchReport.model_validate_json(path.read_bytes()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_and_written_byte_for_byte(name: str, tmp_path: Path) -> None:
    path = SAMPLES / name
    write_json(tmp_path / "again.json", RECORDS[name](path).model_dump(mode="json"))
    assert (tmp_path / "again.json").read_text() == path.read_text()


def test_a_recipe_is_read_and_written_byte_for_byte() -> None:
    path = CHECKPOINT / "recipe.yaml"
    assert load_recipe(path).dump() == path.read_text()


def test_an_artifact_opens_and_solves() -> None:
    result = hrm_edge.load(SAMPLES / "artifact").solve("0030400000020100")
    assert isinstance(result, hrm_edge.Result)
    assert result.verified


def test_a_report_is_read_for_comparison() -> None:
    (report,) = read_bench(SAMPLES / "bench.json")
    assert report.latency_ms.p50 == json.loads((SAMPLES / "bench.json").read_text())["latency_ms"]["p50"]


@pytest.mark.parametrize("path", [SAMPLES / "run", CHECKPOINT])
def test_a_run_and_its_checkpoint_open(path: Path) -> None:
    pytest.importorskip("torch")
    from hrm_edge.training.checkpoint import Restored

    model = hrm_edge.load(path)
    assert (model.backend.partition("-")[0], model.task.name) == ("torch", "mini-sudoku")
    assert model.folder == CHECKPOINT
    assert Restored(SAMPLES / "run").info.step == 2
