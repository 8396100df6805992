"""Facts about a machine, as data, and how they are read; null means that the machine does not say.

Reading never fails: whatever is missing, unreadable or garbage becomes null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import Field

from hrm_edge.backends import BACKENDS
from hrm_edge.device.clocks import clocks, power_mode, power_modes
from hrm_edge.device.identity import (
    JETSON_GPU_NODES,
    compatible,
    driver_version,
    is_jetson,
    l4t_release,
    memory_field,
    module_name,
)
from hrm_edge.device.matrix import jetpack_of, load_matrix
from hrm_edge.doctor.machine import GpuSession, Import, Machine, Package, is_missing
from hrm_edge.power import power_sources
from hrm_edge.power.meter import Source
from hrm_edge.records import Record

Kind = Literal["jetson", "pc", "wsl2", "arm"]
_PACKAGES = (
    "numpy",
    "onnx",
    "torch",
    "torch-tensorrt",
    "tensorrt-rtx",
    "openvino",
    "cuda-python",
    "cuda-bindings",
    "jetson-stats",
    "opencv-python-headless",
)
# What backends, pictures, training and export stand on: "installed" is no promise that it loads.
_JUDGED = ("numpy", "cv2", "onnx", "openvino", "tensorrt_rtx", "torch", "torch_tensorrt")
_TENSORRT_PIP = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings")
_GROUPS = ("video", "render", "i2c", "jtop")  # cameras, GPU, power sensors, jtop's socket
_VERSION = r"\d+(?:\.\d+)*"
_GPU_NODES: dict[Kind, tuple[str, ...]] = {
    "jetson": (*JETSON_GPU_NODES, "/dev/nvidiactl", "/dev/nvidia0"),
    "wsl2": ("/dev/dxg",),
    "pc": ("/dev/nvidiactl",),
    "arm": ("/dev/nvidiactl",),
}


class _Gpu(Record):
    name: str
    sm: str | None = Field(description="compute capability, such as 8.7")
    memory_bytes: int | None = Field(description="null on a Jetson: the GPU shares the main memory")


def _gpus(machine: Machine, kind: Kind) -> list[_Gpu]:
    query = "--query-gpu=name,compute_cap,memory.total"
    answer = machine.system.run("nvidia-smi", query, "--format=csv,noheader,nounits") or ""
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    if kind == "jetson":
        tree = compatible(machine.system)
        soc = next((soc for key, soc in load_matrix().socs.items() if key in tree), None)
        return [_Gpu(name=f"{soc.name} (integrated)", sm=soc.sm, memory_bytes=None)] if soc else []
    return [
        _Gpu(
            name=row[0],
            sm=row[1] if re.fullmatch(_VERSION, row[1]) else None,
            memory_bytes=int(row[2]) << 20 if row[2].isdecimal() else None,
        )
        for row in rows
        if len(row) == 3 and row[0]
    ]


class _Board(Record):
    """A Jetson."""

    model: str | None = Field(description="the device tree's model line")
    module: str | None = Field(description="by the part number in the device tree; null where we do not know it")
    soc: str | None = Field(description="tegra234 (Orin), tegra264 (Thor) or another one")
    release: str | None = Field(description="first line of /etc/nv_tegra_release")
    l4t: str | None = Field(description="read from it; null where it is not understood")
    jetpack: str | None = Field(description="null where no row of jetson/matrix.yaml has this L4T")


def _board(machine: Machine) -> _Board:
    soc = re.search(r"\btegra\d+\b", compatible(machine.system))
    l4t = l4t_release(machine.system)
    return _Board(
        model=machine.text("/proc/device-tree/model") or None,
        module=module_name(machine.system),
        soc=soc[0] if soc else None,
        release=next(iter(machine.text("/etc/nv_tegra_release").splitlines()), None),
        l4t=l4t,
        jetpack=jetpack_of(l4t),
    )


class _Cuda(Record):
    toolkit: str | None = Field(description="of /usr/local/cuda or apt's runtime")
    driver: str | None = Field(description="NVIDIA kernel driver")
    of_driver: str | None = Field(description="newest CUDA that the driver runs")
    cards_without_driver: int = Field(description="NVIDIA display devices on the bus while no driver is loaded")


def _is_nvidia_display(machine: Machine, device: Path) -> bool:
    """Return PCI vendor 10de, class 03 (display)."""
    kind = machine.system.line(device / "class") or ""
    return machine.system.line(device / "vendor") == "0x10de" and kind.startswith("0x03")


def _cuda(machine: Machine, debs: dict[str, str]) -> _Cuda:
    try:
        version = json.loads(machine.text("/usr/local/cuda/version.json"))["cuda"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        runtimes = sorted(_leading(v) or "" for name, v in debs.items() if name.startswith("cuda-cudart"))
        version = runtimes[-1] if runtimes else None
    smi = machine.system.run("nvidia-smi") or ""
    named = re.search(r"Driver Version:\s*([\d.]+)", smi)
    driver = named[1] if named else driver_version(machine.system)
    of_driver = re.search(r"CUDA (?:UMD )?Version:\s*([\d.]+)", smi)
    cards = [path for path in machine.system.glob("/sys/bus/pci/devices/*") if _is_nvidia_display(machine, path)]
    return _Cuda(
        toolkit=_leading(version) if isinstance(version, str) else None,
        driver=driver,
        of_driver=of_driver[1] if of_driver else None,
        cards_without_driver=0 if driver else len(cards),
    )


class _TensorRT(Record):
    apt: str | None = Field(description="version of libnvinfer")
    apt_python: str | None = Field(description="version of python3-libnvinfer")
    pip: dict[str, str] = Field(description="packages of TensorRT that pip installed → version")
    imported: Import | None = Field(description="null: nothing of it is installed")


def _tensorrt(machine: Machine, debs: dict[str, str]) -> _TensorRT:
    apt = next((debs[name] for name in sorted(debs) if re.fullmatch(r"libnvinfer\d+", name)), None)
    pip = {name: found.version for name in _TENSORRT_PIP if (found := machine.package(name)) and not found.from_apt}
    apt_python = debs.get("python3-libnvinfer")
    return _TensorRT(
        apt=_leading(apt),
        apt_python=_leading(apt_python),
        pip=pip,
        imported=machine.imports("tensorrt") if apt_python or pip else None,
    )


class _Python(Record):
    version: str
    executable: str
    in_venv: bool
    venv: str | None
    system_site_packages: bool | None = Field(description="whether the venv sees apt's packages; null: no venv")
    system_version: str | None = Field(description="of apt's python3, which apt's bindings are made for")


def _python(machine: Machine, debs: dict[str, str]) -> _Python:
    python = machine.python
    settings = machine.text(f"{python.prefix}/pyvenv.cfg") if python.in_venv else ""
    flag = re.search(r"^include-system-site-packages\s*=\s*(\w+)", settings, re.MULTILINE)
    own = re.match(r"\d+\.\d+", debs.get("python3", ""))
    return _Python(
        version=".".join(map(str, python.version)),
        executable=python.executable,
        in_venv=python.in_venv,
        venv=python.prefix if python.in_venv else None,
        system_site_packages=flag[1].lower() == "true" if flag else None,
        system_version=own[0] if own else None,
    )


class Camera(Record):
    device: str
    name: str
    kind: Literal["usb", "csi"]
    usable: bool = Field(description="this user may open it")
    read_by: str | None = Field(default=None, description="what brings its frames here; null: nothing does")


def _cameras(machine: Machine, opencv: Import | None) -> Iterator[Camera]:
    for folder in machine.system.glob("/sys/class/video4linux/video*"):
        if machine.system.line(folder / "index") not in (None, "0"):
            continue  # the metadata node beside a camera
        name = machine.system.line(folder / "name") or folder.name
        device = machine.system.path(f"/dev/{folder.name}")
        is_csi = name.startswith("vi-output")
        yield Camera(
            device=f"/dev/{folder.name}",
            name=name,
            kind="csi" if is_csi else "usb",
            usable=machine.can_use(device),
            read_by=_csi_reader(machine, opencv) if is_csi else "OpenCV" if opencv and not opencv.error else None,
        )


def _csi_reader(machine: Machine, opencv: Import | None) -> str | None:
    """Return what reads a CSI camera: OpenCV with GStreamer, else a process of GStreamer with NVIDIA's source."""
    if opencv is not None and "GStreamer" in opencv.providers:
        return "OpenCV with GStreamer"
    has_program = machine.system.run("gst-launch-1.0", "--version") is not None
    has_source = machine.system.run("gst-inspect-1.0", "--exists", "nvarguscamerasrc") is not None
    return "gst-launch-1.0" if has_program and has_source else None


