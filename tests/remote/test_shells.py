"""Boards whose login shell prints or is no ``sh``, boards that send what they should not, folders with odd names."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_edge import zoo
from hrm_edge.api.pipeline import EASY
from hrm_edge.remote.shell import Stream, after_mark, new_mark, remote_words
from tests.needs import installed
from tests.remote.board import Board

SCRIPT = """\
printf '%s\\n' "it's \\"here\\"" 'a!b $HOME `date`' "$1" >/dev/null
if true; then
    cat
fi
exit 7
"""
SHELLS = {  # name → what sshd hands every command to, and the Debian package of it
    "sh": ("sh", "dash"),
    "bash": ("bash", "bash"),
    "tcsh": ("tcsh", "tcsh"),
    "csh": ("bsd-csh", "csh"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_of_any_length_goes_through_the_shell(name):
    shell, mark = installed(*SHELLS[name]), new_mark()
    for script in (SCRIPT, SCRIPT.replace("exit 7", "# " + 3000 * "é" + "\nexit 7")):
        command = [shell, "-c", remote_words(script, mark)]
        done = subprocess.run(command, input=b"from stdin\n", capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (7, b"")
        assert after_mark(done.stdout, mark) == b"from stdin\n"


def test_what_comes_before_the_mark_is_dropped_however_it_is_cut():
    mark = new_mark()
    whole = b"Welcome to Ubuntu\n\0" + mark + b"answer" + mark + b"end"
    for size in (1, 7, 1000):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            stream, found = Stream(pipe, mark), b""
            for start in range(0, len(whole), size):
                os.write(writing, whole[start : start + size])
            os.close(writing)
            while piece := stream.read():
                found += piece
        assert found == b"answer" + mark + b"end"
    assert after_mark(b"This account is not available.\n", mark) == b""


@pytest.fixture(params=["greets", "csh", "tcsh greets"])
def board(request, tmp_path: Path) -> Iterator[Board]:
    """A board with that login shell: what it prints is there before every answer, rsync's too."""
    first = "echo Welcome to nano; echo; " if "greets" in request.param else ""
    name = request.param.split()[0]
    shell = "sh" if name == "greets" else installed(*SHELLS[name])
    made = Board(tmp_path, login=f'{first}exec {shell} -c "$SSH_ORIGINAL_COMMAND"')
    yield made
    made.close()


def test_verbs_with_another_login_shell(board, tmp_path):
    (tmp_path / "p.txt").write_text(f"{EASY}\n")
    solved = board.remote("solve", tmp_path / "p.txt", "--json")
    assert solved.returncode == 0, solved.stderr
    assert json.loads(solved.stdout)["results"][0]["verified"]
    out = tmp_path / "r.json"
    quick = ("--duration", "0.1s", "--power", "none", "--limit", 2, "--markdown", tmp_path / "r.md")
    done = board.remote("bench", "sudoku-nano", *quick, "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["kind"] == "hrm-edge bench"
    assert "Welcome" not in done.stdout + out.read_text() + (tmp_path / "r.md").read_text()
    names = {path.name for path in board.home.iterdir()}
    assert names <= {".cache", ".local", "starts", ".config"}, "a folder with the greeting's name"
    # what is printed last are files and commands of this machine, not of the board
    assert done.stdout.splitlines()[-2:] == [f"Report: {out}", f"Next: hrm-edge bench --compare {out} OTHER.json"]
    assert "report.json" not in done.stdout
    assert str(board.home) not in done.stdout


def test_the_doctor_of_a_board_whose_shell_greets(tmp_path):
    """It was "killed on the board (out of memory?)"."""
    board = Board(tmp_path, login='echo Welcome to nano; echo; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    try:
        done = board.remote("doctor", "--json")
    finally:
        board.close()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"]
    assert "killed" not in done.stderr


def test_the_next_command_is_one_of_this_machine(shared):
    done = shared.remote("doctor")
    assert done.returncode == 0, done.stderr
    ours = f"hrm-edge remote --ssh-config {shared.config} board"
    assert done.stdout.splitlines()[-1] == f"Next: {ours} bench sudoku-nano --duration 60s"
    done = shared.remote("solve", EASY)
    assert done.stdout.splitlines()[-1] == f"Next: {ours} bench {zoo.default_for('sudoku')}"
    assert done.stdout.count("Next:") == 1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"))
    yield made
    made.close()


@pytest.mark.parametrize("name", ["nano:v2", "{host}", "-x", "a b", "new\nline"])
def test_folders_with_odd_names(shared, name):
    """Relative to the working folder, as people type them; rsync would take nano:v2 for a host."""
    folder = shared.folder / name
    folder.mkdir()
    shutil.copytree(zoo.ZOO / "sudoku-nano", folder / "model")
    (folder / f"p{name}.txt").write_text(f"{EASY}\n")
    done = shared.remote("solve", f"./{name}/p{name}.txt", "--json", "--model", f"./{name}/model")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["verified"]
    shutil.rmtree(folder)


HOSTILE = """#!/bin/sh
ln -s {secret} report.json
ln -s {secret} link
mkfifo pipe
mknod device c 1 3
echo tool >tool
chmod 4755 tool
echo fine >report.markdown
"""


def test_a_board_sends_files_and_nothing_else(shared, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    program = shared.home / ".local/share/hrm-edge/venv/bin/hrm-edge"
    program.write_text(HOSTILE.format(secret=secret))
    shutil.rmtree(shared.home / ".cache", ignore_errors=True)
    files = ("--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md")
    done = shared.remote("bench", "sudoku-nano", *files)
    assert (done.returncode, "has no file report.json" in done.stderr) == (2, True)
    assert "remote board pull" in done.stderr
    assert not (tmp_path / "r.json").exists()
    assert (tmp_path / "r.md").read_text() == "fine\n"  # one that fails keeps back no other
    done = shared.remote("pull", "--out", tmp_path / "nano:v3")
    assert done.returncode == 0, done.stderr
    brought = [path for path in (tmp_path / "nano:v3").rglob("*") if not path.is_dir()]
    assert sorted(path.name for path in brought) == ["report.markdown", "tool"]
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in brought)
    assert not any(path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID) for path in brought)
    shared.install()
