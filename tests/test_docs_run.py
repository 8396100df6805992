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

pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
from hrm_edge.cli.remote import WHEELHOUSE
from scripts.arrive import USERS
from tests import inputs
from tests.remote.board import Board, free_port

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "how-to/install", "how-to/data", "how-to/train", "tutorial", "how-to/published",
         "how-to/int8", "how-to/engines", "how-to/cpu", "how-to/measure", "how-to/remote", "how-to/offline",
         "how-to/jetson", "how-to/container", "how-to/kiosk", "how-to/demo", "explain/trm",
         "explain/lattice", "how-to/record")  # fmt: skip
AFTER = {  # a page → the page that makes what it uses
    "how-to/int8": "tutorial",
    "how-to/engines": "tutorial",
    "how-to/remote": "how-to/jetson",
    "explain/trm": "how-to/jetson",
}
NOT_RUN = {  # a command that begins so → why, and what tests it instead
    "python3 -m venv": "typed in a fresh copy by scripts/arrive.py; tests/test_arrive.py",
    "pip install": "the same",
    "make train-venv": "the same",
    ". .venv/bin/activate": "the same",
    "bash jetson/setup.sh --link": "changes this machine's groups; tests/jetson",
    "hrm-edge remote jetson demo": "the board of this test shares its ports with this machine; tests/remote",
    "hrm-edge data build sudoku --out data/extreme --source hub": "internet; tests/data/test_sources.py",
    "hrm-edge data build maze --out data/maze-hard --source hub": "internet; tests/data/test_maze_build.py",
    "hrm-edge train NAME": "eight GPUs; tests/train",
    "python scripts/keep_run.py": "a run of yours; tests/train/test_compact.py",
    "hrm-edge train sudoku_lattice_more": "hours; tests/cli/test_train_on.py",
    "docker": "needs docker and NVIDIA's images",
    "sudo": "changes this machine",
    "systemctl --user": "needs a desktop's session; tests/jetson, tests/demo",
    "hrm-edge record": "takes a quarter of an hour; tests/record",
    "hrm-edge remote jetson record": "as long; tests/remote",
    "python scripts/boards_table.py": "takes a checkout; tests/record",
}
SERVES = "hrm-edge demo "  # until it is stopped
NO_CAMERA = "there is no camera"
REFUSED = {  # what only a board or a GPU can do: the message that everybody else gets
    "--engine": "TensorRT is not installed",
    "--power-mode": "this machine has no nvpmodel modes",
    "--out build/engine": "an engine is built for a GPU",
    "bench build/engine": "there is no such folder",
    "--backend torch-tensorrt": "Torch-TensorRT does not import",
}
HERE = (  # what a page says → what it is on this machine: no board, no GPU, minutes
    *USERS["researcher"].replaced,
    ("data/sudoku-extreme-1k", "test.csv"),
    ("remote HOST", "remote jetson"),
)


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
    assert commands("index")[1] == "hrm-edge doctor"


def test_every_command_on_the_site_is_in_a_block_that_is_run():
    """A block of another language that has our commands would be shown, and tried by nobody."""
    for path in (ROOT / "docs").rglob("*.md"):
        blocks = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)
        for language, text in blocks:
            typed = re.search(r"^ *(hrm-edge|make|pip|python3?|bash|docker) ", text, re.MULTILINE)
            assert language == "sh" or typed is None, f"{path.name}: {typed and typed[0]}... in a block of '{language}'"


def test_every_exception_is_needed():
    every = [line for page in PAGES for line in commands(page)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in every), f"no page has '{start}' any more"
    for option in REFUSED:
        assert any(option in line for line in every), f"no page has '{option}' any more"


def test_the_python_page_runs(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    text = (ROOT / "docs/reference/python.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert programs
    done = subprocess.run(  # in one process: loading a model's runtime takes longer than most of them
        [sys.executable, "-W", "error", "-c", "\n".join(programs)], capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "solved.jpg").is_file()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"))
    made.uninstall()
    yield made
    made.close()


def here(line: str, board: Board) -> str:
    """The command with this machine in the place of the board: its name, its processor, its Python; a free port."""
    python = "{}.{}".format(*sys.version_info)
    ours = f"python {ROOT}/scripts/wheelhouse.py --machine {platform.machine()}"
    gathers = f"{ours} --out build/wheelhouse --python {python}"
    for pattern, text in HERE:
        line = re.sub(pattern, text, line)
    line = re.sub(r"make wheelhouse WHEELS='--machine \S+ --python \S+'", gathers, line)
    for there, replaced in (
        ("hrm-edge remote jetson", f"hrm-edge remote --ssh-config {board.config} board"),
        ("ssh jetson", f"ssh -F {board.config} board"),
        ("make wheelhouse", gathers),
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed: a checkout's folders, and what a user brings."""
    made = tmp_path_factory.mktemp("pages")
    for name in ("recipes", "jetson"):
        (made / name).symlink_to(ROOT / name)
    for bring in (inputs.photos, inputs.puzzles, inputs.archives, inputs.published):
        bring(made)
    (made / "download").mkdir()
    inputs.published(made / "download")
    (made / "download/checkpoint.pt").rename(made / "download/step_300")  # the published name
    return made


TYPED: set[str] = set()
"""Commands that were run: a page's are run once, also where another page needs what they make."""


def type_in(page: str, folder: Path, board: Board) -> None:
    """Run the commands of ``page``, those of the page that it needs first."""
    if page in AFTER:
        type_in(AFTER[page], folder, board)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**board.environ("docs"), "PATH": path, "HOME": str(folder)}
    for line in commands(page):
        if line in TYPED or line.startswith(tuple(NOT_RUN)):
            continue
        began = time.monotonic()
        code, said = run(here(line, board), folder, environ)
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)  # shown with -s, or when one hangs
        refused = next((words for option, words in REFUSED.items() if option in line), None)
        if line.startswith(SERVES) and code != 130:
            refused = NO_CAMERA
        expected = 2 if refused else 130 if line.startswith(SERVES) else 0
        assert code == expected, f"{line}\n{said[-3000:]}"
        assert refused is None or refused in said, said
        TYPED.add(line)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, folder, board):
    """In the order of the pages. The wheelhouse is gathered from the index, and installed on the board."""
    assert f"scripts/wheelhouse.py --out {WHEELHOUSE} $(WHEELS)\n" in (ROOT / "Makefile").read_text()
    type_in(page, folder, board)
    if "hrm-edge remote jetson setup --wheelhouse build/wheelhouse" in commands(page):
        installed = (board.home / ".local/share/hrm-edge/venv/lib").glob("python*/site-packages/*")
        names = {found.name for found in installed}
        assert {"hrm_edge", "onnxruntime"} <= names
        assert "torch" not in names
