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


# Compiles, or copies what a test of this run has compiled of the same sources with the same flags: the code under test
# calls a compiler all the same, and only the first call takes its seconds.
_KEEPING = """#!/bin/sh
[ "$1" = --version ] && exec "{compiler}" --version
last= out= source= flags="{flags}"
for word; do
    case "$last $word" in
        "-o "*) out=$word ;; *" -o") ;; *.cpp) source=$word ;; *) flags="$flags $word" ;;
    esac
    last=$word
done
kept={folder}/$({{ echo "$flags"; cat "${{source%/*}}"/*.h "$source"; }} | cksum | tr ' ' -)
if command -v flock >/dev/null; then exec 9>"$kept.lock"; flock 9; fi
[ -e "$kept" ] && exec cp "$kept" "$out"
"{compiler}" "$@" {flags} && cp "$out" "$kept.$$" && mv "$kept.$$" "$kept"
"""


def keeping_compilers(folder: Path) -> dict[str, str]:
    """``CXX``: a C++ compiler that keeps what it made, in ``folder``; that name with ``-O0``: one that is quick too."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return {}
    folder.mkdir(exist_ok=True)
    for name, flags in (("c++", ""), ("c++-O0", "-O0")):
        scratch = folder / f".{name}.{os.getpid()}"  # workers of one run write the same
        scratch.write_text(_KEEPING.format(compiler=compiler, flags=flags, folder=folder))
        scratch.chmod(0o755)
        scratch.replace(folder / name)
    return {"CXX": str(folder / "c++")}


def quick_compilers() -> dict[str, str]:
    """Variables that have C++ and numba's code compiled without optimization: a third and a seventh of the time."""
    installed("c++", "g++")
    return {"CXX": f"{os.environ['CXX']}-O0", "NUMBA_OPT": "0"}
