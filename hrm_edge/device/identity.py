"""Identity of this machine, from the operating system's files; a missing file is never an error."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata

from pydantic import Field

from hrm_edge.device.boards import board_of
from hrm_edge.device.matrix import jetpack_of, load_matrix
from hrm_edge.device.system import System
from hrm_edge.records import Record

PACKAGES = ("numpy", "onnxruntime", "openvino", "tensorrt", "torch")
_MACHINE_FILES = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")  # boards; PCs
JETSON_GPU_NODES = ("/dev/nvhost-gpu", "/dev/nvgpu/igpu0")
_PART = re.compile(r"\bp\d{4}-\d{4}\b")
_L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")


class Device(Record):
    """Machine, as the operating system describes it."""

    machine: str | None = Field(description="board or product name; null where the system has none")
    module: str | None = Field(default=None, description="a Jetson's module by its part number, if we know that")
    board: str | None = Field(default=None, description="key in hrm_edge/device/boards.json, if it is there")
    cpu: str
    cores: int = Field(description="logical cores this process may use")
    memory_bytes: int
    os: str
    kernel: str
    architecture: str
    python: str
    l4t: str | None = Field(default=None, description="Linux for Tegra release of a Jetson")
    jetpack: str | None = Field(default=None, description="JetPack that ships this L4T")
    gpus: list[str] = Field(default=[], description="NVIDIA GPUs as nvidia-smi names them")
    driver: str | None = Field(default=None, description="NVIDIA kernel driver")
    versions: dict[str, str] = Field(description="of the packages that decide speed and results")


def describe_device(system: System | None = None) -> Device:
    """Return the description of the machine that this process runs on."""
    system = system or System()
    machine = next((name for file in _MACHINE_FILES if (name := system.line(file))), None)
    l4t = l4t_release(system)
    listed = system.run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or ""
    gpus = [line.strip() for line in listed.splitlines() if line.strip()]
    return Device(
        machine=machine,
        module=module_name(system),
        board=_board(system, [name for name in (machine, *gpus) if name]),
        cpu=_cpu_model(system),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory_field(system, "MemTotal") or 0,
        os=_os_name(),
        kernel=platform.release(),
        architecture=platform.machine(),
        python=platform.python_version(),
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        gpus=gpus,
        driver=driver_version(system),
        versions={name: version for name in PACKAGES if (version := package_version(name)) is not None},
    )


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None; the package is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_jetson(system: System) -> bool:
    """Return whether this is a Jetson, by its device tree, L4T release file or kernel; a container shows only the
    kernel.

    A custom kernel (…-l4t-…) counts only where the GPU's device node is there too.
    """
    if "tegra" in compatible(system) or l4t_release(system) is not None:
        return True
    kernel = (system.line("/proc/sys/kernel/osrelease") or "").lower()
    return "tegra" in kernel or ("l4t" in kernel and any(system.path(node).exists() for node in JETSON_GPU_NODES))


def compatible(system: System) -> str:
    """Return the device tree's names of the machine, its parts and its chip; empty where there is no device tree."""
    return system.line("/proc/device-tree/compatible") or ""


def _module_part(system: System) -> str | None:
    """Return the part number of a Jetson's module (p3767-0005), or None where the device tree has none."""
    # The carrier board's part number comes first.
    named = _PART.findall(compatible(system))
    return next((part for part in named if part in load_matrix().modules), named[-1] if named else None)


def module_name(system: System) -> str | None:
    """Return the name of a Jetson's module, or None where its part number is in no table."""
    return load_matrix().modules.get(_module_part(system) or "")


def _board(system: System, names: list[str]) -> str | None:
    part = _module_part(system)
    is_super = "super" in " ".join([*names, compatible(system)]).lower()
    if part is not None:
        return board_of(None, part, is_super=is_super)
    return next((board for name in names if (board := board_of(name))), None)


def l4t_release(system: System) -> str | None:
    """Return the L4T release (``36.4.3``) from ``/etc/nv_tegra_release``; None where this machine is not a Jetson."""
    release = _L4T.search(system.line("/etc/nv_tegra_release") or "")
    return f"{release[1]}.{release[2]}" if release else None


def memory_field(system: System, name: str) -> int | None:
    """Return the field ``name`` of ``/proc/meminfo`` in bytes, or None."""
    for line in (system.line("/proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == name and (number := re.match(r"\s*(\d{1,15})\b", value)):
            return 1024 * int(number[1])
    return None


def _cpu_model(system: System) -> str:
    for line in (system.line("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):  # x86; ARM kernels name the board or the chip
            return value.strip()
    return platform.processor() or platform.machine()


def driver_version(system: System) -> str | None:
    """Return the NVIDIA driver's version, of ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …``."""
    version = re.search(
        r"Kernel Module\b[^\n]*?\s(\d+\.\d+(?:\.\d+)?)", system.line("/proc/driver/nvidia/version") or ""
    )
    return version[1] if version else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
