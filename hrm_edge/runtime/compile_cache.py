"""Cache of the graphs and programs that runtimes make of an artifact's step when they load it.

It is not kept in the artifact: it holds operators that only this version of the runtime knows, chosen for this
processor, while the artifact is one file for every runtime. A cache that cannot be written or read costs time only.
A file's name ends in the hash of its content: what was torn or changed since is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

MOST_FILES = 16  # the least recently used go first

Made = TypeVar("Made")


def find(folder: Path, key: str, suffix: str) -> tuple[Path, bytes] | None:
    """Return the kept file of ``key`` and its content, or None; it counts as used. Files that are torn are removed."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"{key}-*{suffix}")):
            content = path.read_bytes()
            if path.name == f"{key}-{_digest(content)}{suffix}":
                os.utime(path)
                return path, content
            path.unlink()
    return None


def keep(folder: Path, key: str, suffix: str, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Let ``make`` write a file and keep it for :func:`find`; return its path and what ``make`` returned.

    Raises what ``make`` raises, and ``OSError`` where the cache cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        temporary = Path(scratch) / f"{key}{suffix}"
        made = make(temporary)
        path = folder / f"{key}-{_digest(temporary.read_bytes())}{suffix}"
        os.replace(temporary, path)
    return path, made


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def prune(folder: Path) -> None:
    """Remove all but the most recently used files."""
    with contextlib.suppress(OSError):
        files = sorted((f for f in folder.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime, reverse=True)
        for file in files[MOST_FILES:]:
            file.unlink()


def processor() -> str:
    """Return what compiled code depends on: the instruction sets, as the kernel and NumPy report them.

    The two differ where a program runs on an imitated processor: the kernel's list is then the real one's.
    """
    return "\n".join([_by_kernel(), *_by_numpy()])


def _by_kernel() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line}"
    return f"{platform.machine()} {platform.processor()}"


def _by_numpy() -> list[str]:
    with contextlib.suppress(ImportError, AttributeError):  # not public: another version may have it elsewhere
        features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
        return sorted(name for name, has in features.items() if has)
    return []
