"""Memory of a training step: how the process asks for it and keeps it."""

from __future__ import annotations

import ctypes
import os
import sys

_MALLOPT = {-3: 32 << 20, -1: 2**31 - 1, -2: 64 << 20}  # thresholds of mmap (32 MiB is the most) and trim, and top pad


def keep_memory() -> None:
    """Let what one step frees serve the next, and come in large pages; to be called before torch allocates.

    glibc gives large blocks back as they are freed, and the system hands them out again filled with zeros, page by
    page: a quarter of a step on a CPU. Does nothing where the C library has no ``mallopt``.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own: large tensors lie in transparent huge pages
    library = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(library, "mallopt"):
        for name, value in _MALLOPT.items():
            library.mallopt(name, value)
