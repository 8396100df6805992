"""``hrm-edge remote`` against a real sshd on the loopback, with the real ssh, rsync and hrm-edge."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_edge import zoo
from hrm_edge.api.pipeline import EASY
from hrm_edge.doctor import Diagnosis
from hrm_edge.record.archive import read_archive
from tests.needs import installed
from tests.remote.board import Board, free_port
from tests.vision.scenes import OTHER, paper, scene

NANO = "sudoku-nano"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    board = Board(tmp_path_factory.mktemp("board"))
    yield board
    board.close()


@pytest.fixture
def board(shared: Board) -> Board:
    shared.configure()
    shared.install()
    shutil.rmtree(shared.home / ".cache", ignore_errors=True)
    (shared.home / "starts").unlink(missing_ok=True)
    return shared


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    return result


def test_doctor_there(board):
    done = board.remote("doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert Diagnosis.model_validate(json.loads(done.stdout)).passed
    assert board.starts("doctor") == 1


def test_a_model_is_sent_once_and_then_only_what_changed(board, tmp_path):
    first = board.remote("solve", EASY, "--json", "--model", NANO)
    assert answer(first)["verified"]
    assert "Sent " in first.stderr
    again = board.remote("solve", EASY, "--json", "--model", NANO)
    assert answer(again)["verified"]
    assert "board has the model already" in again.stderr
    # Another artifact with the same graph: its manifest is all that goes over the line.
    folder = zoo.folder_of(NANO)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "name": "other"}))
    before = board.line.passed
    assert answer(board.remote("solve", EASY, "--json", "--model", other))["verified"]
    assert board.line.passed - before < (folder / "step.onnx").stat().st_size / 4
    assert len(list(board.home.glob(".cache/hrm-edge/remote/*/models/*"))) == 2


def test_bench_brings_its_report_back(board, tmp_path):
    data = tmp_path / "easy puzzles.txt"
    data.write_text(f"{EASY}\n")
    done = board.remote("bench", NANO, "--duration", "1s", "--data", data, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["queries"] >= 64
    assert report["exact_accuracy"] == 1.0
    assert f"Report: {tmp_path}/r.json" in done.stdout
    pulled = board.remote("pull", "--out", tmp_path / "pulled")
    assert [json.loads(Path(line).read_text()) for line in pulled.stdout.split()] == [report]


def test_a_record_comes_back_as_one_archive(board, tmp_path):
    (tmp_path / "easy.txt").write_text(f"{EASY}\n")
    words = ("--models", "sudoku-nano-int8", "--backends", "onnxruntime", "--duration", "0.1s")
    done = board.remote("record", *words, "--data", tmp_path / "easy.txt", "--out", tmp_path / "board.tar.gz")
    assert done.returncode == 0, done.stderr
    (report,) = read_archive(tmp_path / "board.tar.gz").reports.values()
    assert report.exact_accuracy == 1.0
    assert "sudoku-nano-int8" in done.stdout
    assert done.stdout.splitlines()[-1] == f"Next: tar -tvf {tmp_path}/board.tar.gz"
    assert not list(board.home.glob(".cache/hrm-edge/remote/*/records/*"))
    refused = board.remote("record", "--models", "sudoku-nan", "--out", tmp_path / "none.tar.gz")
    assert (refused.returncode, "did you mean 'sudoku-nano'?" in refused.stderr) == (2, True)
    assert not (tmp_path / "none.tar.gz").exists()


def test_two_workstations_do_not_mix(board):
    one = subprocess.Popen(board.command("solve", EASY, "--json"), env=board.environ("one"), stdout=-1, stderr=-1)
    two = subprocess.Popen(board.command("solve", EASY, "--json"), env=board.environ("two"), stdout=-1, stderr=-1)
    for running in (one, two):
        out, words = running.communicate(timeout=200)
        assert running.returncode == 0, words
        assert json.loads(out)["results"][0]["verified"]
    spaces = list(board.home.glob(".cache/hrm-edge/remote/*"))
    assert len(spaces) == 2
    assert [len(list(space.glob("jobs/*"))) for space in spaces] == [1, 1]


def test_the_exit_code_and_the_words_of_the_board_come_back(board):
    done = board.remote("solve", "no puzzle")
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


REFUSED = [  # (key, known host key, what, mend)
    ("user", None, "board is not known here: its host key has to be accepted by you", "ssh board  (compare"),
    ("user", "stranger", "board shows another host key than before", "ssh-keygen -R board"),
    ("stranger", "host", "board refuses this user or key", "ssh-copy-id board"),
]


@pytest.mark.parametrize(("key", "known", "problem", "hint"), REFUSED)
def test_what_ssh_refuses(board, key, known, problem, hint):
    board.configure(key=key, known=known)
    before = (board.folder / "known_hosts").read_text()
    done = board.remote("doctor")
    assert done.returncode == 2
    assert f"Error: {problem}" in done.stderr
    assert hint in done.stderr
    assert (board.folder / "known_hosts").read_text() == before  # nothing was accepted behind the user's back
    assert board.starts("doctor") == 0


def test_bad_hosts_and_models(board, tmp_path):
    command = board.command("doctor")
    unknown = subprocess.run(
        [word if word != "board" else "no-such-host.invalid" for word in command], capture_output=True, text=True,
        check=False, env=board.environ("here"), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert unknown.returncode == 2
    assert "no-such-host.invalid" in unknown.stderr
    missing = board.remote("bench", tmp_path / "absent")
    assert missing.returncode == 2
    assert "no model" in missing.stderr
    assert "needs a file" in board.remote("bench", NANO, "--json").stderr


def test_a_board_without_hrm_edge(board):
    shutil.rmtree(board.home / ".local")
    done = board.remote("solve", EASY)
    if "Error" not in done.stderr:
        pytest.skip("this machine has hrm-edge on sshd's PATH")
    assert "hrm-edge is not installed on board" in done.stderr
    assert "hrm-edge remote board setup" in done.stderr


def test_setup_needs_a_wheelhouse_for_the_boards_machine(board, tmp_path):
    assert "make wheelhouse" in board.remote("setup", "--wheelhouse", tmp_path).stderr
    (tmp_path / "setup.sh").write_text("echo")
    (tmp_path / "x-1-cp311-cp311-manylinux_2_28_riscv64.whl").touch()
    (tmp_path / "setup.sh").write_text('echo "installed with $*"; echo "Next: hrm-edge bench"')
    done = board.remote("setup", "--wheelhouse", tmp_path, "--", "--link")
    assert done.returncode == 0, done.stderr
    assert "installed with --offline" in done.stderr
    assert "--link" in done.stderr
    assert (done.stderr.count("Next"), done.stdout.count("Next")) == (0, 1)  # a command of this machine alone
    (tmp_path / "setup.sh").write_text("echo 'Error: no room' >&2; exit 2")
    failed = board.remote("setup", "--wheelhouse", tmp_path)
    assert failed.returncode == 2
    assert "Error: no room" in failed.stderr
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[subprocess.check_output(["uname", "-m"], text=True).strip()]
    (tmp_path / f"y-1-cp311-cp311-manylinux_2_28_{other}.whl").touch()
    refused = board.remote("setup", "--wheelhouse", tmp_path)
    assert refused.returncode == 2
    assert f"is for {other}" in refused.stderr


def test_ctrl_c_stops_the_job_there(board):
    running = subprocess.Popen(
        board.command("bench", NANO, "--duration", "120s", "--limit", "2"), env=board.environ("here"), cwd=board.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not board.starts("bench"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    group = int((board.jobs()[0] / "group").read_text())
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Interrupted: the job on board was stopped" in words
    assert subprocess.run(["ps", "-o", "pid=", "-g", str(group)], capture_output=True, check=False).stdout == b""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace that has a loopback of its own."""
    if os.geteuid():
        pytest.skip("needs root, for a network of the board's own")
    ip = installed("ip", "iproute2")
    name = f"hrm{os.getpid()}"
    subprocess.run([ip, "netns", "add", name], check=True)
    try:
        subprocess.run([ip, "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run([ip, "netns", "del", name], check=False)


def ask(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
        return reply.read()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "terminal-closed"])
def test_the_demos_page_is_shown_here_and_the_demo_ends_with_the_command(board, namespace, tmp_path, ending):
    """The board's camera sees a photo; its page is reached through ssh alone."""
    cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
    board.configure(namespace=namespace)
    port, photo = free_port(), tmp_path / "photo.png"
    cv2.imwrite(str(photo), scene(paper(OTHER)))
    running = subprocess.Popen(
        board.command("demo", "--port", port, "--camera", photo), env=board.environ("here"), cwd=board.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    state: dict = {}
    end = time.monotonic() + 120
    while state.get("state") != "solved":
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < end, state
        time.sleep(0.2)
        with contextlib.suppress(OSError, http.client.HTTPException):  # not there yet
            state = json.loads(ask(port, "/state"))
    assert state["board"]["givens"] == OTHER
    assert state["thought"]["verified"]
    assert b"<html" in ask(port, "/")
    (job,) = board.jobs()
    group = int((job / "group").read_text())
    running.send_signal(ending)
    _, words = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Interrupted: the job on board was stopped" in words
    assert subprocess.run(["ps", "-o", "pid=", "-g", str(group)], capture_output=True, check=False).stdout == b""


def once_through_cuts(board: Board, name: str, plan) -> tuple[bool, bool]:
    """Solve on the board while ``plan(process)`` cuts the line; the answer comes back whole, and the job ran once.

    Whether the line was cut, and whether a command was under way then; between two of them nobody notices.
    """
    cuts = board.line.cuts
    running = subprocess.Popen(
        board.command("solve", EASY, "--json"), env=board.environ(name), stdout=-1, stderr=-1, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    plan(running)
    out, words = running.communicate()
    assert running.returncode == 0, words
    assert json.loads(out)["results"][0]["verified"]
    assert board.starts("solve") == 1, "the job must run once, whatever the line does"
    return board.line.cuts > cuts, "trying again" in words


def test_a_cut_while_sending_is_gone_on_from(board):
    def plan(running: object) -> None:
        sent = zoo.folder_of(zoo.default_for("sudoku")) / "step.onnx"
        board.line.cut_after = board.line.passed + int(0.5 * sent.stat().st_size)

    assert once_through_cuts(board, "cut", plan) == (True, True)


def test_a_cut_in_the_first_handshake_is_gone_on_from(board):
    def plan(running: object) -> None:
        board.line.cut_after = board.line.passed + 100

    assert once_through_cuts(board, "shake", plan) == (True, True)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_cuts_at_random_points(board):
    """Ten by bytes, which hits the copying; ten by time, which hits the start, the following and the end."""
    rng = random.Random(9)
    began = time.monotonic()
    board.line.passed = 0
    assert answer(board.remote("solve", EASY, "--json"))["verified"]
    whole_s, whole_bytes = time.monotonic() - began, board.line.passed
    seen: list[bool] = []
    for attempt in range(60):
        shutil.rmtree(board.home / ".cache", ignore_errors=True)
        (board.home / "starts").unlink()
        moment, share = rng.uniform(0.0, 0.9) * whole_s, rng.uniform(0.0, 0.99)

        def by_bytes(running: object, share: float = share) -> None:
            board.line.cut_after = board.line.passed + int(share * whole_bytes)

        def by_time(running: subprocess.Popen[str], moment: float = moment) -> None:
            end = time.monotonic() + moment
            while running.poll() is None and (time.monotonic() < end or not board.line.cut()):
                time.sleep(0.01)

        cut, noticed = once_through_cuts(board, f"turn{attempt}", by_bytes if len(seen) % 2 else by_time)
        if cut:  # else it was over sooner than the first time
            seen.append(noticed)
        if len(seen) == 20:
            break
    assert len(seen) == 20
    assert sum(seen) >= 12
