"""Launching: bad input ends with one message and no process left; hosts that are cut off from the others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from hrm_edge.checkpoint import checkpoints
from hrm_edge.cli.train import train
from hrm_edge.data.sudoku import Options, build
from hrm_edge.errors import UserError
from hrm_edge.model.load import load_model
from hrm_edge.tasks import get_task
from hrm_edge.training import launch as launching
from hrm_edge.training.launch import Hosts, launch
from hrm_edge.training.loggers import LOG_FILE, read_lines
from tests.train.ranks import ROOT, recipe


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    build(get_task("mini-sudoku"), folder / "data", Options(source="generate", count=200, test_count=40, seed=0))
    (folder / "recipe.yaml").write_text(recipe(folder / "data", steps=100_000).dump())
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nproc", "3"], "train.batch is 16, which 3 processes cannot share equally\nuse --set train.batch=15"),
        (["--nnodes", "1:3", "--rdzv-endpoint", "h", "--rdzv-id", "x"], "train.batch is 16, which 3 processes"),
        (["--nnodes", "2"], "several hosts have to meet somewhere\nadd --rdzv-endpoint"),
        (["--rdzv-endpoint", "h:1"], "the job needs a name\nadd --rdzv-id"),
        (["--rdzv-endpoint", "h:0", "--rdzv-id", "x"], "'0' is no port\nwrite it as h:29400"),
        (["--rdzv-endpoint", "h:x", "--rdzv-id", "x"], "'x' is no port"),
    ],
)
def test_bad_input_starts_nothing(recipe_file: Path, tmp_path: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(train, [str(recipe_file), "--out", str(tmp_path / "run"), *words])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["0", "2:1", "x", ":2"])
def test_a_wrong_number_of_hosts(recipe_file: Path, words: str) -> None:
    result = CliRunner().invoke(train, [str(recipe_file), "--nnodes", words])
    assert result.exit_code == 2
    assert "is no number of hosts: write 2, or 1:4" in result.output


def test_a_port_that_another_program_has(recipe_file: Path, tmp_path: Path) -> None:
    """In a process of its own: torch counts groups that failed, and this process would name its next one otherwise."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use by another program\nchoose another"):
            launch([], Hosts(1, (2, 2), f"127.0.0.1:{port}", "x"))
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, "-m", "hrm_edge", "train", str(recipe_file), "--out", str(tmp_path / "run")],
            env={**os.environ, **place, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"Error: port 127.0.0.1:{port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_host_that_does_not_come_ends_in_a_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hosts, "join_timeout", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=f"fewer than 2 hosts came to 127.0.0.1:{port} within 1 s\nstart the same"):
        launch([], Hosts(1, (2, 2), f"127.0.0.1:{port}", "x", timeout=1))
    monkeypatch.setattr(launching, "_opens_port", lambda *_: False)  # as if that were another host's port
    # It has met nobody there yet, so the address may be wrong: it does not look for it until the test's time is over.
    monkeypatch.setattr(Hosts, "join_timeout", 3600)
    with pytest.raises(UserError, match=f"no way to 127.0.0.1:{port}, where the hosts are to meet: [^\n]*\nstart the"):
        launch([], Hosts(1, (2, 2), f"127.0.0.1:{port}", "x", timeout=0.5))
    assert "looking for it" not in capfd.readouterr().err


class OtherHost:
    """What a host meets at the place of another one: a store; and workers that do what they are told, not training."""

    def __init__(self, folder: Path) -> None:
        self.pids, self.code = folder / "pids", folder / "code"
        self.executable = folder / "worker"
        once = f"code=$(cat {self.code} 2>&-) && [ $code ] && rm {self.code} && exit $code"
        self.executable.write_text(f"#!/bin/sh\necho $$ >>{self.pids}\nwhile :; do {once}; sleep 0.1; done\n")
        self.executable.chmod(0o755)
        self.store: TCPStore | None = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.port = self.store.port

    def workers(self) -> list[int]:
        """The process ids of all that were started, as yet."""
        return [int(line) for line in self.pids.read_text().splitlines()] if self.pids.exists() else []

    def running(self) -> list[int]:
        return [pid for pid in self.workers() if Path(f"/proc/{pid}").exists()]

    def wait_for_worker(self, number: int) -> None:
        wait_until(lambda: len(self.workers()) == number and len(self.running()) == 1)

    def cut(self) -> None:
        self.store = None
        wait_until(lambda: not self.running())

    def hint(self) -> None:
        self.store = TCPStore("127.0.0.1", self.port, is_master=True, wait_for_workers=False)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherHost]:
    host = OtherHost(tmp_path)
    monkeypatch.setattr(sys, "executable", str(host.executable))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield host
    for number, handler in before.items():  # torch's agent has put its own there
        signal.signal(number, handler)
    for pid in host.running():
        os.kill(pid, signal.SIGKILL)


