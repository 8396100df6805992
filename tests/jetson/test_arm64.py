"""The edge part on a real arm64 user land: a Debian root, its programs run by qemu-user. `make test-arm64` makes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_edge.api.pipeline import EASY
from hrm_edge.record.archive import read_archive
from hrm_edge.tasks import get_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PREFIX = "/opt/hrm-edge"
EDGE = f"{PREFIX}/venv/bin/hrm-edge"
SHIPPED = "sudoku-nano-int8"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Board:
    """The root, with the kernel's file systems in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["chroot", str(self.root), "env", "-i", "HOME=/root", f"PATH={PATH}", "OMP_NUM_THREADS=1", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=3000, check=False)

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "/opt/wheelhouse/setup.sh", "--offline", "/opt/wheelhouse", *arguments)


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    folder = request.config.getoption("--arm64-root")
    if folder is None:
        pytest.skip("no arm64 root: make test-arm64 makes one (needs root, debootstrap, qemu-user-static)")
    root = Path(folder)
    # Not /sys: it would show this machine's x86 processor, over which ONNX Runtime for arm64 crashes.
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        shutil.rmtree(root / PREFIX.lstrip("/"), ignore_errors=True)
        yield Board(root)
    finally:
        subprocess.run(["umount", root / "proc"], check=True)


def test_it_is_arm64(board):
    assert board.run("uname", "-m").stdout == "aarch64\n"
    assert board.run("python3", "-c", "import platform; print(platform.machine())").stdout == "aarch64\n"


def test_setup_from_the_wheelhouse(board):
    done = board.setup("--prefix", PREFIX)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "No Jetson (aarch64" in done.stdout
    assert "sudoku-lattice solved a puzzle" in done.stdout  # setup ends with the doctor
    assert "Already installed" in board.setup("--prefix", PREFIX).stdout
    binding = board.run(f"{PREFIX}/venv/bin/python", "-c", "import cuda.bindings.runtime as r; print(r.__name__)")
    assert binding.stdout == "cuda.bindings.runtime\n", binding.stderr[-2000:]


def test_a_jetsons_environment_sees_apts_packages(board):
    release = board.root / "etc/nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n")
    try:
        done = board.setup("--prefix", "/opt/other", "--dry-run")
        doctor = board.run(EDGE, "doctor", "--json")
    finally:
        release.unlink()
    assert "Jetson, L4T 36.4.3" in done.stdout
    assert "/usr/bin/python3 -I -m venv --system-site-packages /opt/other/venv" in done.stdout
    found = json.loads(doctor.stdout)
    assert (found["facts"]["kind"], found["facts"]["board"]["jetpack"]) == ("jetson", "6.2")
    assert "tensorrt-missing" in [finding["name"] for finding in found["findings"]]


def test_doctor(board):
    done = board.run(EDGE, "doctor", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["road"].startswith("sudoku-lattice solved a puzzle in ")
    assert (found["facts"]["kind"], found["facts"]["architecture"]) == ("arm", "aarch64")
    assert found["facts"]["packages"].keys() >= {"numpy"}
    assert "torch" not in found["facts"]["packages"]


def test_solve_with_a_verified_answer(board):
    # One that needs few steps: emulated, the hard ones took more than four minutes of processor time.
    done = board.run(EDGE, "solve", EASY, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = json.loads(done.stdout)["results"]
    task = get_task("sudoku")
    assert result["verified"]
    assert task.verify(task.parse(EASY), task.parse(result["answer"]))  # judged here, not there


def test_a_short_bench_report(board):
    """Of a shipped model, on a puzzle that needs one step: emulated, a step takes seconds."""
    (board.root / "root/easy.txt").write_text(f"{EASY}\n")
    arguments = ["--data", "/root/easy.txt", "--duration", "1s", "--json", "/root/b.json"]
    done = board.run(EDGE, "bench", SHIPPED, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((board.root / "root/b.json").read_text())
    assert (report["model"]["name"], report["model"]["precision"]) == (SHIPPED, "int8")
    assert report["device"]["architecture"] == "aarch64"
    assert report["queries"] >= 64
    assert report["latency_ms"]["p50"] > 0
    assert report["exact_accuracy"] == 1.0
    assert report["energy_j_per_puzzle"] is None  # no meter here, and it says why


def test_a_quick_record(board):
    """Of one model on one puzzle, as above; killed before its end, and gone on with."""
    (board.root / "root/easy.txt").write_text(f"{EASY}\n")
    words = ["record", "--quick", "--models", SHIPPED, "--backends", "onnxruntime", "--duration", "1s"]
    words += ["--data", "/root/easy.txt", "--out", "/root/record"]
    board.run("timeout", "--signal=KILL", "60", EDGE, *words)  # at the latest in its only row
    done = board.run(EDGE, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    found = read_archive(board.root / "root/record.tar.gz")
    assert found.about.device.architecture == "aarch64"
    (report,) = found.reports.values()
    assert (report.exact_accuracy, report.energy_j_per_puzzle) == (1.0, None)


def test_there_is_no_torch(board):
    found = [path for path in (board.root / "opt").rglob("*") if re.fullmatch(r"torch(-.*)?", path.name)]
    assert found == []
    assert "No module named 'torch'" in board.run(f"{PREFIX}/venv/bin/python", "-c", "import torch").stderr
