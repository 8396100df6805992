"""``hrm-edge doctor`` on this machine: the pipeline really runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hrm_edge.doctor import Diagnosis
from tests.needs import left_out

ROOT = Path(__file__).parents[2]


def doctor(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in its own process; ``before`` is a folder that shadows installed packages."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [before, str(ROOT)])), "COLUMNS": "100"}
    command = [sys.executable, "-m", "hrm_edge", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)


def test_a_machine_that_is_ready():
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    found = Diagnosis.model_validate(json.loads(done.stdout))
    assert found.passed
    assert found.facts.onnxruntime.version is not None
    assert found.facts.resources.memory_bytes
    assert "numpy" in found.facts.packages
    assert found.pipeline.startswith("sudoku-lattice solved a puzzle in ")
    assert found.backends[0].works


def test_the_screen_ends_with_the_next_command(tmp_path):
    done = doctor(before=left_out(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 60
    assert lines[-1].startswith("Next: hrm-edge ")
    assert lines[-2].startswith("Ready")
    assert "solved a puzzle" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os; os.abort()", "importing it crashes Python"),
        ("raise OSError('libgomp.so.1: cannot open shared object file')", "libgomp.so.1"),
        ("raise OSError('[/bold] is no library')", "[/bold] is no library"),  # nothing is taken for markup
        ("__version__ = '0'", "fails: AttributeError"),  # it loads, and the pipeline shows that it is no ONNX Runtime
    ],
)
def test_a_broken_road_exits_1_with_the_mend_and_the_report(text, words, tmp_path):
    (tmp_path / "onnxruntime.py").write_text(text)
    before = os.pathsep.join([str(tmp_path), left_out(tmp_path)])
    done = doctor("--json", str(tmp_path / "report.json"), before=before)
    assert done.returncode == 1
    found = Diagnosis.model_validate_json((tmp_path / "report.json").read_text())
    assert not found.passed
    assert found.findings[0].level == "fail"
    assert words in found.findings[0].problem
    assert "Failed: the default pipeline does not work here" in done.stderr
    assert found.findings[0].hint in done.stderr.replace("\n", "")
    assert words in done.stdout
