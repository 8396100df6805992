"""The processes that train together: who they are, what they tell each other, what is said when one is lost.

torchrun's environment says who takes part (``hrm-edge train --nproc`` sets it too); without it a process is alone. NCCL
carries what is on a GPU, Gloo what is on a CPU, MPI both where mpirun started us and torch was built with it.

Axes: W ranks, B slots of all ranks, of which each rank has B / W, rank after rank.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import fcntl
import gc
import inspect
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrm_edge.errors import EXIT_OK, HrmEdgeError, UserError

EXIT_LOST = 75  # EX_TEMPFAIL of sysexits.h: between a worker and its launcher, which starts the workers again
DEFAULT_TIMEOUT_S = 600.0
T = TypeVar("T")

_LOST = re.compile(
    r"gloo|nccl|cuda error|connection (closed|reset|refused)|broken pipe|timed? ?out|socket|peer|store", re.IGNORECASE
)


class LostPeers(HrmEdgeError):
    """Another rank is gone or cannot be reached; a launcher may start all ranks again."""

    exit_code = EXIT_LOST


class OtherRankFailed(HrmEdgeError):
    """Another rank has failed and says why: this one only ends, with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another rank failed")
        self.exit_code = exit_code


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def share(self, count: int) -> slice:
        """Return the part of ``count`` consecutive things, a multiple of W, that is this rank's."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def exchange(self, value: int) -> list[int]:
        """Return the value of every rank, [W]."""
        if self.size == 1:
            return [value]
        every = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(every, torch.tensor([value], dtype=torch.int64))
        return [int(one) for one in every]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Return rows [B / W, ...] of every rank, in the order of slots [B, ...]."""
        if self.size == 1:
            return tensor
        every = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(every, tensor.contiguous())
        return torch.cat(every)

    def collect(self, tensor: Tensor) -> Tensor:
        """Return a copy on the CPU of rows [B / W, ...] of every rank: [B, ...] on rank 0, nothing of use elsewhere."""
        mine = tensor.detach().to("cpu", copy=True).contiguous()
        if self.size == 1:
            return mine
        raw = mine.flatten().view(torch.uint8)  # as bytes, since not every backend gathers every dtype
        every = [torch.empty_like(raw) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(raw, every, dst=0)
        return mine if every is None else torch.cat([e.view(mine.dtype).view_as(mine) for e in every])

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return the model, called so that its gradients become the mean over the ranks."""
        if self.size == 1:
            return model
        # Buffers are the same everywhere: fixed, or the puzzle table, which every rank updates with all gradients.
        keys = inspect.signature(DistributedDataParallel).parameters
        key = "forward_sync_buffers" if "forward_sync_buffers" in keys else "broadcast_buffers"  # before torch 2.13
        options: dict[str, Any] = {key: False, "device_ids": [self.device] if self.device.type == "cuda" else None}
        return DistributedDataParallel(model, **options)

    def on_all_ranks(self, action: Callable[[], T]) -> T:
        """Do ``action`` on every rank; where it fails on one, that one raises its error and the others end silently."""
        failure: HrmEdgeError | None = None
        try:
            result = action()
        except HrmEdgeError as error:
            failure = error
        codes = self.exchange(failure.exit_code if failure is not None else EXIT_OK)
        first = next((rank for rank, code in enumerate(codes) if code), None)
        if failure is not None and first == self.rank:
            raise failure
        if first is not None:
            raise OtherRankFailed(codes[first])
        return result

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn the error of a collective that lost its peers into :class:`LostPeers`."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _LOST.search(str(error)):
                raise
            first = str(error).partition("\n")[0]
            raise LostPeers(
                f"rank {self.rank} of {self.size} lost another rank: {first[:200]}",
                "the last checkpoint is kept: start all hosts again with --resume (a launcher with restarts left does)",
            ) from error


def alone() -> World:
    """Return the world of one process."""
    return World(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def joined(timeout: float = DEFAULT_TIMEOUT_S) -> Iterator[World]:
    """Meet the other ranks that the environment names, for the block; without such an environment be alone.

    ``timeout`` seconds are waited for the others, now and in every exchange. Raises ``UserError`` when they do not
    come, when the port is taken, or where torch lacks the backend.
    """
    place = _place(os.environ)
    if place is None:
        yield alone()
        return
    rank, size, local_rank = place
    _end_with_the_launcher()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank} of this host has no GPU: there are {torch.cuda.device_count()}",
                "use as many processes per host as it has GPUs, or CUDA_VISIBLE_DEVICES= to train on the CPU",
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    backend = _backend(device, os.environ)
    _choose_interface(os.environ)
    _meet(backend, rank, size, timeout)
    yield World(device, rank, size, local_rank)
    # A group that something still refers to keeps its threads, and a thread that meets Python's end aborts the process.
    # DDP's modules refer to it in cycles.
    gc.collect()
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def _meet(backend: str, rank: int, size: int, timeout: float) -> None:
    begun = time.monotonic()
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        if backend == "mpi":
            dist.init_process_group("mpi")
        else:
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=datetime.timedelta(seconds=timeout))
    except (dist.DistError, RuntimeError, ValueError) as error:
        text = str(error)
        if "address already in use" in text.lower() or "EADDRINUSE" in text:
            raise UserError(f"port {where} is in use", "choose another MASTER_PORT, the same on all hosts") from error
        if not _LOST.search(text):
            raise
        reason = text.partition("\n")[0][:200]
        raise LostPeers(
            f"rank {rank} waited {time.monotonic() - begun:.0f} s for {size} ranks to meet at {where}: {reason}",
            "start the command on every host; check that the hosts reach this address and port (firewall, name)",
        ) from error


def _place(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return (rank, ranks, rank on this host) from torchrun's or mpirun's environment; None without either."""
    sets = [
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ]
    for rank, size, local in sets:
        if rank in environment and size in environment:
            place = int(environment[rank]), int(environment[size]), int(environment.get(local, "0"))
            return place if place[1] > 1 or "TORCHELASTIC_RUN_ID" in environment else None
    return None


def _backend(device: torch.device, environment: Mapping[str, str]) -> str:
    if "RANK" not in environment:  # started by mpirun
        if not dist.is_mpi_available():
            raise UserError(
                "mpirun started this, but this torch was built without MPI",
                "start it with 'hrm-edge train --nproc N' or torchrun instead",
            )
        return "mpi"
    if device.type == "cpu":
        return "gloo"
    if not dist.is_nccl_available():
        raise UserError("this torch has CUDA but not NCCL", "install a torch for CUDA on Linux, or use one process")
    return "cpu:gloo,cuda:nccl"


def _choose_interface(environment: Mapping[str, str]) -> None:
    """Tell Gloo which network interface to use: the host's own name often means a loopback. It is the one that leads to
    the other hosts instead, unless the user has."""
    if "GLOO_SOCKET_IFNAME" in environment or "MASTER_ADDR" not in environment or sys.platform != "linux":
        return
    address = address_towards(environment["MASTER_ADDR"])
    for _, name in socket.if_nameindex():
        if address is not None and _address_of(name) == address:
            os.environ["GLOO_SOCKET_IFNAME"] = name
            return


def address_towards(host: str) -> str | None:
    """Return this machine's own IPv4 address on the way to ``host``; None where there is no way. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


def _address_of(interface: str) -> str | None:
    siocgifaddr = 0x8915  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe.fileno(), siocgifaddr, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(reply[20:24])


def _end_with_the_launcher() -> None:
    """End this worker when its launcher is killed: it would go on writing into a folder that is resumed."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
