"""A GPU that is not there: memory, one queue per stream, graphs, and TensorRT engines that run an ONNX file for real.

It is stricter than a GPU where that finds mistakes: queued work runs only when something waits for it, new memory is
poisoned, an access outside an allocation is an error, and recording runs nothing. Three front ends show it as
cuda-python's runtime, PyCUDA's driver and torch, so that the session runs on all three unchanged.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.files import write_json
from hrm_edge.manifest import STEP_FILE, read_manifest
from hrm_edge.runtime.trt.api import Api
from hrm_edge.runtime.trt.device import Gpu
from hrm_edge.runtime.trt.identity import (
    PLAN_FILE,
    SIDECAR_FILE,
    BatchRange,
    BuildRecord,
    Machine,
    Options,
    entry_of,
)
from hrm_edge.runtime.trt.identity import Engine as Sidecar
from tests.artifacts import exact_session

STREAM = 0x57
POISON = 0xFF  # NaN in every float type, and no token


@dataclass
class Device:
    """Memory by address, and what is queued."""

    allocations: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    queue: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    bytes_down: int = 0
    next_address: int = 0x10000
    limit: int = 1 << 40

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def malloc(self, nbytes: int) -> int | None:
        if sum(map(len, self.allocations.values())) + nbytes > self.limit:
            return None
        address, self.next_address = self.next_address, self.next_address + nbytes + 0x1000
        self.allocations[address] = np.full(nbytes, POISON, np.uint8)
        return address

    def free(self, address: int) -> None:
        del self.allocations[address]

    def at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """A view of device memory; the whole of it must lie in one allocation."""
        for base, memory in self.allocations.items():
            if base <= address < base + len(memory):
                assert address + nbytes <= base + len(memory), "access beyond an allocation"
                return memory[address - base : address - base + nbytes]
        raise AssertionError(f"no device memory at {address:#x}")

    def submit(self, work: Callable[[], None], what: str) -> None:
        if self.recording is not None:
            self.recording.append(work)
        else:
            self.count(what)
            self.queue.append(work)

    def synchronize(self) -> None:
        assert self.recording is None, "waiting while recording"
        while self.queue:
            self.queue.pop(0)()

    @contextlib.contextmanager
    def record(self) -> Iterator[list[Callable[[], None]]]:
        assert self.recording is None
        self.recording = []
        yield self.recording
        self.recording = None

    def launch(self, graph: list[Callable[[], None]]) -> None:
        self.submit(lambda: [work() for work in graph] and None, "launch")

    # copies; the ends are looked up when they run, as a GPU would
    def up(self, to: int, host: NDArray[np.uint8]) -> None:
        self.submit(lambda: np.copyto(self.at(to, len(host)), host), "up")

    def down(self, host: NDArray[np.uint8], source: int) -> None:
        def work() -> None:
            self.bytes_down += len(host)
            host[:] = self.at(source, len(host))

        self.submit(work, "down")

    def across(self, to: int, source: int, nbytes: int) -> None:
        self.submit(lambda: np.copyto(self.at(to, nbytes), self.at(source, nbytes).copy()), "across")


def host_at(address: int, nbytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


def flat(array: NDArray[Any]) -> NDArray[np.uint8]:
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)


# -- the three front ends -----------------------------------------------------------------------------------------


class CudaError(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35


def cuda_runtime(device: Device, runtime: int = 12060, driver: int = 12060) -> Any:
    """``cuda.bindings.runtime`` for one CUDA, on a driver of one (0: none): tuples that begin with the error code."""
    old_driver = CudaError.cudaErrorInsufficientDriver
    ok, kinds = CudaError.cudaSuccess, SimpleNamespace(**{
        name: name for name in ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice")
    })  # fmt: skip
    pinned: dict[int, Any] = {}
    recordings: list[Any] = []

    def malloc(nbytes: int) -> tuple[Any, ...]:
        address = device.malloc(nbytes)
        return (ok, address) if address is not None else (CudaError.cudaErrorMemoryAllocation, None)

    def host_alloc(nbytes: int, flags: int) -> tuple[Any, ...]:
        memory = ctypes.create_string_buffer(nbytes)
        pinned[ctypes.addressof(memory)] = memory
        return ok, ctypes.addressof(memory)

    def memcpy(to: int, source: int, nbytes: int, kind: str, stream: int) -> tuple[Any]:
        assert stream == STREAM
        if kind == kinds.cudaMemcpyHostToDevice:
            device.up(to, host_at(source, nbytes))
        elif kind == kinds.cudaMemcpyDeviceToHost:
            device.down(host_at(to, nbytes), source)
        else:
            device.across(to, source, nbytes)
        return (ok,)

    def memset(address: int, value: int, nbytes: int, stream: int) -> tuple[Any]:
        device.submit(lambda: device.at(address, nbytes).fill(value), "memset")
        return (ok,)

    def begin(stream: int, mode: str) -> tuple[Any]:
        recordings.append(device.record())
        recordings.append(recordings[-1].__enter__())
        return (ok,)

    def end(stream: int) -> tuple[Any, Any]:
        graph, context = recordings.pop(), recordings.pop()
        context.__exit__(None, None, None)
        return ok, graph

    def free_host(address: int) -> tuple[Any]:
        del pinned[address]
        return (ok,)

    return SimpleNamespace(
        cudaMemcpyKind=kinds, cudaStreamNonBlocking=1, cudaHostAllocDefault=0,
        cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread local"),
        cudaSetDevice=lambda index: (old_driver if driver // 1000 < runtime // 1000 else ok,),
        cudaRuntimeGetVersion=lambda: (ok, runtime), cudaDriverGetVersion=lambda: (ok, driver),
        cudaStreamCreateWithFlags=lambda flags: (ok, STREAM),
        cudaMalloc=malloc, cudaFree=lambda address: (device.free(address), ok)[1:], cudaMemsetAsync=memset,
        cudaHostAlloc=host_alloc, cudaFreeHost=free_host, cudaMemcpyAsync=memcpy,
        cudaStreamSynchronize=lambda stream: (device.synchronize(), ok)[1:],
        cudaStreamBeginCapture=begin, cudaStreamEndCapture=end,
        cudaGraphInstantiate=lambda graph, flags: (ok, graph),
        cudaGraphLaunch=lambda graph, stream: (device.launch(graph), ok)[1:],
    )  # fmt: skip


class _Allocation(int):
    """PyCUDA's DeviceAllocation: converts to its address."""