class _Jtop(Record):
    package: str | None
    service: bool = Field(description="its socket is there")
    in_group: bool


def _jtop(machine: Machine) -> _Jtop:
    package = machine.package("jetson-stats")
    return _Jtop(
        package=package.version if package else None,
        service=machine.has("/run/jtop.sock"),
        in_group="jtop" in machine.groups or machine.is_root,
    )


class _Power(Record):
    mode: str | None
    modes: dict[str, int] = Field(description="name → number, which differs between boards")
    clocks_locked: bool | None
    meters: list[Source] = Field(description="the best first")


def _power(machine: Machine) -> _Power:
    system = machine.system
    all_clocks = clocks(system)
    return _Power(
        mode=power_mode(system),
        modes={name: number for number, name in power_modes(system).items()},
        clocks_locked=all(clock.locked for clock in all_clocks) if all_clocks else None,
        meters=power_sources(system),
    )


class _Resources(Record):
    memory_bytes: int | None
    memory_available_bytes: int | None
    swap_bytes: int | None
    home_free_bytes: int | None
    tmp_free_bytes: int | None


def _resources(machine: Machine) -> _Resources:
    return _Resources(
        memory_bytes=memory_field(machine.system, "MemTotal"),
        memory_available_bytes=memory_field(machine.system, "MemAvailable"),
        swap_bytes=memory_field(machine.system, "SwapTotal"),
        home_free_bytes=machine.free_bytes(machine.home),
        tmp_free_bytes=machine.free_bytes(machine.system.path("/tmp")),
    )


