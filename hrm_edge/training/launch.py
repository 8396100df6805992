"""Several processes from one command: torch's elastic agent with our way of saying what went wrong.

The agent is the one torchrun runs. It starts this host's processes, meets the agents of other hosts, and starts all
processes again when one is lost or a host comes or goes. What torchrun does not do: it would repeat a run that ended
with a message for the user, and ends for good on a host that is cut off from the one where all meet.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
import uuid
from dataclasses import dataclass

import torch.distributed.elastic.rendezvous.registry as registry
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousTimeoutError,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler

from hrm_edge.child import python_command
from hrm_edge.errors import EXIT_INTERRUPTED, EXIT_OK, UserError
from hrm_edge.training.distributed import DEFAULT_TIMEOUT_S, EXIT_LOST, address_towards

_DEFAULT_PORT = "29400"  # torchrun's
_ASKED_S = 5.0  # a program at the port, whether it is a store of torch
# A worker that ended by itself has said why, and would say it again; one that was killed or lost the others has not.
_AGAIN = {EXIT_LOST, *(-number for number in signal.valid_signals())}


@dataclass(frozen=True)
class Hosts:
    """Processes that take part: torchrun's arguments by their names."""

    nproc: int = 1
    nnodes: tuple[int, int] = (1, 1)
    """Fewest and most hosts."""
    rdzv_endpoint: str = ""
    """``host[:port]`` of the one where all meet; empty on a single host."""
    rdzv_id: str = ""
    max_restarts: int = 3
    timeout: float = DEFAULT_TIMEOUT_S
    """Seconds to wait for the other hosts."""

    @property
    def join_timeout(self) -> float:
        """Seconds to wait for enough hosts, or for the way back to them: more than the 45 that it takes to count out
        one that is gone."""
        return max(60.0, self.timeout)

    def rank_counts(self) -> list[int]:
        """Return how many ranks there may be."""
        return [self.nproc * nodes for nodes in range(self.nnodes[0], self.nnodes[1] + 1)]


# Ways in which a host is out of reach. torch shares out the ranks past the rendezvous, on the bare store: there another
# host that took part in the meeting, and was gone before all had their ranks, is a DistError.
_OUT_OF_REACH = (RendezvousConnectionError, DistError)


class _Agent(LocalElasticAgent):
    """Starts the workers again unless they have ended for a reason that stays, and says why.

    torch starts them again whatever their exit code was, and tells nobody: for this there is no public way. Private in
    torch are ``_monitor_workers``, ``_restart_workers`` and ``_remaining_restarts`` here, and ``_stop_heartbeats`` in
    ``_take_part``.
    """

    @property
    def restarts(self) -> int:
        """Number of restarts left for lost workers."""
        return int(self._remaining_restarts)

    @property
    def has_met(self) -> bool:
        """Whether it has met the agents of enough hosts and started its workers."""
        return any(worker.id is not None for worker in self.get_worker_group().workers)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if any(failure.exitcode not in _AGAIN for failure in result.failures.values()):
            self._remaining_restarts = 0
        return result

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        why = "a process was lost" if worker_group.state == WorkerState.FAILED else "a host has come or gone"
        left = f"{self._remaining_restarts} more restarts"
        print(f"hrm-edge: {why}: all go on from the last checkpoint ({left})", file=sys.stderr)
        super()._restart_workers(worker_group)


