"""Python packages of others that may be missing here, or be there and not load; and what to do about either.

A package that is there and does not load is no bug of ours and is not "not installed": its libraries are for another
system, or for another NumPy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from types import TracebackType

from hrm_edge.errors import UserError

EXTRAS = {  # a module that may be missing → the extra that brings it
    "torch": "train",
    "numba": "data",
    "huggingface_hub": "hub",
    "onnx": "export",
    "cv2": "vision",
    "starlette": "web",
    "uvicorn": "web",
    "websockets": "web",
    "cuda": "gpu",
    "tensorrt_rtx": "rtx",
    "openvino": "openvino",
    "matplotlib": "report",
    "wandb": "wandb",
}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "cuda": "cuda-python",
    "tensorrt_rtx": "tensorrt-rtx",
    "PIL": "pillow",
}
_OTHER_NUMPY = re.compile(r"multiarray failed to import|_ARRAY_API|compiled using NumPy 1|numpy\.\w+ size changed")
_STATIC_TLS = re.compile(r"(\S+): cannot allocate memory in static TLS block")
_NEW_SYSTEM = re.compile(r"version `(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found")
_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


def compiler_names() -> tuple[str, ...]:
    """Return the programs that may compile C++ here, in their order: $CXX, or else the usual names."""
    named = os.environ.get("CXX")
    return (named,) if named else ("c++", "g++", "clang++")


def check_installed(module: str, flag: str, purpose: str = "") -> None:
    """Raise ``UserError`` where ``flag`` needs a package that is not installed: before the work, not after it."""
    if importlib.util.find_spec(module) is None:
        needed = " ".join(filter(None, (f"{flag} needs {module}", purpose)))
        raise UserError(
            f"{needed}, which is not installed", f"pip install 'hrm-edge[{EXTRAS[module]}]', or leave {flag} out"
        )


def missing_extra(error: ModuleNotFoundError, user: str) -> UserError | None:
    """Return what to install where ``error`` is about a package that an extra brings; ``user``: what needs it."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return UserError(f"{user} needs {module}", f"pip install 'hrm-edge[{EXTRAS[module]}]'")


@contextlib.contextmanager
def explained(user: str) -> Iterator[None]:
    """Turn the lack of a package, met in the block, into a ``UserError`` that says what ``user`` needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        lack = missing_extra(error, user)
        if lack is None:
            raise
        raise lack from error


def unusable(module: str, error: BaseException, purpose: str = "", install: str | None = None) -> UserError:
    """Return the user's view of ``error``, which importing ``module`` raised.

    ``purpose``: what it is needed for, in words that follow a comma. ``install``: what pip installs, by default the
    extra that brings it.
    """
    wanted = f", {purpose}" if purpose else ""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == module:
        extra = f"'hrm-edge[{EXTRAS[module]}]'" if module in EXTRAS else DISTRIBUTIONS.get(module, module)
        return UserError(f"{module} is not installed{wanted}", f"pip install {install or extra}")
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return UserError(f"{module} is installed and does not load{wanted} ({said})", load_hint(module, str(error)))


def load_hint(module: str, said: str, python: str = sys.executable) -> str:
    """Return the command that makes an installed ``module`` load, by what the loader ``said``."""
    pip, distribution = f"{python} -m pip", DISTRIBUTIONS.get(module, module)
    reinstall = f"{pip} install --force-reinstall {distribution}"
    if _OTHER_NUMPY.search(said):
        return f"it is built for another NumPy: {pip} install --upgrade {distribution}, or for apt's: 'numpy<2'"
    if found := _STATIC_TLS.search(said):
        return f"let it load first: export LD_PRELOAD={found[1]}, then run the same again"
    if _NEW_SYSTEM.search(said):
        return f"it is made for a newer system: {pip} install an older {distribution}, or upgrade this system"
    if module == "cv2" and _LIBRARY.search(said):
        return f"take the build without windows: {pip} uninstall -y opencv-python; {reinstall}"
    if found := _LIBRARY.search(said):
        return f"{reinstall}; if {found[1]} is the system's: apt-file search {found[1]}"
    return reinstall


def failed_import(error: BaseException) -> str | None:
    """Return the module of others whose import raised ``error``, or None where it was not raised by an import.

    It is the one whose code, run by the import, comes next after ours in the traceback.
    """
    ours, after = False, None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name == "hrm_edge":
            ours, after = True, None
        elif ours and after is None and "importlib" not in frame.f_code.co_filename:
            after = name if frame.f_code.co_name == "<module>" else ""
        trace = trace.tb_next
    if after is None and isinstance(error, ImportError):  # a library that has no Python code around it
        after = (error.name or "").partition(".")[0]
    return after if after and after != "hrm_edge" else None
