"""Nothing that runs a model leaves an identity on the disk or talks to a network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hrm_edge.doctor.machine import try_import

PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
# What is said to a network in Python is seen by Python; what a library says itself, by strace, where that is installed.
PROGRAM = """
import sys
sys.addaudithook(lambda event, given: event in ("socket.connect", "socket.getaddrinfo") and print("SAID", event, given))
from hrm_edge.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "CI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def left_in(home: Path) -> set[str]:
    """The folders of others: ours is .cache/hrm-edge."""
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file() and path.name != "trace.txt"]
    return {str(path) for path in files if path.parts[:2] != (".cache", "hrm-edge")}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_reports_to_nobody(backend: str, home: Path) -> None:
    if importlib.util.find_spec(backend) is None:  # not importorskip, whose import would report
        pytest.skip(f"{backend} is not installed")
    strace = shutil.which("strace")
    watch = [strace, "-f", "-e", "trace=socket", "-o", str(home / "trace.txt")] if strace else []
    words = [*watch, sys.executable, "-c", PROGRAM, "solve", PUZZLE, "--backend", backend]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SAID" not in done.stdout
    assert left_in(home) == set()
    if strace:
        assert "AF_INET" not in (home / "trace.txt").read_text()


def test_the_doctor_reports_to_nobody(home: Path) -> None:
    assert try_import("onnxruntime").error is None
    try_import("openvino")
    assert left_in(home) == set()


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from hrm_edge.quiet import switch_off

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    switch_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