class Facts(Record):
    """A machine."""

    kind: Kind
    architecture: str
    os: str | None
    kernel: str | None
    container: str | None = Field(description="docker, podman or another one; null outside")
    board: _Board | None
    gpus: list[_Gpu]
    gpu_device: bool = Field(description="the device node through which programs reach the GPU is there")
    cuda: _Cuda
    tensorrt: _TensorRT
    gpu_session: GpuSession | None = Field(
        default=None,
        description="moving data to the GPU, which an engine needs; null: no GPU, or no TensorRT that loads",
    )
    onnxruntime: Import
    imports: dict[str, Import] = Field(description="installed module → what came of importing it")
    int8: dict[str, str] = Field(
        default={}, description="CPU backend → how it multiplies INT8 artifacts on this processor, by a probe"
    )
    compiler: str | None = Field(description="a C++ compiler, which the backend 'native' needs once")
    packages: dict[str, Package] = Field(description="that decide what works; what is not installed is not listed")
    python: _Python
    user: str
    is_root: bool
    groups: list[str]
    known_groups: dict[str, bool] = Field(description="group of this machine that matters here → the user is in it")
    resources: _Resources
    power: _Power
    cameras: list[Camera]
    jtop: _Jtop


def read_facts(machine: Machine) -> Facts:
    """Look at everything; a package that has to be imported is imported in a process of its own."""
    kind = _kind(machine)
    debs = _debs(machine)
    known = _group_table(machine)
    onnxruntime = machine.imports("onnxruntime")
    imports = _imports(machine)
    openvino = imports.get("openvino")
    gpus, gpu_device = _gpus(machine, kind), any(map(machine.has, _GPU_NODES[kind]))
    tensorrt = _tensorrt(machine, debs)
    engines = (tensorrt.imported, imports.get("tensorrt_rtx"))
    has_session = gpus and gpu_device and any(imported is not None and not imported.error for imported in engines)
    loaded = {"onnxruntime": not onnxruntime.error, "openvino": openvino is not None and not openvino.error}
    probes = {name: BACKENDS[name].probe for name, loads in loaded.items() if loads}
    return Facts(
        kind=kind,
        architecture=machine.architecture,
        os=_os_name(machine),
        kernel=machine.text("/proc/sys/kernel/osrelease") or None,
        container=_container(machine),
        board=_board(machine) if kind == "jetson" else None,
        gpus=gpus,
        gpu_device=gpu_device,
        cuda=_cuda(machine, debs),
        tensorrt=tensorrt,
        gpu_session=machine.gpu() if has_session else None,
        onnxruntime=onnxruntime,
        imports=imports,
        int8={name: said for name, module in probes.items() if (said := machine.int8(module))},
        compiler=next((path for name in machine.compilers if (path := machine.system.run("which", name))), "").strip()
        or None,
        packages={name: imported for name in _PACKAGES if (imported := machine.package(name))},
        python=_python(machine, debs),
        user=machine.user,
        is_root=machine.is_root,
        groups=sorted(machine.groups),
        known_groups={name: name in machine.groups for name in _GROUPS if name in known},
        resources=_resources(machine),
        power=_power(machine),
        cameras=list(_cameras(machine, imports.get("cv2"))),
        jtop=_jtop(machine),
    )


