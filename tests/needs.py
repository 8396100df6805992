"""Programs that tests drive: where one is missing a test skips and says so; in CI, which installs them, it fails."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

HEAVY = ("torch", "torch_tensorrt", "openvino", "tensorrt_rtx")  # a second of processor time each, and no board's


def missing(what: str) -> NoReturn:
    """Skip, or fail where ``.ci/run`` should have installed it: a skip there would be a test that nobody runs."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: .ci/run should have installed it")
    pytest.skip(what)


def installed(name: str, package: str | None = None) -> str:
    """Path of a program of these tests' environment or of the system, those of administrators included."""
    places = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(f"{name} is not installed: apt-get install {package or name}")
    return found


def left_out(folder: Path, *modules: str) -> str:
    """A folder below ``folder`` that hides ``modules`` (default: the heavy ones) on ``PYTHONPATH``."""
    hidden = folder / "left-out"
    hidden.mkdir()
    for name in modules or HEAVY:
        missing = f"No module named {name!r}"
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError({missing!r}, name={name!r})\n")
    return str(hidden)


def quick_compiler(folder: Path) -> dict[str, str]:
    """Variables that have C++ and numba's code compiled without optimization: a third and a seventh of the time."""
    wrapper = folder / "quick-c++"
    wrapper.write_text(f'#!/bin/sh\nexec {installed("c++", "g++")} "$@" -O0\n')
    wrapper.chmod(0o755)
    return {"CXX": str(wrapper), "NUMBA_OPT": "0"}
