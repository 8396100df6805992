"""Machine facts that an engine depends on: GPU, CUDA. The driver is asked through ctypes."""

from __future__ import annotations

import ctypes
import platform
from ctypes import byref, c_char_p, c_int, c_size_t, create_string_buffer
from dataclasses import dataclass
from typing import Any

from hrm_edge.device.identity import memory_field
from hrm_edge.device.system import System
from hrm_edge.errors import UserError

_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CU_DEVICE_ATTRIBUTE_*, of cuda.h


@dataclass(frozen=True)
class Gpu:
    name: str
    sm: int
    """Compute capability, 87 for 8.7."""
    sm_count: int
    cuda: str
    """The driver's CUDA version, major.minor."""
    memory_bytes: int


def find_gpu(library: Any = None) -> Gpu:
    """Return the first GPU; ``library``: libcuda's functions, loaded by default. ``UserError``: there is none."""
    hint = "run it on the machine with the NVIDIA GPU, or use ONNX Runtime: --backend onnxruntime"
    if library is None:
        try:
            library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise UserError(f"no GPU: {error}", hint) from error

    def call(name: str, *arguments: Any) -> None:
        code = getattr(library, name)(*arguments)
        if code:
            raise UserError(f"no usable GPU: the CUDA driver's {name} failed with error {code}", hint)

    call("cuInit", 0)
    device, version, memory = c_int(), c_int(), c_size_t()
    call("cuDeviceGet", byref(device), 0)
    call("cuDriverGetVersion", byref(version))
    name = create_string_buffer(256)
    call("cuDeviceGetName", ctypes.cast(name, c_char_p), 256, device)
    call("cuDeviceTotalMem_v2", byref(memory), device)
    values = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        value = c_int()
        call("cuDeviceGetAttribute", byref(value), attribute, device)
        values.append(value.value)
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), 10 * values[0] + values[1], values[2], cuda, memory.value)


def platform_name() -> str:
    """Return ``linux-x86_64``, ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def memory_available(system: System | None = None) -> int:
    """Return bytes that programs can still take without swapping (the kernel's MemAvailable)."""
    available = memory_field(system or System(), "MemAvailable")
    if available is None:
        raise UserError("/proc/meminfo has no MemAvailable", "Linux 3.14 or newer has it; or name --workspace")
    return available
