"""What ONNX Runtime makes of an artifact's step when it loads it, kept in the user's cache for the next start.

It is not kept in the artifact: it holds operators that only this version of the runtime knows, chosen for this
processor, while the artifact is one file for every runtime. A cache that cannot be written or read costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

from hrm_edge.files import user_cache
from hrm_edge.manifest import STEP_FILE, Manifest

RUNTIME = "onnxruntime"
MOST_FILES = 16  # the least recently used go first


def file_for(manifest: Manifest) -> Path | None:
    """The file of a verified artifact's step for this version of ONNX Runtime on this processor.

    None where there is nothing to tell the step by, as while an artifact is being written. It counts as used.
    """
    entry = manifest.files.get(STEP_FILE)
    if entry is None:
        return None
    parts = (entry.sha256, metadata.version(RUNTIME), processor())
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    path = user_cache() / "compiled" / RUNTIME / f"{name}.onnx"
    with contextlib.suppress(OSError):
        os.utime(path)
    return path


def prune(folder: Path) -> None:
    """Remove all but the most recently used files."""
    with contextlib.suppress(OSError):
        files = sorted((f for f in folder.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime, reverse=True)
        for file in files[MOST_FILES:]:
            file.unlink()


def processor() -> str:
    """What compiled code depends on: the instruction sets, by the kernel's list of them where it has one."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line}"
    return f"{platform.machine()} {platform.processor()}"
