"""The few things a session does with CUDA, behind one seam: memory, copies, one stream, one graph.

Three packages can do them; :func:`find_cuda` takes torch's where torch is loaded already (one allocator for the whole
process), else cuda-python's, which always installs, else PyCUDA's. Everything runs on one stream, so it is in order.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError

Launch: TypeAlias = Callable[[], None]
_NO_DRIVER = "nvidia-smi shows it; in a container: docker run --gpus all …, on a Jetson --runtime nvidia"
Host: TypeAlias = NDArray[Any]  # contiguous; page-locked (``pinned``) where the copy shall not block


@dataclass(frozen=True, eq=False)
class Memory:
    """A piece of device memory; freed when it is no longer used."""

    address: int
    nbytes: int
    owner: Any = None


class Cuda(Protocol):
    """Copies and launches are queued; :meth:`synchronize` waits for all of them. Sizes and offsets are in bytes."""

    name: str
    handle: int
    """The stream, as TensorRT wants it."""

    def allocate(self, nbytes: int) -> Memory:
        """Allocate device memory, zeroed."""

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory, zeroed."""

    def upload(self, to: Memory, source: Host) -> None: ...

    def download(self, to: Host, source: Memory, offset: int = 0) -> None: ...

    def copy(self, to: Memory, to_offset: int, source: Memory, offset: int, nbytes: int) -> None: ...

    def synchronize(self) -> None: ...

    def record(self, work: Launch) -> Launch | None:
        """Record what ``work`` queues as a graph, without running it; the result launches it. None: no graphs here."""