def launch(arguments: list[str], hosts: Hosts) -> int:
    """Run ``hrm-edge`` with ``arguments`` in ``hosts.nproc`` processes here and wait; returns the exit code.

    Raises ``UserError`` when the other hosts do not come, the port is taken, or the workers are lost too often.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it in our own words
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # torch's agent keeps one store for all rounds, in which workers that were started again find the addresses of those
    # that are gone; without sharing every round gets a new one.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // hosts.nproc)))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: torch 2.9 and later can let the signal alone
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    try:
        result = _run(arguments, hosts)
    except SignalException:
        return EXIT_INTERRUPTED
    except RendezvousTimeoutError as error:
        raise UserError(
            f"fewer than {hosts.nnodes[0]} hosts came to {hosts.rdzv_endpoint} within {hosts.join_timeout:g} s",
            "start the same command on every host, with the same --rdzv-endpoint and --rdzv-id",
        ) from error
    except RendezvousClosedError as error:
        raise UserError("the run was ended by another host", "its messages say why") from error
    except (RendezvousError, DistError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]  # torch adds its C++ stack
        raise UserError(
            f"no way to {hosts.rdzv_endpoint}, where the hosts are to meet: {reason}",
            "start the first host first; check its address, the port and the firewall",
        ) from error
    return _exit_code(result, hosts)


def _exit_code(result: RunResult, hosts: Hosts) -> int:
    codes = [failure.exitcode for failure in result.failures.values()]
    if not codes:
        return EXIT_OK
    for code in codes:
        if code not in _AGAIN:
            return int(code)
    raise UserError(
        f"a process was lost (exit codes {codes}) and {hosts.max_restarts} restarts are used up",
        "the last checkpoint is kept: go on with --resume",
    )


def _run(arguments: list[str], hosts: Hosts) -> RunResult:
    """Run the agent of this host. When it has met the others and is cut off from where they met, it looks for the way
    back; raises one of ``_OUT_OF_REACH`` when there is none for ``hosts.join_timeout`` seconds."""
    place = _meeting_place(hosts)
    restarts = hosts.max_restarts
    search_until = 0.0  # who has not met anybody yet does not search: the address may be wrong
    while True:
        agent: _Agent | None = None
        try:
            # The old rendezvous lives until the new one is there: on the host of the port, the others' store with it.
            rendezvous = _rendezvous(place)
            agent = _agent(arguments, hosts, rendezvous, restarts)
            return _take_part(agent, rendezvous)
        except _OUT_OF_REACH as error:
            if agent is not None and agent.has_met:
                # Restarts that were used stay used, as they do for the hosts that go on. The cut itself uses none, like
                # any coming and going of hosts: the time limits it.
                restarts = agent.restarts
                search_until = time.monotonic() + hosts.join_timeout
                what = "another host" if isinstance(error, DistError) else place.endpoint
                seconds = f"{hosts.join_timeout:g} s"
                print(f"hrm-edge: {what} is out of reach: looking for it for {seconds}", file=sys.stderr)
            elif time.monotonic() >= search_until:
                raise
        time.sleep(1)


def _meeting_place(hosts: Hosts) -> RendezvousParameters:
    """Return where and how long all hosts meet. Called once: the second time this process itself has the port."""
    single = not hosts.rdzv_endpoint
    endpoint = "localhost:0" if single else hosts.rdzv_endpoint
    host, _, port = endpoint.partition(":")
    is_host = single or _opens_port(host, port or _DEFAULT_PORT)
    # the address that the others are to reach: not what this host's own name happens to resolve to
    local_address = "127.0.0.1" if single else address_towards(host)
    patience = max(1, int(hosts.timeout))  # torch wants whole seconds
    return RendezvousParameters(
        backend="c10d",
        endpoint=endpoint,
        run_id=hosts.rdzv_id or uuid.uuid4().hex,
        min_nodes=hosts.nnodes[0],
        max_nodes=hosts.nnodes[1],
        local_addr=local_address,
        is_host=is_host,
        join_timeout=int(hosts.join_timeout),
        read_timeout=min(60, patience),
        last_call_timeout=min(30, patience),
    )


def _rendezvous(place: RendezvousParameters) -> DynamicRendezvousHandler:
    """Return this host's part in the meeting; torch's ``RendezvousConnectionError`` where it cannot be reached."""
    rendezvous = registry.get_rendezvous_handler(place)
    assert isinstance(rendezvous, DynamicRendezvousHandler)  # what "c10d" stands for
    port = int(place.endpoint.partition(":")[2] or _DEFAULT_PORT)
    if port and sys.platform == "linux":
        _end_silent_connections(port, int(place.config["read_timeout"]))
    return rendezvous


def _end_silent_connections(port: int, seconds: int) -> None:
    """Make this process's connections to ``port`` of any host fail after ``seconds`` without a sign of the other side.

    torch gives its store no such limit: an agent that was cut off would hang, deaf to Ctrl-C too, until TCP has tried
    again, which it does ever more rarely, or has given up after a quarter of an hour.
    """
    options = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): max(1, seconds // 4),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): max(1, seconds // 4),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): seconds * 1000,
    }
    for name in os.listdir("/proc/self/fd"):  # torch does not tell which one is its own
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername()[1] == port:
                    for (level, option), value in options.items():
                        connection.setsockopt(level, option, value)


def _agent(arguments: list[str], hosts: Hosts, rendezvous: DynamicRendezvousHandler, restarts: int) -> _Agent:
    program, *options = python_command("-m", "hrm_edge", *arguments)
    spec = WorkerSpec(
        role="train",
        local_world_size=hosts.nproc,
        rdzv_handler=rendezvous,
        entrypoint=program,
        args=tuple(options),
        max_restarts=restarts,
        monitor_interval=0.1,
    )
    return _Agent(spec, DefaultLogsSpecs(), exit_barrier_timeout=hosts.timeout)


def _take_part(agent: _Agent, rendezvous: DynamicRendezvousHandler) -> RunResult:
    """Run the agent to its end, which stops its workers. Then the run is over for all hosts, except where only this one
    was interrupted or cut off."""
    try:
        return agent.run()
    except _OUT_OF_REACH:
        # It comes back under a new name; under the old one, kept alive by its heartbeats, the others would wait for it.
        rendezvous._stop_heartbeats()
        raise
    finally:
        if not isinstance(sys.exc_info()[1], (SignalException, *_OUT_OF_REACH)):
            rendezvous.shutdown()


def _opens_port(host: str, port: str) -> bool:
    """Return whether it is this machine that opens the port where all meet, rather than finds it open.

    torch asks the machine's own name, which on many machines, and in containers, leads elsewhere. Raises ``UserError``
    where something else listens there.
    """
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--rdzv-endpoint: '{port}' is no port", f"write it as {host}:{_DEFAULT_PORT}")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
        return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # another machine's address, or one that does not resolve: torch tells
            return False
    if not _is_store(host, int(port)):
        raise UserError(
            f"port {port} of {host} is in use by another program", "choose another: --rdzv-endpoint HOST:PORT"
        )
    return False  # another agent of this job, or of another that shares the port


def _is_store(host: str, port: int) -> bool:
    """Return whether torch's store answers there, asked on a thread: torch waits for a silent program without end."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=datetime.timedelta(seconds=_ASKED_S))
            answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(_ASKED_S)
