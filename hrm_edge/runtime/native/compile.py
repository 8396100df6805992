"""The C++ source beside this file, compiled for this processor and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import os_error, writable_cache
from hrm_edge.packages import compiler_names
from hrm_edge.runtime import compile_cache

_SOURCE = "step.cpp"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")
_HINT = "install a C++ compiler (Debian, Ubuntu: sudo apt install g++), or use --backend onnxruntime"


def compiler() -> str | None:
    """Return the C++ compiler: $CXX, or the first of the usual names."""
    return next((path for name in compiler_names() if (path := shutil.which(name))), None)


def library() -> ctypes.CDLL:
    """Load the compiled step, compiled when first asked for, which takes ten seconds.

    Raises ``UserError`` where there is no compiler, or where it refuses.
    """
    program = compiler()
    if program is None:
        raise UserError("--backend native: there is no C++ compiler here", _HINT)
    folder = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.h")]))
    parts = (sources, program.encode(), _version(program), " ".join(FLAGS).encode(), compile_cache.processor().encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    place = writable_cache("native")
    known = compile_cache.find(place, key, ".so")  # a torn library would end this process in a bus error
    if known is not None:
        path, _ = known
    else:
        try:
            path, _ = compile_cache.keep(place, key, ".so", lambda to: _compile(program, folder / _SOURCE, to))
        except OSError as error:
            raise os_error(error, place) from error
        compile_cache.prune(place)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(f"--backend native: {path} cannot be loaded: {error}", f"remove it: rm {path}") from error
    for new in (loaded.hrm_new, loaded.hrm_new_lattice):
        new.restype = ctypes.c_void_p
        new.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32))
    loaded.hrm_free.argtypes = (ctypes.c_void_p,)
    loaded.hrm_step.argtypes = (ctypes.c_void_p, ctypes.c_int32, *[ctypes.c_void_p] * 8)
    return loaded


def _version(program: str) -> bytes:
    return subprocess.run([program, "--version"], capture_output=True, check=False).stdout


def _compile(program: str, source: Path, out: Path) -> None:
    done = subprocess.run([program, *FLAGS, str(source), "-o", str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-300:])
        raise UserError(f"--backend native: {program} does not compile the step: {reason}", _HINT)