class _CudaPython:
    """By NVIDIA's cuda-python (12.6 or newer), of the driver's CUDA or an older one."""

    name = "cuda-python"

    def __init__(self, runtime: Any = None) -> None:
        self._api = runtime if runtime is not None else _cuda_runtime()
        self._kinds = self._api.cudaMemcpyKind
        self._call("cudaSetDevice", 0)
        self._stream = self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking)
        self.handle = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            code, *results = getattr(self._api, name)(*arguments)
        except RuntimeError as error:  # 12.6's, where libcuda.so.1 is missing
            raise UserError(f"CUDA: there is no driver ({name}: {error})", _NO_DRIVER) from error
        if int(code):
            said = f"{name} failed with {getattr(code, 'name', code)}"
            raise self._old_driver(said) if "InsufficientDriver" in said else _cuda_error(said)
        return results[0] if results else None

    def _old_driver(self, said: str) -> UserError:
        """Return the error of a binding for a newer CUDA than the driver's, or of no driver at all (its CUDA is 0)."""
        driver, own = (self._version(name) for name in ("cudaDriverGetVersion", "cudaRuntimeGetVersion"))
        if driver == "0.0":
            return UserError(f"CUDA: there is no driver ({said})", _NO_DRIVER)
        return UserError(
            f"cuda-python is for CUDA {own}, this driver runs CUDA {driver} ({said})",
            f"pip install 'cuda-python=={driver.partition('.')[0]}.*', or a newer driver",
        )

    def _version(self, name: str) -> str:
        number = int(self._call(name))  # 12060 for 12.6
        return f"{number // 1000}.{number % 1000 // 10}"

    def versions(self) -> dict[str, str]:
        """Return the CUDA that the binding is made for, and the newest one that the driver runs."""
        return {"runtime": self._version("cudaRuntimeGetVersion"), "driver": self._version("cudaDriverGetVersion")}

    def allocate(self, nbytes: int) -> Memory:
        address = int(self._call("cudaMalloc", nbytes))
        memory = Memory(address, nbytes)
        weakref.finalize(memory, self._api.cudaFree, address)
        self._call("cudaMemsetAsync", address, 0, nbytes, self._stream)
        return memory

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        address = int(self._call("cudaHostAlloc", nbytes, self._api.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        weakref.finalize(memory, self._api.cudaFreeHost, address)  # the array below keeps `memory` alive
        array = np.ctypeslib.as_array(memory)
        array[:] = 0
        return array

    def upload(self, to: Memory, source: Host) -> None:
        kind = self._kinds.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", to.address, source.ctypes.data, source.nbytes, kind, self._stream)

    def download(self, to: Host, source: Memory, offset: int = 0) -> None:
        kind = self._kinds.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", to.ctypes.data, source.address + offset, to.nbytes, kind, self._stream)

    def copy(self, to: Memory, to_offset: int, source: Memory, offset: int, nbytes: int) -> None:
        kind = self._kinds.cudaMemcpyDeviceToDevice
        ends = (to.address + to_offset, source.address + offset)
        self._call("cudaMemcpyAsync", *ends, nbytes, kind, self._stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def record(self, work: Launch) -> Launch:
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        work()
        graph = self._call("cudaStreamEndCapture", self._stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)


class _PyCuda:
    """By PyCUDA, which has no graphs."""

    name = "pycuda"

    def __init__(self, driver: Any = None) -> None:
        self._api = driver if driver is not None else importlib.import_module("pycuda.driver")
        self._api.init()
        context = self._api.Device(0).retain_primary_context()  # TensorRT's
        context.push()
        weakref.finalize(self, context.pop)
        self._stream = self._api.Stream()
        self.handle = int(self._stream.handle)

    def allocate(self, nbytes: int) -> Memory:
        owner = self._api.mem_alloc(nbytes)
        memory = Memory(int(owner), nbytes, owner)
        self._api.memset_d8_async(memory.address, 0, nbytes, self._stream)
        return memory

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = self._api.pagelocked_zeros(nbytes, np.uint8)
        return array

    def upload(self, to: Memory, source: Host) -> None:
        self._api.memcpy_htod_async(to.address, source, self._stream)

    def download(self, to: Host, source: Memory, offset: int = 0) -> None:
        self._api.memcpy_dtoh_async(to, source.address + offset, self._stream)

    def copy(self, to: Memory, to_offset: int, source: Memory, offset: int, nbytes: int) -> None:
        self._api.memcpy_dtod_async(to.address + to_offset, source.address + offset, nbytes, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self, work: Launch) -> Launch | None:
        return None


class _Torch:
    """By torch's tensors and its allocator."""

    name = "torch"

    def __init__(self, torch: Any = None) -> None:
        self._torch = torch if torch is not None else sys.modules["torch"]
        self._stream = self._torch.cuda.Stream()
        self.handle = int(self._stream.cuda_stream)

    def allocate(self, nbytes: int) -> Memory:
        with self._torch.cuda.stream(self._stream):
            tensor = self._torch.zeros(nbytes, dtype=self._torch.uint8, device="cuda")
        return Memory(int(tensor.data_ptr()), nbytes, tensor)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = self._torch.zeros(nbytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        return array

    def _put(self, to: Any, source: Any) -> None:
        with self._torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)

    def upload(self, to: Memory, source: Host) -> None:
        self._put(to.owner[: source.nbytes], self._torch.from_numpy(source.reshape(-1).view(np.uint8)))

    def download(self, to: Host, source: Memory, offset: int = 0) -> None:
        flat = self._torch.from_numpy(to.reshape(-1).view(np.uint8))
        self._put(flat, source.owner[offset : offset + to.nbytes])

    def copy(self, to: Memory, to_offset: int, source: Memory, offset: int, nbytes: int) -> None:
        self._put(to.owner[to_offset : to_offset + nbytes], source.owner[offset : offset + nbytes])

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self, work: Launch) -> Launch:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            work()

        def launch() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return launch


def find_cuda() -> Cuda:
    """Return the first of the three that works here; raises ``UserError`` naming the package to install."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return _Torch(torch)
    try:
        return _CudaPython()
    except ImportError as error:
        missing = error
    try:
        return _PyCuda()
    except ImportError:
        raise UserError(
            f"nothing to move data to the GPU with: {missing}", "pip install 'hrm-edge[gpu]' (cuda-python), or pycuda"
        ) from missing


def _cuda_runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        return importlib.import_module("cuda.cudart")  # its name before 12.8


def _cuda_error(said: str) -> UserError:
    if "MemoryAllocation" in said:
        return UserError(f"the GPU is out of memory: {said}", "a smaller --slots, or close other programs")
    return UserError(f"CUDA: {said}", "see nvidia-smi, or on a Jetson tegrastats; run hrm-edge doctor")


def try_cuda() -> dict[str, str]:
    """Move a page to the GPU and back as a session does.

    Returns what did it (``binding``) and the versions that it tells (``runtime``, ``driver``). Raises ``UserError``
    where there is no binding, no driver, or one of another CUDA.
    """
    cuda = find_cuda()
    sent = cuda.pinned(4096)
    sent[:] = np.arange(4096) % 251
    memory, back = cuda.allocate(sent.nbytes), cuda.pinned(sent.nbytes)
    cuda.upload(memory, sent)
    cuda.download(back, memory)
    cuda.synchronize()
    if not np.array_equal(back, sent):
        raise _cuda_error("what came back from the GPU is not what was sent")
    return {"binding": cuda.name, **(cuda.versions() if isinstance(cuda, _CudaPython) else {})}
