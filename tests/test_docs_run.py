"""The documentation's commands are run: page after page in one folder, against a real sshd where they name a board."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.board import Board

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "tutorial", "how-to/int8", "how-to/measure", "how-to/remote", "how-to/offline", "how-to/jetson",
         "how-to/container", "how-to/kiosk", "how-to/demo")  # fmt: skip
NOT_RUN = {  # a command that begins so → why, and what tests it instead
    "make wheelhouse": "downloads; make test-arm64 runs it",
    "python scripts/wheelhouse.py": "downloads; make test-arm64 runs it",
    "bash build/wheelhouse/setup.sh": "needs the wheelhouse; tests/jetson",
    "bash jetson/setup.sh --link": "downloads and changes this machine; tests/jetson",
    "hrm-edge remote jetson setup": "needs the wheelhouse; tests/remote",
    "hrm-edge remote jetson demo": "needs a camera; tests/demo",
    "pip install 'hrm-edge[web]'": "installs from an index; make venv installs it from here",
    "hrm-edge demo --camera": "serves until it is stopped; tests/demo",
    "hrm-edge solve photo": "needs photos, which are not ours to publish; tests/vision",
    "ssh jetson": "the board of these tests has another name",
    "docker": "needs docker and NVIDIA's images",
    "sudo": "changes this machine",
}
REFUSED = {  # what only a board or a GPU can do: the message that everybody else gets
    "--engine": "an engine is built for a GPU",
    "--power-mode": "this machine has no nvpmodel modes",
}


def commands(page: str) -> list[str]:
    """Lines of the page's shell blocks, continued lines joined."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for _, block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_page_with_commands_is_listed():
    with_commands = {
        str(path.relative_to(ROOT / "docs").with_suffix(""))
        for path in (ROOT / "docs").rglob("*.md")
        if "```sh" in path.read_text()
    }
    assert with_commands == set(PAGES)
    assert commands("index")[0] == "hrm-edge doctor"


def test_every_exception_is_needed():
    every = [line for page in PAGES for line in commands(page)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in every), f"no page has '{start}' any more"
    for option in REFUSED:
        assert any(option in line for line in every), f"no page has '{option}' any more"


def test_the_python_page_runs():
    text = (ROOT / "docs/reference/python.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_pages_run(board, tmp_path):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "jetson").symlink_to(ROOT / "jetson")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**board.environ("docs"), "PATH": path, "HOME": str(tmp_path)}
    ran = 0
    for page in PAGES:
        for line in commands(page):
            if any(line.startswith(start) for start in NOT_RUN):
                continue
            command = line.replace("hrm-edge remote jetson", f"hrm-edge remote --ssh-config {board.config} board")
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            print(f"{time.monotonic() - began:6.1f} s  {page}: {line}", flush=True)  # shown with -s, or when one hangs
            refused = next((words for option, words in REFUSED.items() if option in line), None)
            if refused is None:
                assert done.returncode == 0, f"{page}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            else:
                assert done.returncode == 2, f"{page}: {line}\n{done.stderr[-2000:]}"
                assert refused in done.stderr
            ran += 1
    assert ran >= 20
