"""The documentation's commands are run: page after page in one folder, against a real sshd where they name a board."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_edge.cli.remote import WHEELHOUSE
from tests.remote.board import Board, free_port
from tests.vision.scenes import EASY, OTHER, paper, scene

cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "how-to/install", "how-to/data", "how-to/train", "tutorial",
         "how-to/int8", "how-to/cpu", "how-to/measure", "how-to/remote", "how-to/offline",
         "how-to/jetson", "how-to/container", "how-to/kiosk", "how-to/demo", "how-to/record")  # fmt: skip
NOT_RUN = {  # a command that begins so → why, and what tests it instead
    "bash jetson/setup.sh --link": "changes this machine's groups; tests/jetson",
    "hrm-edge remote jetson demo": "the board of this test shares its ports with this machine; tests/remote",
    "docker": "needs docker and NVIDIA's images",
    "sudo": "changes this machine",
    "hrm-edge record": "takes a quarter of an hour; tests/record",
    "hrm-edge remote jetson record": "as long; tests/remote",
    "python scripts/boards_table.py": "takes a checkout; tests/record",
}
SERVES = "hrm-edge demo "  # until it is stopped
NO_CAMERA = "there is no camera"
REFUSED = {  # what only a board or a GPU can do: the message that everybody else gets
    "--engine": "TensorRT is not installed",
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
    programs = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"))
    yield made
    made.close()


def here(line: str, board: Board) -> str:
    """The command with this machine in the place of the board: its name, its processor, its Python; a free port."""
    python = "{}.{}".format(*sys.version_info)
    ours = f"python {ROOT}/scripts/wheelhouse.py --machine {platform.machine()}"
    gathers = f"{ours} --out build/wheelhouse --python {python}"
    for there, replaced in (
        ("hrm-edge remote jetson", f"hrm-edge remote --ssh-config {board.config} board"),
        ("ssh jetson", f"ssh -F {board.config} board"),
        ("make wheelhouse", gathers),
        ("python scripts/wheelhouse.py", ours),
        ("--python 3.11", f"--python {python}"),
    ):
        line = line.replace(there, replaced)
    return re.sub(r"\b8000\b", str(free_port()), line)


def run(command: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Exit code and what it said. A demo is stopped by Ctrl-C as soon as its page is there, and says 130."""
    words = ["bash", "-c", f"exec {command}"]
    with subprocess.Popen(
        words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as running:  # fmt: skip
        assert running.stdout is not None
        said = []
        for line in running.stdout:
            said.append(line)
            if command.startswith(SERVES) and "Ctrl-C ends it" in line:
                running.send_signal(signal.SIGINT)
    return running.returncode, "".join(said)


def photos(folder: Path) -> None:
    """What the pages call ``photo.jpg`` and ``photos``."""
    (folder / "photos").mkdir()
    for path, puzzle in (("photo.jpg", EASY), ("photos/one.jpg", EASY), ("photos/two.jpg", OTHER)):
        assert cv2.imwrite(str(folder / path), scene(paper(puzzle)))


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_pages_run(board, tmp_path):
    """Once each, in the order of the pages. The wheelhouse is gathered from the index, and installed on the board."""
    for name in ("recipes", "jetson"):
        (tmp_path / name).symlink_to(ROOT / name)
    photos(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**board.environ("docs"), "PATH": path, "HOME": str(tmp_path)}
    assert f"scripts/wheelhouse.py --out {WHEELHOUSE}\n" in (ROOT / "Makefile").read_text()
    every = dict.fromkeys(line for page in PAGES for line in commands(page))
    lines = [line for line in every if not any(line.startswith(start) for start in NOT_RUN)]
    for line in lines:
        began = time.monotonic()
        code, said = run(here(line, board), tmp_path, environ)
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)  # shown with -s, or when one hangs
        refused = next((words for option, words in REFUSED.items() if option in line), None)
        if line.startswith(SERVES) and code != 130:
            refused = NO_CAMERA
        expected = 2 if refused else 130 if line.startswith(SERVES) else 0
        assert code == expected, f"{line}\n{said[-3000:]}"
        assert refused is None or refused in said
    assert len(lines) >= 30
    installed = (board.home / ".local/share/hrm-edge/venv/lib").glob("python*/site-packages/*")
    names = {found.name for found in installed}
    assert {"hrm_edge", "onnxruntime"} <= names
    assert "torch" not in names
