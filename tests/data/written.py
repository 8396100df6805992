"""What ``data build`` has written, compared."""

from __future__ import annotations

import filecmp
from pathlib import Path


def same_bytes(one: Path, two: Path) -> bool:
    """Whether two folders hold the same files; both have to hold the same names."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert names
    assert names == sorted(str(path.relative_to(two)) for path in two.rglob("*") if path.is_file())
    return filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