def pycuda_driver(device: Device) -> Any:
    """``pycuda.driver``."""
    context = SimpleNamespace(push=lambda: None, pop=lambda: None)
    stream = SimpleNamespace(handle=STREAM, synchronize=device.synchronize)

    def memset(address: int, value: int, nbytes: int, on: Any) -> None:
        device.submit(lambda: device.at(address, nbytes).fill(value), "memset")

    return SimpleNamespace(
        init=lambda: None,
        Device=lambda index: SimpleNamespace(retain_primary_context=lambda: context),
        Stream=lambda: stream,
        mem_alloc=lambda nbytes: _Allocation(device.malloc(nbytes)),
        pagelocked_zeros=np.zeros,
        memset_d8_async=memset,
        memcpy_htod_async=lambda to, source, on: device.up(to, flat(source)),
        memcpy_dtoh_async=lambda to, source, on: device.down(flat(to), source),
        memcpy_dtod_async=lambda to, source, nbytes, on: device.across(to, source, nbytes),
    )


class Tensor:
    """As much of a torch tensor as is used: bytes on the device (an address) or on the host (an array)."""

    def __init__(self, device: Device, nbytes: int, address: int | None = None, array: Any = None) -> None:
        self.device, self.nbytes, self.address, self.array = device, nbytes, address, array

    def data_ptr(self) -> int:
        assert self.address is not None
        return self.address

    def numpy(self) -> Any:
        return self.array

    def __getitem__(self, part: slice) -> Tensor:
        begin, end, _ = part.indices(self.nbytes)
        assert self.address is not None
        return Tensor(self.device, end - begin, self.address + begin)

    def copy_(self, source: Tensor, non_blocking: bool = False) -> None:
        assert source.nbytes == self.nbytes
        if source.array is not None:
            self.device.up(self.data_ptr(), source.array)
        elif self.array is not None:
            self.device.down(self.array, source.data_ptr())
        else:
            self.device.across(self.data_ptr(), source.data_ptr(), self.nbytes)


