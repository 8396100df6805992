"""Machine facts that an engine depends on: GPU, CUDA, Jetson release. The driver is asked through ctypes."""

from __future__ import annotations

import ctypes
import platform
import re
from ctypes import byref, c_char_p, c_int, c_size_t, create_string_buffer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def l4t_release(path: Path = Path("/etc/nv_tegra_release")) -> str | None:
    """Return ``36.4.3`` on a Jetson with that release, None elsewhere."""
    if not path.is_file():
        return None
    match = re.search(r"R(\d+) .*REVISION: ([\d.]+)", path.read_text(errors="replace"))
    return f"{match[1]}.{match[2]}" if match else None


def platform_name() -> str:
    """Return ``linux-x86_64``, ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def memory_available(path: Path = Path("/proc/meminfo")) -> int:
    """Return bytes that programs can still take without swapping (the kernel's MemAvailable)."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    if match is None:
        raise UserError(f"{path} has no MemAvailable", "Linux 3.14 or newer has it; or name --workspace")
    return 1024 * int(match[1])
