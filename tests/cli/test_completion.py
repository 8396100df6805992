"""The Tab key: real shells, in a terminal, with what ``completion --install`` wrote."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hrm_edge import catalog, zoo
from hrm_edge.cli import main as frame
from hrm_edge.cli.completion import SHELLS, source
from tests.needs import installed

BIN = Path(sys.executable).parent


def environ(home: Path, **more: str) -> dict[str, str]:
    kept = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    return {**kept, "ZDOTDIR": str(home), **more}


def answers(words: str, *, home: Path) -> list[str]:
    """What bash is offered at the end of ``words``."""
    typed = shlex.split(words) + ([""] if words.endswith(" ") else [])
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1), frame.COMPLETE: "bash_complete"}
    done = subprocess.run(
        [BIN / "hrm-edge"],
        env=environ(home, **asked),
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if not line.startswith("file,")]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hrm-edge ", list(frame.VERBS)),
        ("hrm-edge re", ["recipes", "record", "remote"]),
        ("hrm-edge data b", ["build"]),
        ("hrm-edge train mini", [name for name in catalog.names() if name.startswith("mini")]),
        ("hrm-edge info sudoku-nano-", [name for name in zoo.names() if name.startswith("sudoku-nano-")]),
        ("hrm-edge solve x --model sudoku-l", ["sudoku-lattice"]),
        ("hrm-edge solve x --bud", ["--budget"]),
        ("hrm-edge demo --backend on", ["onnxruntime"]),
    ],
)
def test_what_is_offered(words, offered, tmp_path):
    assert answers(words, home=tmp_path) == offered


def test_verbs_are_offered_without_being_imported():
    code = (
        "import os, sys\n"
        "from hrm_edge.cli import main as frame\n"
        "os.environ.update({frame.COMPLETE: 'bash_complete', 'COMP_WORDS': 'hrm-edge ', 'COMP_CWORD': '1'})\n"
        "assert frame.main([]) == 0\n"
        "assert not {'hrm_edge.cli.bench', 'rich', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "plain,solve" in done.stdout


def typed_in(shell: list[str], keys: str, made: Path, home: Path) -> str:
    """Start an interactive shell in a terminal, type ``keys`` until they make a file; return what it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execvpe(shell[0], shell, environ(home))
    shown, began, typed = b"", time.monotonic(), False
    try:
        while time.monotonic() - began < 120 and not (made.is_file() and made.stat().st_size):
            if select.select([terminal], [], [], 1)[0]:
                try:
                    shown += os.read(terminal, 4096)
                except OSError:
                    break
            if not typed and b"READY" in shown:
                os.write(terminal, keys.encode())
                typed = True
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode(errors="replace")


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_the_shell(shell, tmp_path):
    """``recip`` and ``digi`` are completed, and the command then does what it says."""
    program = installed(shell)
    done = subprocess.run(
        [BIN / "hrm-edge", "completion", "--install"], env=environ(tmp_path, SHELL=program), cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [BIN / "hrm-edge", "completion", shell, "--install"], env=environ(tmp_path), cwd=tmp_path,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert again.returncode == 0
    start = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}[shell]
    with (tmp_path / start).open("a") as file:
        file.write("PS1='READY> '\n" if shell != "fish" else "function fish_prompt; echo 'READY> '; end\n")
    assert (tmp_path / start).read_text().count("hrm-edge completion") == (shell != "fish"), "one line, asked twice"
    words = [program, "-i"]
    shown = typed_in(words, "hrm-edge recip\tshow digi\t> out.yaml\n", tmp_path / "out.yaml", tmp_path)
    assert (tmp_path / "out.yaml").is_file(), shown
    assert (tmp_path / "out.yaml").read_text() == catalog.find("digits").read_text()


def test_the_line_in_the_start_file_keeps_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (tmp_path / ".bashrc").write_text("alias x=y")
    assert frame.main(["completion", "bash", "--install"]) == 0
    assert frame.main(["completion", "bash", "--install"]) == 0
    first, second = (tmp_path / ".bashrc").read_text().splitlines()
    assert first == "alias x=y"
    assert "completion.bash" in second
    assert (tmp_path / ".local/share/hrm-edge/completion.bash").read_text().strip() == source("bash").strip()


@pytest.mark.parametrize(("login", "said"), [("", "$SHELL is not set"), ("/bin/tcsh", "$SHELL is 'tcsh'")])
def test_another_shell_is_told_which_there_are(login, said, monkeypatch, capsys):
    monkeypatch.setenv("SHELL", login)
    assert frame.main(["completion"]) == 2
    captured = capsys.readouterr().err
    assert said in captured
    assert "name one of bash, zsh, fish" in captured
