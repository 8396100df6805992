"""The TensorRT module of this machine, and what it can do."""

from __future__ import annotations

import ctypes
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hrm_edge.errors import UserError

Runtime = Literal["tensorrt", "tensorrt_rtx"]
RUNTIMES: tuple[Runtime, ...] = ("tensorrt", "tensorrt_rtx")

_INSTALL: dict[Runtime, str] = {
    "tensorrt": "on a Jetson: apt install python3-libnvinfer, and a virtualenv made with --system-site-packages; "
    "elsewhere: pip install tensorrt",
    "tensorrt_rtx": "pip install 'hrm-edge[rtx]'",
}


@dataclass(frozen=True)
class Api:
    """An imported TensorRT module."""

    name: Runtime
    module: Any
    version: str
    """Major.minor.patch.build: an engine is valid for exactly one."""

    @property
    def targets(self) -> tuple[int, ...]:
        """Architectures that engines can be built for without having the GPU (87 for 8.7); empty: only this GPU's."""
        names = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        return tuple(sorted(int(name[2:]) for name in names if re.fullmatch(r"SM\d+", name)))


def find_api(name: Runtime | None = None) -> Api:
    """Import TensorRT: the one called ``name``, or the first that is installed.

    Raises ``UserError`` naming the way to install it.
    """
    missing, broken = [], False
    for candidate in (name,) if name else RUNTIMES:
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as error:  # OSError: its libraries do not load
            missing.append(f"{candidate}: {error}")
            broken = broken or not isinstance(error, ModuleNotFoundError)
            continue
        if candidate == "tensorrt" and vars(module).get("_package_name") == "tensorrt_rtx":
            missing.append("tensorrt: Torch-TensorRT-RTX lets tensorrt_rtx go by this name")
            continue
        return Api(candidate, module, _full_version(module, Path("/proc/self/maps")))
    hint = "; or ".join(_INSTALL[candidate] for candidate in ((name,) if name else RUNTIMES))
    state = "does not load" if broken else "is not installed"
    raise UserError(f"TensorRT {state} ({'; '.join(missing)})", hint)


def _full_version(module: Any, maps: Path) -> str:
    """Return ``__version__``, with the library's build number where the package leaves it out (JetPack's does)."""
    version = str(module.__version__)
    if version.count(".") >= 3 or not maps.exists():
        return version
    for line in maps.read_text().splitlines():
        path = line.partition("/")[1:]
        if re.search(r"/lib(nvinfer|tensorrt_rtx)\.so", "".join(path)):
            ask = getattr(ctypes.CDLL("".join(path)), "getInferLibBuildVersion", None)
            return f"{version}.{ask()}" if ask is not None else version
    return version


class Messages:
    """Messages that TensorRT logged to an object of :func:`logger_for`."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.peak_mib: dict[str, int] = {}
        """``cpu`` and ``gpu``: peaks of TensorRT's own allocators, where it says them."""

    def add(self, is_error: bool, message: str) -> None:
        if is_error:
            self.errors.append(" ".join(message.split()))
        peak = re.search(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d+) MiB, GPU (\d+) MiB", message)
        if peak:
            self.peak_mib = {"cpu": int(peak[1]), "gpu": int(peak[2])}


def logger_for(api: Api, messages: Messages) -> Any:
    """Return a logger of the module that writes into ``messages``; the caller keeps it alive."""
    base: Any = api.module.ILogger
    serious = (base.INTERNAL_ERROR, base.ERROR)

    class Logger(base):
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.add(severity in serious, message)

    return Logger()
