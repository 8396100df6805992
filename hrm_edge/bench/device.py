"""What machine this is, from the operating system's own files; nothing here fails where one is missing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from hrm_edge.report import Device

PACKAGES = ("numpy", "onnxruntime", "torch")
_MACHINE_FILES = ("proc/device-tree/model", "sys/class/dmi/id/product_name")  # boards; PCs


def describe_device(root: Path = Path("/")) -> Device:
    """The machine this process runs on; ``root`` is the root of the file system."""
    return Device(
        machine=next((name for file in _MACHINE_FILES if (name := _line(root / file))), None),
        cpu=_cpu_model(root / "proc/cpuinfo"),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=_os_name(),
        kernel=platform.release(),
        architecture=platform.machine(),
        python=platform.python_version(),
        versions={name: version for name in PACKAGES if (version := package_version(name)) is not None},
    )


def package_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed; nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _line(path: Path) -> str:
    """A file's text on one line; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpu_model(path: Path) -> str:
    for line in _line(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):  # x86; ARM kernels name the board or the chip
            return value.strip()
    return platform.processor() or platform.machine()


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
