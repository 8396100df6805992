"""The C++ plugin: built with CMake, driven through TensorRT's interfaces, and loaded by the lean runtime.

TensorRT's headers are in no package registry. Where they are at hand:

    HRM_EDGE_TENSORRT_INCLUDE=<include/ of github.com/NVIDIA/TensorRT> python -m pytest tests/plugin
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hrm_edge.errors import UserError
from hrm_edge.plugin.contract import ABI, DTYPES, NAME, NAMESPACE, VERSION
from hrm_edge.plugin.kernels import KernelFolder
from hrm_edge.plugin.load import LIBRARY, SOURCES, PluginInfo, _check, _describe, find_library, load_plugin

HERE = Path(__file__).parent
HEADERS = os.environ.get("HRM_EDGE_TENSORRT_INCLUDE")
needs_headers = pytest.mark.skipif(
    not HEADERS, reason="HRM_EDGE_TENSORRT_INCLUDE names no folder of TensorRT's headers (they are in no registry)"
)


def cuda_include() -> Path:
    """CUDA's headers: the toolkit's, or those that Triton brings."""
    import triton

    toolkit = Path("/usr/local/cuda/include")
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    return toolkit if (toolkit / "cuda_runtime_api.h").is_file() else bundled


@pytest.fixture(scope="module")
def library(kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("no cmake or no g++ to build the plugin with")
    build = tmp_path_factory.mktemp("build")
    options = {"HRM_KERNELS_DIR": kernels, "TENSORRT_INCLUDE_DIR": HEADERS, "CUDA_INCLUDE_DIR": cuda_include()}
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", str(SOURCES), "-B", str(build), *definitions], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build)], check=True, capture_output=True)
    return build / LIBRARY


@needs_headers
def test_through_tensorrts_interfaces(library: Path, fake_library: Path, tmp_path: Path) -> None:
    """Fields, shapes, formats, launches, fall-back and refusals: see check_library.cpp."""
    program = tmp_path / "check_library"
    includes = [f"-isystem{folder}" for folder in (HEADERS, cuda_include())]
    source = str(HERE / "check_library.cpp")
    subprocess.run(["g++", "-std=c++17", "-Wall", *includes, source, "-o", str(program), "-ldl"], check=True)
    done = subprocess.run(
        [str(program), str(library), str(fake_library)],
        env={**os.environ, "LD_LIBRARY_PATH": str(fake_library.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@needs_headers
def test_it_chooses_kernels_as_python_does(library: Path, kernels: Path) -> None:
    find = ctypes.CDLL(str(library)).hrm_edge_plugin_find
    find.argtypes = [ctypes.c_int32] * 5 + [ctypes.c_int64] * 2
    folder = KernelFolder(kernels)
    for length in (1, 82, 128, 129, 901):
        for sequences in (1, 64, 65, 8192):
            for rope, grid in itertools.product((False, True), (False, True)):
                own, base = folder.candidates(87, "float16", 32, rope, grid, length, sequences)
                for kernel in (own, base):
                    found = find(kernel.sm, DTYPES.index("float16"), 32, rope, grid, length, sequences)
                    assert folder.kernels[found] == kernel
    assert find(87, DTYPES.index("float32"), 32, 0, 0, 82, 8) == -1


@needs_headers
def test_the_lean_runtime_loads_finds_and_creates_it(library: Path) -> None:
    """In a process of its own: a registry cannot be emptied of a library's creators while they are in use."""
    pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")
    code = f"""
import numpy as np
import tensorrt_lean_bindings as trt
from hrm_edge.plugin.load import load_plugin
info = load_plugin(trt, {str(library)!r}, expected={{"name": "{NAME}", "abi": {ABI}}})
assert load_plugin(trt, {str(library)!r}) == info
creator = trt.get_plugin_registry().get_creator("{NAME}", "{VERSION}", "{NAMESPACE}")
assert [field.name for field in creator.field_names] == ["heads", "grid"]
heads = np.array([8], np.int32)
fields = trt.PluginFieldCollection([trt.PluginField("heads", heads, trt.PluginFieldType.INT32)])
assert creator.create_plugin("layer", fields, trt.TensorRTPhase.BUILD) is not None
print(info.abi, info.sms)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ABI} (80, 87)\n" or done.stdout == f"{ABI} (87, 80)\n"


@needs_headers
def test_the_library_says_what_it_is(library: Path) -> None:
    info = _describe(library)
    assert (info.abi, info.library, info.namespace) == (ABI, LIBRARY, NAMESPACE)
    _check(info, info.as_dict())
    with pytest.raises(UserError, match="the engine needs plugin abi"):
        _check(info, {**info.as_dict(), "abi": ABI + 1})
    assert find_library(library.parent) == library


def test_a_missing_or_strange_library_is_named(tmp_path: Path, fake_library: Path) -> None:
    with pytest.raises(UserError, match="no such plugin library") as error:
        find_library(tmp_path)
    assert "cmake" in error.value.hint
    with pytest.raises(UserError, match="is no plugin library of hrm-edge"):
        _describe(fake_library)
    (tmp_path / LIBRARY).write_bytes(b"not a library")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_plugin(None, tmp_path)


def test_cmake_says_what_is_missing(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    (tmp_path / "NvInferRuntime.h").touch()
    (tmp_path / "cuda_runtime_api.h").touch()
    given = {"TENSORRT_INCLUDE_DIR": tmp_path, "CUDA_INCLUDE_DIR": tmp_path}
    for name, text in (("", "holds no kernels.inc"), ("TENSORRT_INCLUDE_DIR", "TensorRT's headers are missing")):
        values = {**given, **({name: f"{name}-NOTFOUND"} if name else {})}
        command = ["cmake", "-S", str(SOURCES), "-B", str(tmp_path / f"build{name}")]
        # the roots keep cmake from finding what the machine has
        command += [f"-D{n}={v}" for n, v in values.items()] + ["-DCMAKE_FIND_ROOT_PATH=/nowhere"]
        command += ["-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert text in " ".join(done.stderr.split())


def test_a_library_without_masks_is_refused_before_tensorrt_sees_it() -> None:
    """ABI 1 had no boards: its kernels would let every head see all positions."""
    old = PluginInfo(LIBRARY, 64 * "0", 1, "0.1.0", "10.3", (87,))
    with pytest.raises(UserError, match=rf"has ABI 1, hrm-edge \S+ needs {ABI}") as error:
        _check(old)
    assert "build the plugin again" in error.value.hint
