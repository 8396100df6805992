"""The board is held and given back, however the block ends. nvpmodel and jetson_clocks are stateful stand-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hrm_edge.bench.hold import hold
from hrm_edge.device.clocks import power_mode
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from tests.machines import NVPMODEL_CONF

ROOT = Path(__file__).parents[2]
# `MAXN_SUPER` (id 2) stands for a mode that asks for a reboot and, answered with nothing, stays where it was.
NVPMODEL = """#!/bin/sh
case $1 in
-q) id=$(cat {0}/mode); printf 'NV Power Mode: %s\\n%s\\n' "$(cat {0}/name.$id)" "$id" ;;
-m) if [ "$2" = 2 ]; then read -r answer; [ "$answer" = yes ] || exit 1; fi
    echo "$2" >{0}/mode; echo free >{0}/clocks ;;
esac
echo "nvpmodel $*" >>{0}/log
"""
JETSON_CLOCKS = """#!/bin/sh
echo "jetson_clocks $1" >>{0}/log
case $1 in
--store) [ ! -e "$2" ] || exit 1; cp {0}/clocks "$2" ;;
--restore) cp "$2" {0}/clocks ;;
*) [ ! -e {0}/broken ] || exit 1; echo "locked in $(cat {0}/mode)" >{0}/clocks ;;
esac
"""


class Board:
    """Files that are the board's state, and programs that change them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in (("nvpmodel", NVPMODEL), ("jetson_clocks", JETSON_CLOCKS)):
            (folder / "bin" / name).write_text(text.replace("{0}", str(folder)))
            (folder / "bin" / name).chmod(0o755)
        for number, name in enumerate(("15W", "25W", "MAXN_SUPER")):
            (folder / f"name.{number}").write_text(name)
        (folder / "mode").write_text("0\n")
        (folder / "clocks").write_text("free\n")
        (folder / "etc").mkdir()
        (folder / "etc/nvpmodel.conf").write_text(NVPMODEL_CONF)
        self.system = System(folder)

    @property
    def state(self) -> tuple[str | None, str]:
        return power_mode(self.system), (self.folder / "clocks").read_text().strip()

    def wait_for(self, state: tuple[str, str]) -> None:
        for _ in range(200):
            if self.state == state:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.state}, not {state}")


@pytest.fixture
def board(tmp_path, monkeypatch) -> Board:
    made = Board(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return made


def keep(board: Board, **asked):
    return hold(system=board.system, become_root=(), **asked)


def test_the_board_is_held_and_given_back(board):
    with keep(board, lock_clocks=True, power_mode="25W"):
        assert board.state == ("25W", "locked in 1")
    assert board.state == ("15W", "free")


def test_only_the_clocks_or_only_the_mode(board):
    with keep(board, lock_clocks=True):
        assert board.state == ("15W", "locked in 0")
    with keep(board, power_mode="25W"):
        assert board.state == ("25W", "free")
    assert board.state == ("15W", "free")


def test_clocks_that_were_locked_before_are_locked_after(board):
    (board.folder / "clocks").write_text("locked by hand\n")
    with keep(board, lock_clocks=True, power_mode="25W"):
        pass
    assert board.state == ("15W", "locked by hand")


def test_nothing_asked_for_touches_nothing(board):
    with keep(board):
        pass
    assert not (board.folder / "log").exists()


def test_an_error_in_the_block_restores(board):
    with pytest.raises(ZeroDivisionError), keep(board, lock_clocks=True, power_mode="25W"):
        raise ZeroDivisionError
    assert board.state == ("15W", "free")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_killed_benchmark_restores(board, kill):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from hrm_edge.bench.hold import hold; from hrm_edge.device.system import System\n"
        f"with hold(lock_clocks=True, power_mode='25W', system=System(Path({str(board.folder)!r})), become_root=()):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "held\n"
        assert board.state == ("25W", "locked in 1")
        os.killpg(running.pid, kill)  # as a terminal does: the whole group
        running.wait(timeout=60)
    board.wait_for(("15W", "free"))


CASES = [
    ({"power_mode": "30W"}, "this board has no mode '30W'", "its own: 15W, 25W, MAXN_SUPER"),
    ({"power_mode": "MAXN_SUPER", "lock_clocks": True}, "does not switch to it without a reboot", "let it reboot"),
]


@pytest.mark.parametrize(("asked", "problem", "hint"), CASES)
def test_what_the_board_refuses_leaves_it_as_it_was(board, asked, problem, hint):
    with pytest.raises(UserError) as caught, keep(board, **asked):
        raise AssertionError("the block must not run")
    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert board.state == ("15W", "free")


def test_a_lock_that_fails_puts_the_mode_back(board):
    (board.folder / "broken").touch()
    with pytest.raises(UserError, match="jetson_clocks failed"), keep(board, lock_clocks=True, power_mode="25W"):
        raise AssertionError("the block must not run")
    assert board.state == ("15W", "free")


@pytest.mark.parametrize("sudo", [("sh", "-c", "echo 'sudo: a password is required' >&2; exit 1"), ("no-such-sudo",)])
def test_sudo_refused(board, sudo):
    with (
        pytest.raises(UserError, match="sudo was refused") as caught,
        hold(lock_clocks=True, system=board.system, become_root=sudo),
    ):
        raise AssertionError("the block must not run")
    assert "sudo -v" in caught.value.hint
    assert board.state == ("15W", "free")


def test_a_machine_that_is_no_jetson(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for asked in ({"lock_clocks": True}, {"power_mode": "15W"}):
        with pytest.raises(UserError, match="this machine has no"), hold(system=System(tmp_path), **asked):
            raise AssertionError("the block must not run")
