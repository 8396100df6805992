"""The wheels of both JetPacks' Pythons, gathered, installed and run for real, on this machine's processor."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hrm_edge.api.pipeline import EASY

ROOT = Path(__file__).parents[2]


def python(version: str) -> Path:
    """A Python of that version, of pyenv or the system."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*sorted(home.glob(f"versions/{version}.*/bin/python3")), shutil.which(f"python{version}")]
    for path in filter(None, found):
        asked = subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False)
        if asked.returncode == 0:
            return Path(path)
    pytest.skip(f"there is no Python {version} with venv here")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", ["3.10", "3.12"])  # of JetPack 6 and 7
def test_the_wheelhouse_of_a_jetpacks_python_installs_and_solves(version, tmp_path):
    wheelhouse, bin_ = tmp_path / "wheelhouse", tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").symlink_to(python(version))
    gather = [sys.executable, str(ROOT / "scripts/wheelhouse.py"), "--out", str(wheelhouse), "--python", version]
    gather += ["--machine", platform.machine()]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(gather, check=True, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    environ = {"HOME": str(tmp_path), "PATH": f"{bin_}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    setup = ["bash", str(wheelhouse / "setup.sh"), "--offline", str(wheelhouse)]
    done = subprocess.run(setup, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sudoku-lattice solved a puzzle" in done.stdout
    edge = tmp_path / ".local/share/hrm-edge/venv/bin/hrm-edge"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [edge, *arguments], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    facts = json.loads(run("doctor", "--json"))["facts"]
    assert facts["python"]["version"].startswith(version)
    assert "torch" not in facts["packages"]
    said = subprocess.run(
        [edge.with_name("python"), "-c", "import cuda.bindings.runtime"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    for model in ("sudoku-nano", "sudoku-nano-int8"):
        (result,) = json.loads(run("solve", EASY, "--model", model, "--json"))["results"]
        assert result["verified"]
    run("bench", "sudoku-nano-int8", "--limit", "8", "--duration", "1s", "--json", "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["queries"] >= 64