def _kind(machine: Machine) -> Kind:
    if is_jetson(machine.system):
        return "jetson"
    if "microsoft" in machine.text("/proc/sys/kernel/osrelease").lower():
        return "wsl2"
    return "arm" if machine.architecture in ("aarch64", "arm64") else "pc"


def _os_name(machine: Machine) -> str | None:
    line = re.search(r'^PRETTY_NAME="?([^"\n]+)', machine.text("/etc/os-release"), re.MULTILINE)
    return line[1] if line else None


def _container(machine: Machine) -> str | None:
    if machine.has("/.dockerenv"):
        return "docker"
    if machine.has("/run/.containerenv"):
        return "podman"
    named = machine.text("/run/systemd/container").split()  # nspawn, lxc
    if named:
        return named[0]
    inside = re.search(r"docker|kubepods|containerd|lxc", machine.text("/proc/1/cgroup"))
    return inside[0] if inside else None


def _debs(machine: Machine) -> dict[str, str]:
    """Return installed Debian packages that matter here → their version, from dpkg's own list."""
    wanted = r"python3|nvidia-jetpack|nvidia-l4t-core|libnvinfer\d+|python3-libnvinfer|cuda-cudart-\d+-\d+"
    versions = {}
    for stanza in re.split(r"\n\s*\n", machine.text("/var/lib/dpkg/status")):
        name = re.match(rf"\s*Package: ({wanted})\s*\n", stanza)
        version = re.search(r"^Version: (?:\d+:)?(\S+)", stanza, re.MULTILINE)
        if name and version and re.search(r"^Status: .* installed$", stanza, re.MULTILINE):
            versions[name[1]] = version[1]
    return versions


def _leading(version: str | None) -> str | None:
    """Return ``10.3.0.30`` of ``10.3.0.30-1+cuda12.5``."""
    numbers = re.match(_VERSION, version or "")
    return numbers[0] if numbers else None


def _imports(machine: Machine) -> dict[str, Import]:
    """Import what is judged, several processes at a time; what is not installed is left out."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        results = dict(zip(_JUDGED, pool.map(machine.imports, _JUDGED), strict=True))
    return {name: result for name, result in results.items() if not is_missing(name, result.error)}


def _group_table(machine: Machine) -> set[str]:
    return {line.partition(":")[0] for line in machine.text("/etc/group").splitlines()}
