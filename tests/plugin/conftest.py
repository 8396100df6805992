"""What the plugin's tests share: a small folder of compiled kernels, and a stand-in for the CUDA driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hrm_edge.plugin.driver import Driver
from tests.shared import made_once, small_kernels

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")
    return small_kernels(tmp_path_factory)


class _Last(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("pointers", ctypes.c_void_p * 3),
        ("integers", ctypes.c_int32 * 7),
        ("out", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p * 2),
        ("symbol", ctypes.c_char * 64),
    ]


@dataclass
class FakeCuda:
    """The stand-in's library and its knobs."""

    path: Path
    library: Any
    driver: Driver

    def set(self, name: str, value: int) -> None:
        kind = ctypes.c_ulonglong if name == "context" else ctypes.c_int
        kind.in_dll(self.library, f"fake_{name}").value = value

    def get(self, name: str) -> int:
        return ctypes.c_int.in_dll(self.library, f"fake_{name}").value

    @property
    def last(self) -> _Last:
        return _Last.in_dll(self.library, "fake_last")


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the stand-in for the CUDA driver")

    def compile_it(folder: Path) -> None:
        command = ["g++", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(HERE / "fake_cuda.cpp")]
        subprocess.run(command, check=True)

    return made_once(tmp_path_factory, "fake-cuda", compile_it) / "libcuda.so.1"


@pytest.fixture
def cuda(fake_library: Path) -> FakeCuda:
    fake = FakeCuda(fake_library, ctypes.CDLL(str(fake_library)), Driver(str(fake_library)))
    for name, value in {"sm": 87, "refuse_cubin": 0, "modules": 0, "ptx": 0, "shared_allowed": 0, "context": 1}.items():
        fake.set(name, value)
    return fake
