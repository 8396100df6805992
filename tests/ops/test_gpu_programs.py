"""The programs that measure on a GPU: without one they say so, and the arithmetic around their numbers is right."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("benchmarks/attention.py", "scripts/autotune.py")


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program finds those beside it, as when it is started by its path."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_program", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_gpu_they_say_so(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [program])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert ended.value.code == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_roofline() -> None:
    """H100, Sudoku in bulk: memory bounds it; 1,024 x 82 x 2,048 fp16 elements over 3.35 TB/s take 103 us."""
    program = load("benchmarks/attention.py")
    peaks = program.PEAKS["H100 80GB HBM3"]
    assert program.roofline_ms(1024, 82, 64, 2, peaks) == pytest.approx(0.1027, rel=1e-3)
    long = program.roofline_ms(64, 901, 64, 2, peaks)  # 4 * 64 * 8 * 901^2 * 64 operations take 108 us
    assert long == pytest.approx(4 * 64 * 8 * 901**2 * 64 / 989e9, rel=1e-3)
    assert program.roofline_ms(1, 82, 64, 2, None) is None
    slow = (1e9, 1e-3)  # of 81 keys a head of a board sees (9 + 9 + 9 + 81) / 4 = 27
    assert program.roofline_ms(1, 81, 32, 2, slow, (9, 9, 3, 3)) == pytest.approx(
        program.roofline_ms(1, 81, 32, 2, slow) / 3
    )


def test_candidates_are_launchable() -> None:
    program = load("scripts/autotune.py")
    found = program.candidates(quick=False)
    assert len(set(found)) == len(found) > 50
    assert len(program.candidates(quick=True)) < 12
    assert all(config.block_m >= 16 and config.block_n >= 16 for config in found)  # least of a tensor core's product


def test_a_table_that_is_written_is_read_again(tmp_path: Path) -> None:
    from hrm_edge.ops.tuning import Config, Row, SmTable, choose, read_table
    from scripts.autotune import write_table

    path = tmp_path / "tuning.json"
    row = Row(Config(32, 64, 2, 3), "float16", 64, None, 64)
    write_table({**read_table(), 90: SmTable(True, "a test's GPU", (row,))}, path)
    assert read_table(path)[90] == SmTable(True, "a test's GPU", (row,))
    assert read_table(path)[87] == read_table()[87]
    assert choose(90, "float16", 64, 901, 64, path) == row.config
