"""The few calls of the CUDA driver that a launch needs, by ctypes: no CUDA package, and nothing is loaded on import."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_uint, c_ulonglong, c_void_p
from typing import Any, ClassVar

from hrm_edge.errors import UserError

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_STATIC_SHARED_LIMIT = 48 * 1024  # above it a function must be told (CUDA programming guide, "Shared Memory")
# CUDA_ERROR_INVALID_IMAGE, _NO_BINARY_FOR_GPU, _INVALID_PTX, _UNSUPPORTED_PTX_VERSION: another image may serve
WRONG_IMAGE = (200, 209, 218, 222)


class DriverError(UserError):
    """A call of the driver failed with ``code``."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"CUDA driver: {call} failed with error {code}", "see cuda.h's CUresult; run hrm-edge doctor")
        self.code = code


class Driver:
    """Bound functions of libcuda (CUDA 12 and newer); raises ``UserError`` where there is no driver."""

    _SIGNATURES: ClassVar[dict[str, list[Any]]] = {
        "cuCtxGetCurrent": [POINTER(c_void_p)],
        "cuCtxGetId": [c_void_p, POINTER(c_ulonglong)],
        "cuCtxGetDevice": [POINTER(c_int)],
        "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
        "cuModuleLoadData": [POINTER(c_void_p), c_char_p],
        "cuModuleGetFunction": [POINTER(c_void_p), c_void_p, c_char_p],
        "cuFuncSetAttribute": [c_void_p, c_int, c_int],
        "cuLaunchKernel": [c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)],
    }

    def __init__(self, library: str = _LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise UserError(f"no CUDA driver: {error}", "the plugin runs on a machine with an NVIDIA GPU") from error
        for name, arguments in self._SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise UserError(f"{library} has no {name}", "the plugin needs a driver of CUDA 12 or newer")
            function.argtypes, function.restype = arguments, c_int

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise DriverError(name, code)

    def context(self) -> int:
        """Return the id of the current context, never used again; TensorRT has one current when it calls a plugin."""
        handle, number = c_void_p(), c_ulonglong()
        self._call("cuCtxGetCurrent", byref(handle))
        if not handle.value:
            raise UserError("no CUDA context is current", "set the device first")
        self._call("cuCtxGetId", handle, byref(number))
        return number.value

    def sm(self) -> int:
        """Compute capability of the current device, 87 for 8.7."""
        device, major, minor = c_int(), c_int(), c_int()
        self._call("cuCtxGetDevice", byref(device))
        self._call("cuDeviceGetAttribute", byref(major), _MAJOR, device)
        self._call("cuDeviceGetAttribute", byref(minor), _MINOR, device)
        return 10 * major.value + minor.value

    def load(self, image: bytes, symbol: str, shared: int) -> int:
        """Load a function of a cubin or PTX image, allowed ``shared`` bytes of dynamic shared memory."""
        module, function = c_void_p(), c_void_p()
        self._call("cuModuleLoadData", byref(module), image)
        self._call("cuModuleGetFunction", byref(function), module, symbol.encode())
        if shared > _STATIC_SHARED_LIMIT:
            self._call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, shared)
        assert function.value
        return function.value

    def launch(self, function: int, blocks: int, threads: int, shared: int, stream: int, values: list[int]) -> None:
        """``values``: qkv, cos, sin (addresses), length, heads, rope_stride, the board's four sizes, out (address)."""
        assert len(values) == 11
        typed = [
            *map(c_void_p, values[:3]),
            *map(c_int32, values[3:10]),
            c_void_p(values[10]),
            c_void_p(0),
            c_void_p(0),
        ]
        pointers = (c_void_p * len(typed))(*(ctypes.addressof(value) for value in typed))
        self._call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, shared, stream, pointers, None)


@functools.cache
def driver() -> Driver:
    """Return the machine's driver, loaded once."""
    return Driver()