def torch_module(device: Device) -> Any:
    """``torch`` with CUDA."""

    class Graph:
        work: list[Callable[[], None]]

        def replay(self) -> None:
            device.launch(self.work)

    @contextlib.contextmanager
    def graph(into: Graph, stream: Any) -> Iterator[None]:
        with device.record() as work:
            yield
        into.work = work

    def zeros(nbytes: int, dtype: str, device: str = "cpu", pin_memory: bool = False) -> Tensor:
        if device == "cpu":
            return Tensor(gpu, nbytes, array=np.zeros(nbytes, np.uint8))
        address = gpu.malloc(nbytes)
        assert address is not None
        gpu.submit(lambda: gpu.at(address, nbytes).fill(0), "memset")
        return Tensor(gpu, nbytes, address)

    gpu = device
    stream = SimpleNamespace(cuda_stream=STREAM, synchronize=device.synchronize)
    cuda = SimpleNamespace(
        Stream=lambda: stream, stream=lambda on: contextlib.nullcontext(), CUDAGraph=Graph, graph=graph,
        is_available=lambda: True,
    )  # fmt: skip
    return SimpleNamespace(
        uint8="uint8", zeros=zeros, cuda=cuda, from_numpy=lambda array: Tensor(gpu, array.nbytes, array=flat(array))
    )


# -- TensorRT -----------------------------------------------------------------------------------------------------

_TYPES = {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16}


class Engine:
    """Deserialized from the bytes of an ONNX file, which is what the simulated plan is."""

    def __init__(self, device: Device, plan: bytes) -> None:
        self.device = device
        self.session = exact_session(plan, threads=1)
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.nodes = {**self.inputs, **{node.name: node for node in self.session.get_outputs()}}
        self.names = list(self.nodes)
        self.num_io_tensors = len(self.names)
        self.capturable = True

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return _TYPES[self.nodes[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self.nodes[name].shape)

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.settled: dict[str, tuple[int, ...]] | None = None

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.capturable

    def execute_async_v3(self, stream: int) -> bool:
        device, engine = self.engine.device, self.engine
        assert stream == STREAM
        if device.recording is not None:
            assert self.settled == self.shapes, "recorded before a first call settled the shapes"
        self.settled = dict(self.shapes)
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work() -> None:
            device.count("executed")
            feeds = {}
            for name, shape in shapes.items():
                kind = np.dtype(engine.get_tensor_dtype(name))
                raw = device.at(addresses[name], int(np.prod(shape)) * kind.itemsize)
                feeds[name] = raw.view(kind).reshape(shape)
            outputs = [name for name in engine.names if name not in engine.inputs]
            for name, value in zip(outputs, engine.session.run(outputs, feeds), strict=True):
                device.at(addresses[name], value.nbytes)[:] = flat(np.ascontiguousarray(value))

        device.submit(work, "enqueued")
        return True


def tensorrt_module(device: Device, version: str = "10.3.0.30") -> Any:
    """``tensorrt`` as far as an engine is read with it."""

    class ILogger:
        INTERNAL_ERROR, ERROR = 0, 1

        def __init__(self) -> None: ...

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            try:
                return Engine(device, plan)
            except Exception as error:  # noqa: BLE001 - TensorRT raises nothing: it logs and returns None
                self.logger.log(ILogger.ERROR, f"Serialization assertion failed: {type(error).__name__}")
                return None

    return SimpleNamespace(
        __version__=version, ILogger=ILogger, Runtime=Runtime, int32=np.int32, float32=np.float32, float16=np.float16
    )


# -- an engine folder ---------------------------------------------------------------------------------------------

ORIN = Gpu("Orin", 87, 8, "12.6", 8 << 30)


def add_engine(artifact: Path, api: Api, gpu: Gpu = ORIN, *, max_batch: int = 64, sms: tuple[int, ...] = ()) -> Sidecar:
    """Put a simulated plan and its real sidecar into an artifact's folder, as if it was built by ``api`` on ``gpu``."""
    manifest = read_manifest(artifact)
    options = Options(
        precision=manifest.precision,
        optimization_level=3,
        workspace_mib=1024,
        batch=BatchRange(min=1, opt=min(8, max_batch), max=max_batch),
    )
    shutil.copyfile(artifact / STEP_FILE, artifact / PLAN_FILE)
    record = BuildRecord(
        seconds=1.0, peak_memory_bytes=1, layers=1, timing_cache=False, created="2026-11-25", hrm_edge="0"
    )
    identity = Machine(api, None if sms else gpu).identity(manifest, options, sms, None)
    sidecar = Sidecar(identity=identity, plan=entry_of(artifact / PLAN_FILE), build=record)
    write_json(artifact / SIDECAR_FILE, sidecar.model_dump(mode="json"))
    return sidecar


def simulated_api(device: Device, version: str = "10.3.0.30") -> Api:
    return Api("tensorrt", tensorrt_module(device, version), version)
