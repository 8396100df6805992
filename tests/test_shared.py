"""The test run itself: what its workers share is made once, and how it was started does not change what it proves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def test_ctrl_c_tests_pass_where_the_shell_lets_the_run_ignore_it(tmp_path: Path) -> None:
    """As in ``make test &`` of a script. In a folder of its own, or pytest would remove those of earlier runs first."""
    test = "tests/cli/test_main.py::test_ctrl_c_ends_with_one_line_and_130"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "base", test],
        cwd=ROOT, env=OUTSIDE, capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout


def test_what_workers_share_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "test_many.py").write_text(
        "import time, pytest\n"
        "from tests.shared import made_once\n"
        "def make(folder):\n"
        "    time.sleep(0.2)\n"
        "    with open(folder / 'log', 'a') as log:\n"
        "        print('made', file=log)\n"
        "@pytest.mark.parametrize('number', range(6))\n"
        "def test_it(number, tmp_path_factory):\n"
        "    assert (made_once(tmp_path_factory, 'slow', make) / 'log').read_text() == 'made\\n'\n"
    )
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--basetemp", tmp_path / "base", "-p", "no:cacheprovider"],
        cwd=tmp_path, env=OUTSIDE, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "6 passed" in done.stdout, done.stdout
    assert [path.name for path in (tmp_path / "base").rglob("log")] == ["log"]
