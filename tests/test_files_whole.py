"""Files that are whole or absent: what killed processes leave is removed, and an error names the file it is about."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hrm_edge.errors import UserError
from hrm_edge.files import ABANDONED_S, atomic_file, atomic_folder, read_json, read_yaml, write_text

KILLED = """
import os, signal
from pathlib import Path
from hrm_edge.files import atomic_file, atomic_folder
with {way}(Path({path!r})) as temporary:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", [atomic_file, atomic_folder])
def test_what_a_killed_process_left_is_removed(way, tmp_path):
    code = KILLED.format(way=way.__name__, path=str(tmp_path / "a[1]"))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a[1].")
    old = time.time() - 2 * ABANDONED_S
    other = tmp_path / ".b.x.tmp"  # of another target
    other.write_text("")
    os.utime(other, (old, old))

    def again() -> None:
        with way(tmp_path / "a[1]") as temporary:
            (temporary / "x" if way is atomic_folder else temporary).write_text("x")

    again()
    assert left.exists()  # it may be another process that is at work
    os.utime(left, (old, old))
    with _opened(left) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        (tmp_path / "a[1]").rename(tmp_path / "first")
        again()
        assert left.exists()  # and it is one: it holds the lock
    (tmp_path / "a[1]").rename(tmp_path / "second")
    again()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.x.tmp", "a[1]", "first", "second"]


class _opened:
    """A descriptor of a file or folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> int:
        self.handle = os.open(self.path, os.O_RDONLY)
        return self.handle

    def __exit__(self, *error: object) -> None:
        os.close(self.handle)


def test_an_error_names_the_file_that_it_is_about(tmp_path):
    for way in (atomic_file, atomic_folder):
        with pytest.raises(UserError, match="elsewhere: No such file or directory"), way(tmp_path / "out"):
            (tmp_path / "elsewhere").read_text()
        with pytest.raises(UserError, match="out: No space left on device"), way(tmp_path / "out"):
            raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [200, 250, 255])
def test_a_name_as_long_as_the_file_system_allows(length, tmp_path):
    for letter in ("r", "é"):
        name = letter * (length // len(letter.encode()))
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"\xff\xfe", b"a: [", b"when: 2020-13-45", b"a: &a [*b]", b"? [a]\n: !!python/object:x y"]
)
def test_yaml_and_json_that_are_none(text, tmp_path):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(UserError, match=r"--policy x is (not valid YAML|no text file)"):
        read_yaml(tmp_path / "x", "write it anew", called="--policy x")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(tmp_path / "x")
