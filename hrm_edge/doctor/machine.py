"""Sources of the doctor's facts: files and programs (``device.System``), Python's packages, the user's rights.

Nothing here raises. Everything is a field, so that a test gives it another root and recorded answers.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from hrm_edge.child import python_command
from hrm_edge.device.system import System
from hrm_edge.packages import compiler_names
from hrm_edge.records import Record

_IMPORT_LIMIT_S = 120.0  # a board on an SD card takes half a minute for a first import


class Package(Record):
    """An installed Python distribution."""

    version: str
    from_apt: bool = Field(description="it lies in Debian's dist-packages")


class Import(Record):
    """Result of importing a package in a process of its own."""

    version: str | None = None
    error: str | None = None
    providers: list[str] = Field(default=[], description="of ONNX Runtime; of OpenCV GStreamer, where it has it")


class GpuSession(Record):
    """Result of moving data to the GPU and back in a process of its own, as every session with an engine does."""

    binding: str | None = Field(default=None, description="the package that moved it; null where none could")
    runtime: str | None = Field(default=None, description="the CUDA that the package is made for")
    driver: str | None = Field(default=None, description="the newest CUDA that the driver runs")
    error: str | None = None
    hint: str | None = None


Tried = TypeVar("Tried", Import, GpuSession)


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs hrm-edge."""

    executable: str = sys.executable
    version: tuple[int, int] = sys.version_info[:2]
    prefix: str = sys.prefix
    base_prefix: str = sys.base_prefix

    @property
    def in_venv(self) -> bool:
        return self.prefix != self.base_prefix


def _find_package(name: str) -> Package | None:
    """Look a distribution up by name; nothing is imported."""
    try:
        distribution = metadata.distribution(name)
        return Package(version=distribution.version, from_apt="dist-packages" in str(distribution.locate_file("")))
    except Exception:  # noqa: BLE001 - the metadata of a damaged installation raises anything
        return None


def _last_line(code: str, *, check: bool = False) -> str:
    """Run Python code in a new process, which a library may crash, and return the last line that it prints.

    Raises ``IndexError`` where it prints nothing, ``TimeoutExpired`` after ``_IMPORT_LIMIT_S`` seconds, ``OSError``
    where no process starts, and with ``check`` ``CalledProcessError`` for another exit code than 0.
    """
    done = subprocess.run(
        python_command("-c", code),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_IMPORT_LIMIT_S,
        check=check,
    )
    return done.stdout.splitlines()[-1]


def _tried(code: str, kind: type[Tried], slow: Tried, crashed: Tried) -> Tried:
    """Run ``code``, a try that sets ``result``, in a new process, and return the result or the error as a ``kind``.

    Returns ``slow`` where it takes too long, ``crashed`` where the process says nothing.
    """
    code += (
        "except Exception as error:\n"
        "    result = {'error': f'{type(error).__name__}: {error}'.splitlines()[0][:200]}\n"
        "import json\n"
        "print('\\n' + json.dumps(result))\n"
    )
    try:
        return kind.model_validate(json.loads(_last_line(code)))
    except subprocess.TimeoutExpired:
        return slow
    except (OSError, ValueError, IndexError):
        return crashed


def try_import(name: str) -> Import:
    """Import ``name`` in a new process: a library of the wrong machine may crash it."""
    code = (
        "import importlib\n"
        "import hrm_edge.quiet\n"
        "hrm_edge.quiet.switch_off()\n"
        "try:\n"
        f"    module = importlib.import_module({name!r})\n"
        "    providers = getattr(module, 'get_available_providers', list)()\n"
        "    built = getattr(module, 'getBuildInformation', str)().split()\n"  # of OpenCV
        "    providers += ['GStreamer'] if ['GStreamer:', 'YES'] in map(list, zip(built, built[1:])) else []\n"
        "    result = {'version': str(getattr(module, '__version__', '?')), 'providers': providers}\n"
    )
    slow = f"importing it takes more than {_IMPORT_LIMIT_S:.0f} s"
    return _tried(code, Import, Import(error=slow), Import(error="importing it crashes Python"))


def is_missing(name: str, error: str | None) -> bool:
    """Return whether importing ``name`` failed because it is not installed, and not because it does not load."""
    return error == f"ModuleNotFoundError: No module named {name!r}"


def _try_int8(module: str) -> str | None:
    """Return how a CPU runtime multiplies INT8 artifacts here, found out in a new process; None where that fails.

    ``module``: of the runtime's sessions, see ``backends.BackendInfo.probe``.
    """
    code = f"from {module} import int8_arithmetic\nprint()\nprint(int8_arithmetic())"
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        return _last_line(code, check=True)
    return None


def try_gpu() -> GpuSession:
    """Move data to the GPU and back in a new process: a driver of another machine may crash it."""
    code = (
        "from hrm_edge.errors import UserError\n"
        "from hrm_edge.runtime.trt.cuda import try_cuda\n"
        "try:\n"
        "    result = try_cuda()\n"
        "except UserError as error:\n"
        "    result = {'error': error.problem, 'hint': error.hint}\n"
    )
    slow = GpuSession(error=f"the GPU did not answer within {_IMPORT_LIMIT_S:.0f} s", hint="dmesg | tail")
    crashed = GpuSession(error="moving data to the GPU crashes Python", hint="dmesg | tail; see nvidia-smi")
    return _tried(code, GpuSession, slow, crashed)


def _own_groups() -> frozenset[str]:
    names = set()
    for gid in {*os.getgroups(), os.getegid()}:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.add(str(gid))
    return frozenset(names)


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container that was started with a number without a name
        return str(os.geteuid())


def _free_bytes(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


@dataclass(frozen=True)
class Machine:
    """The machine to be looked at: this one, unless told otherwise."""

    system: System = field(default_factory=System)
    package: Callable[[str], Package | None] = _find_package
    imports: Callable[[str], Import] = try_import
    int8: Callable[[str], str | None] = _try_int8
    gpu: Callable[[], GpuSession] = try_gpu
    python: Interpreter = field(default_factory=Interpreter)
    compilers: tuple[str, ...] = field(default_factory=compiler_names)
    architecture: str = field(default_factory=lambda: os.uname().machine)
    user: str = field(default_factory=_own_name)
    groups: frozenset[str] = field(default_factory=_own_groups)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    home: Path = field(default_factory=lambda: Path("~").expanduser())
    free_bytes: Callable[[Path], int | None] = _free_bytes
    can_use: Callable[[Path], bool] = lambda path: os.access(path, os.R_OK | os.W_OK)

    def text(self, path: str) -> str:
        """Return a file's text, or nothing where it is missing or cannot be read."""
        return self.system.line(path) or ""

    def has(self, path: str) -> bool:
        try:
            return self.system.path(path).exists()
        except OSError:
            return False
