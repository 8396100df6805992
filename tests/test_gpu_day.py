"""The GPU day's script, all of it on a CPU at tiny sizes: what would fail on the day fails here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from hrm_edge.data.sudoku import Options, build
from hrm_edge.model.load import load_model
from hrm_edge.tasks.sudoku import Sudoku

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

ROOT = Path(__file__).resolve().parents[1]


def day(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_day.py"), *map(str, arguments)]
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day") / "data"
    build(Sudoku(3, 3), folder, Options(source="generate", count=40, test_count=8, seed=0))
    return folder


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(1200)
def test_the_whole_day_on_a_cpu(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages that a bare machine with PyTorch does not have, and that ``pack`` does not bring."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("onnxruntime", "onnx", "numba", "cv2", "openvino", "matplotlib"):
        (bare / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n")
    monkeypatch.setenv("PYTHONPATH", str(bare))
    out = tmp_path / "out"
    done = day("run", "--out", out, "--data", data, "--dry-run", "--budget", 1200)
    logs = tmp_path / "logs"
    with tarfile.open(out / "gpu-day.tar.gz") as archive:
        archive.extractall(logs, filter="data")
    said = {path.name: path.read_text()[-1500:] for path in (logs / "gpu-day").glob("*.log")}
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{said}"
    report = json.loads((logs / "gpu-day" / "report.json").read_text())
    assert {name: part["exit_code"] for name, part in report["parts"].items()} == dict.fromkeys(report["parts"], 0)
    assert list(report["parts"]) == ["tests", "attention", "training-full", "training-reduced", "train"]
    assert " passed" in report["parts"]["tests"]["last_line"]
    attention = json.loads((logs / "gpu-day" / "attention.json").read_text())
    assert any(row["grid"] for row in attention["layers"])
    assert [row["batch"] for row in json.loads((logs / "gpu-day" / "training.json").read_text())["rows"]] == [2, 3]
    assert len(list(out.iterdir())) <= 8

    again = tmp_path / "weights"
    joined = day("join", out, "--to", again)
    assert joined.returncode == 0, joined.stderr
    assert f"init={again}" in joined.stdout
    model, info, _ = load_model(again)
    assert model.spec.variant == "full"
    assert info.step == report["weights"]["step"] == 2
    (piece,) = out.glob("weights.tar.*")
    content = piece.read_bytes()
    piece.write_bytes(content[:-1] + b"x")
    assert "the weights were damaged on the way" in day("join", out, "--to", tmp_path / "b").stderr
    piece.unlink()
    assert "lacks weights.tar.0" in day("join", out, "--to", tmp_path / "c").stderr


def test_without_a_gpu_it_says_so(data: Path, tmp_path: Path) -> None:
    done = day("run", "--out", tmp_path / "out", "--data", data)
    assert done.returncode == 2
    assert "torch sees no NVIDIA GPU here" in done.stderr
    assert "--dry-run" in done.stderr
    assert not (tmp_path / "out").exists()