def meanwhile(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_a_host_that_is_cut_off_for_good_gives_up_and_leaves_no_process(
    other_host: OtherHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hosts, "join_timeout", 2)
    cut: list[float] = []
    beating: list[str] = []

    def cut_it_off() -> None:
        other_host.wait_for_worker(1)
        other_host.cut()
        cut.append(time.monotonic())
        time.sleep(1)
        beating.extend(thread.name for thread in threading.enumerate() if "KeepAlive" in thread.name)

    thread = meanwhile(cut_it_off)
    place = f"127.0.0.1:{other_host.port}"
    with pytest.raises(UserError, match=f"no way to {place}, where the hosts are to meet: [^\n]*\nstart the first"):
        launch([], Hosts(1, (1, 1), place, "x", timeout=1))
    thread.join()
    assert time.monotonic() - cut[0] >= 1.9
    assert capfd.readouterr().err.count(f"hrm-edge: {place} is out of reach: looking for it for 2 s\n") == 1
    assert len(other_host.workers()) == 1
    assert not other_host.running()
    assert not beating, "kept alive, it would be waited for when the way is free again"


def test_under_nohup_it_outlives_its_terminal(other_host: OtherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")  # what the launcher sets goes when the test ends
    monkeypatch.delenv("TORCHELASTIC_SIGNALS_TO_HANDLE")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def close_the_terminal() -> None:
        other_host.wait_for_worker(1)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.5)
        other_host.code.write_text("0")

    thread = meanwhile(close_the_terminal)
    assert launch([], Hosts(1)) == 0
    thread.join()
    assert len(other_host.workers()) == 1


@pytest.mark.parametrize(("cuts", "last_code"), [(2, 0), (1, 75)])
def test_a_host_that_was_cut_off_goes_on_with_the_restarts_it_had_left(
    other_host: OtherHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cuts: int, last_code: int
) -> None:
    monkeypatch.setattr(Hosts, "join_timeout", 5)

    def cut_it_off() -> None:
        other_host.wait_for_worker(1)
        other_host.code.write_text("75")  # lost: the one restart
        other_host.wait_for_worker(2)
        for number in range(cuts):
            time.sleep(5 * number)  # beyond the time of the first search; the second has its own
            other_host.cut()
            time.sleep(2.5)  # long enough for one try to fail
            other_host.hint()
            other_host.wait_for_worker(3 + number)
        other_host.code.write_text(str(last_code))

    thread = meanwhile(cut_it_off)
    hosts = Hosts(1, (1, 1), f"127.0.0.1:{other_host.port}", "x", max_restarts=1, timeout=1)
    if last_code:
        with pytest.raises(UserError, match=r"a process was lost \(exit codes \[75\]\) and 1 restarts are used up"):
            launch([], hosts)
    else:
        assert launch([], hosts) == 0
    thread.join()
    assert len(other_host.workers()) == 2 + cuts
    assert not other_host.running()
    assert capfd.readouterr().err.count("is out of reach: looking for it for 5 s\n") == cuts


@pytest.mark.slow
def test_a_host_lost_while_all_meet_is_gone_on_without(
    other_host: OtherHost, capfd: pytest.CaptureFixture[str]
) -> None:
    other_host.store = None  # this host opens the port
    place = f"127.0.0.1:{other_host.port}"

    def meet_and_vanish() -> None:
        other_host.wait_for_worker(1)
        meeting = launching._meeting_place(Hosts(1, (1, 2), place, "x", timeout=30))  # beside other work too
        other = launching._rendezvous(meeting)
        assert other.next_rendezvous().world_size == 2
        other._stop_heartbeats()
        wait_until(lambda: not other_host.running())
        other_host.wait_for_worker(2)
        other_host.code.write_text("0")

    thread = meanwhile(meet_and_vanish)
    assert launch([], Hosts(1, (1, 2), place, "x", timeout=1)) == 0
    thread.join()
    assert len(other_host.workers()) == 2
    assert "another host is out of reach: looking for it for 60 s\n" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's socket options")
def test_connections_to_the_meeting_place_end_when_it_is_silent() -> None:
    def limit(connection: socket.socket) -> int:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as another:
        place, elsewhere = server.getsockname(), another.getsockname()
        with socket.create_connection(place) as mine, socket.create_connection(elsewhere) as other:
            launching._end_silent_connections(place[1], 7)
            assert [limit(connection) for connection in (mine, other, server)] == [7000, 0, 0]
            assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            mine.sendall(b"x")
            with server.accept()[0] as accepted:
                assert accepted.recv(1) == b"x", "it is still open"


def test_threads_are_shared_out_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(launching, "_run", lambda *_: seen.append(os.environ["OMP_NUM_THREADS"]))
    monkeypatch.setattr(launching, "_exit_code", lambda *_: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    for given, nproc in ((None, 5), (None, 40), ("7", 5)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        launch([], Hosts(nproc))
    assert seen == ["2", "1", "7"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "largest_file", "code", "message"),
    [
        ("train.lr=1e30", None, 1, r"Failed: (the loss is \w+|a weight is not finite) at step \d+\n +the last good"),
        ("train.steps=90", 100_000, 2, "File too large"),
    ],
    ids=["nan", "full disk"],
)
def test_what_ends_one_of_two_ranks_ends_both_with_one_message(
    recipe_file: Path, tmp_path: Path, setting: str, largest_file: int | None, code: int, message: str
) -> None:
    def limit() -> None:
        if largest_file is not None:  # a write beyond it fails as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    words = ["train", str(recipe_file), "--out", str(tmp_path / "run"), "--nproc", "2", "--set", setting]
    done = subprocess.run(
        [sys.executable, "-m", "hrm_edge", *words], env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert len(re.findall(message, done.stderr)) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "all go on from the last checkpoint" not in done.stderr, "it would meet the same again"
    for folder in checkpoints(tmp_path / "run"):
        assert all(bool(p.isfinite().all()) for p in load_model(folder)[0].parameters())


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two hosts on one cable: network namespaces with addresses 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and iproute2 (apt install iproute2)")
    names = (f"hrm{os.getpid()}a", f"hrm{os.getpid()}b")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def wait_for_ranks(run: Path, ranks: int, beyond: int, hosts: list[subprocess.Popen[bytes]]) -> int:
    """Wait for a checkpoint later than step ``beyond`` that was saved on ``ranks`` ranks; returns its step."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert [host.poll() for host in hosts] == [None] * len(hosts)
        for folder in reversed(checkpoints(run)):
            with contextlib.suppress(OSError):  # pruned just now
                step = int(folder.name[-8:])
                if step > beyond and json.loads((folder / "loop.json").read_text())["ranks"] == ranks:
                    return step
        time.sleep(0.2)
    raise AssertionError(f"no checkpoint of {ranks} ranks beyond step {beyond}")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hosts_go_on_while_one_is_cut_off_and_when_it_is_back(
    recipe_file: Path, tmp_path: Path, namespaces: tuple[str, str]
) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "hrm_edge", "train", str(recipe_file), "--out", str(run), "--nnodes", "1:2"]
    words += ["--rdzv-endpoint", "10.77.0.1:29400", "--rdzv-id", "two", "--host-timeout", "10s"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = tmp_path / "said by the second host"
    with said.open("wb") as file:
        hosts = [
            subprocess.Popen(["ip", "netns", "exec", name, *words], env=environment, stderr=stderr)
            for name, stderr in zip(namespaces, (None, file), strict=True)
        ]
    try:
        together = wait_for_ranks(run, 2, 0, hosts)
        ip("-n", namespaces[1], "link", "set", "cable", "down")
        alone = wait_for_ranks(run, 1, together, hosts)
        wait_until(lambda: b"10.77.0.1:29400 is out of reach: looking for it for 60 s" in said.read_bytes())
        ip("-n", namespaces[1], "link", "set", "cable", "up")
        again = wait_for_ranks(run, 2, alone, hosts)
        hosts[0].send_signal(signal.SIGINT)
        assert [host.wait(200) for host in hosts] == [130, 130]
        assert load_model(checkpoints(run)[-1])[1].step >= again
        steps = [line["step"] for line in read_lines(run / LOG_FILE) if line["kind"] == "train"]
        assert steps == list(range(20, steps[-1] + 1, 20))  # no gap, no repeat
    finally:
        for host in hosts:
            host.kill()
            host.wait()
