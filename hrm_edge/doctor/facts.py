"""Facts about a machine, as data; null means that the machine does not say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hrm_edge.doctor.machine import GpuSession, Import, Package
from hrm_edge.records import Record

Kind = Literal["jetson", "pc", "wsl2", "arm"]


class Gpu(Record):
    name: str
    sm: str | None = Field(description="compute capability, such as 8.7")
    memory_bytes: int | None = Field(description="null on a Jetson: the GPU shares the main memory")


class Board(Record):
    """A Jetson."""

    model: str | None = Field(description="the device tree's model line")
    module: str | None = Field(description="by the part number in the device tree; null where we do not know it")
    soc: str | None = Field(description="tegra234 (Orin), tegra264 (Thor) or another one")
    release: str | None = Field(description="first line of /etc/nv_tegra_release")
    l4t: str | None = Field(description="read from it; null where it is not understood")
    jetpack: str | None = Field(description="null where no row of jetson/matrix.yaml has this L4T")


class Cuda(Record):
    toolkit: str | None = Field(description="of /usr/local/cuda or apt's runtime")
    driver: str | None = Field(description="NVIDIA kernel driver")
    of_driver: str | None = Field(description="newest CUDA that the driver runs")
    cards_without_driver: int = Field(description="NVIDIA display devices on the bus while no driver is loaded")


class TensorRT(Record):
    apt: str | None = Field(description="version of libnvinfer")
    apt_python: str | None = Field(description="version of python3-libnvinfer")
    pip: dict[str, str] = Field(description="packages of TensorRT that pip installed → version")
    imported: Import | None = Field(description="null: nothing of it is installed")


class Python(Record):
    version: str
    executable: str
    in_venv: bool
    venv: str | None
    system_site_packages: bool | None = Field(description="whether the venv sees apt's packages; null: no venv")
    system_version: str | None = Field(description="of apt's python3, which apt's bindings are made for")


class Camera(Record):
    device: str
    name: str
    kind: Literal["usb", "csi"]
    usable: bool = Field(description="this user may open it")
    read_by: str | None = Field(default=None, description="what brings its frames here; null: nothing does")


class Jtop(Record):
    package: str | None
    service: bool = Field(description="its socket is there")
    in_group: bool


class Meter(Record):
    """One way to measure power."""

    name: str
    rails: list[str]
    problem: str | None = Field(description="why it cannot be used; null where it can")
    hint: str | None = Field(alias="mend")


class Power(Record):
    mode: str | None
    modes: dict[str, int] = Field(description="name → number, which differs between boards")
    clocks_locked: bool | None
    meters: list[Meter] = Field(description="the best first")


class Resources(Record):
    memory_bytes: int | None
    memory_available_bytes: int | None
    swap_bytes: int | None
    home_free_bytes: int | None
    tmp_free_bytes: int | None


class Facts(Record):
    """A machine."""

    kind: Kind
    architecture: str
    os: str | None
    kernel: str | None
    container: str | None = Field(description="docker, podman or another one; null outside")
    board: Board | None
    gpus: list[Gpu]
    gpu_device: bool = Field(description="the device node through which programs reach the GPU is there")
    cuda: Cuda
    tensorrt: TensorRT
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
    python: Python
    user: str
    is_root: bool
    groups: list[str]
    known_groups: dict[str, bool] = Field(description="group of this machine that matters here → the user is in it")
    resources: Resources
    power: Power
    cameras: list[Camera]
    jtop: Jtop
