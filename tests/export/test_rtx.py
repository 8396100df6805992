"""The real TensorRT-RTX builder takes what we ship and export, without a GPU: real compilation for consumer cards.

Refusals and everything else about building: tests/runtime/test_trt_build.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hrm_edge import zoo
from hrm_edge.manifest import Precision, read_manifest
from hrm_edge.runtime.trt.build import BuildOptions, build_engine
from hrm_edge.runtime.trt.identity import PLAN_FILE, Engine
from hrm_edge.spec import ModelSpec, variant_spec
from tests.artifacts import write_random_artifact

pytestmark = pytest.mark.rtx

SHIPPED_SMS = (86, 89, 120)  # RTX 30, 40 and 50
REDUCED = variant_spec("reduced", vocab=11, seq_len=81)
HALF = variant_spec("reduced", vocab=11, seq_len=81, h_layers=2, l_layers=2)  # of the layers, and of the time
FULL = variant_spec("full", vocab=11, seq_len=81)


def build(artifact: Path, out: Path, sms: tuple[int, ...], max_batch: int = 64) -> Engine:
    engine, cached = build_engine(artifact, out, BuildOptions(sms=sms, max_batch=max_batch, use_cache=False), print)
    assert not cached
    assert engine.identity.sm == sms
    assert engine.identity.options.batch.max == max_batch
    assert (out / PLAN_FILE).stat().st_size == engine.plan.bytes
    return engine


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def in_ci(*values: str) -> object:
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.ci])


@pytest.mark.parametrize("name", [name if name == "sudoku-nano-int8" else in_ci(name) for name in zoo.names()])
def test_every_shipped_artifact(name: str, tmp_path: Path) -> None:
    folder = zoo.folder_of(name)
    assert folder is not None
    engine = build(folder, tmp_path / "out", SHIPPED_SMS)
    assert engine.identity.options.precision == read_manifest(folder).precision
    assert engine.plan.bytes > 100_000


@pytest.mark.slow
@pytest.mark.ci
def test_both_files_of_reduced_build_for_two_architectures(tmp_path: Path) -> None:
    """Batch 1 to 64; INT8 weights stay INT8 in the engine: it is far smaller."""
    sizes = {}
    for precision in ("fp32", "int8"):
        artifact = write_random_artifact(tmp_path / precision, HALF, precision)
        sizes[precision] = build(artifact, tmp_path / f"{precision}-engine", (86, 120)).plan.bytes
    assert 2_500_000 < sizes["int8"] < 0.75 * sizes["fp32"]


@pytest.mark.parametrize(
    ("variant", "precision"),
    [("trm", "int8"), in_ci("trm", "fp32"), in_ci("trm-mixer", "int8"), in_ci("trm-mixer", "fp32")],
)
def test_trm_builds_for_every_shipped_architecture(variant: str, precision: Precision, tmp_path: Path) -> None:
    """The published step with two cycles of each kind, on a small board, so that it builds in seconds."""
    spec = variant_spec(
        variant, vocab=6, seq_len=16, hidden=64, heads=4, puzzle_dim=64, l_layers=1, h_cycles=2, l_cycles=2
    )
    engine = build(write_random_artifact(tmp_path / "a", spec, precision, "mini-sudoku"), tmp_path / "out", SHIPPED_SMS)
    assert engine.identity.options.precision == precision


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("spec", [REDUCED, FULL], ids=["reduced", "full"])
def test_every_variant_in_every_precision(spec: ModelSpec, precision: Precision, tmp_path: Path) -> None:
    engine = build(write_random_artifact(tmp_path / "a", spec, precision), tmp_path / "out", SHIPPED_SMS)
    assert engine.identity.options.precision == precision
    shutil.rmtree(tmp_path / "out")
