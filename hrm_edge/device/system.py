"""Access to the machine: files below a root folder, and programs. Tests give another root and other programs."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Programs = Callable[[Sequence[str]], "str | None"]
"""Function from a command to its standard output, or None where it is not installed, fails or hangs."""

_PROGRAM_LIMIT_S = 5.0


def _run_program(command: Sequence[str]) -> str | None:
    """Run ``command`` on this machine; see :data:`Programs`."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class System:
    """Files below ``root`` and ``programs`` of a machine. A missing file is no error, except in :meth:`read`."""

    root: Path = Path("/")
    programs: Programs = _run_program

    def path(self, name: str) -> Path:
        """Return the absolute path ``name`` (``/sys/…``) below the root."""
        return self.root / name.lstrip("/")

    def glob(self, pattern: str) -> list[Path]:
        """Return the paths that match an absolute ``pattern``, sorted by name with numbers in numeric order."""
        try:
            found = list(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []
        return sorted(found, key=_natural)

    def read(self, path: str | Path) -> str:
        """Return a file's text without NULs and surrounding white space. Raises ``OSError``."""
        at = path if isinstance(path, Path) else self.path(path)
        # A pipe would block the read.
        if not at.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(at))
        return at.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()

    def line(self, path: str | Path) -> str | None:
        """Return the text by :meth:`read`, or None where the file is missing, unreadable or empty."""
        try:
            return self.read(path) or None
        except OSError:
            return None

    def integer(self, path: str | Path) -> int | None:
        """Return a file's text as an integer, or None where it is not one."""
        text = self.line(path)
        try:
            return None if text is None else int(text.split()[0])
        except ValueError:
            return None

    def run(self, *command: str) -> str | None:
        """Return a program's output; see :data:`Programs`."""
        return self.programs(command)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return the sort key that puts ``cpu2`` before ``cpu10``."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", str(path))]
