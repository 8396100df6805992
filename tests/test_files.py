"""Files that are either whole or absent, and what is no regular file, which stays what it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, is_plain_name, write_json, write_text


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert heard == ['{\n  "a": 1\n}\n']
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def device(path: Path, minor: int) -> Path:
    """A device of the test's own: a fault must not replace the machine's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error.strerror}")
    return path


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    null, full = device(tmp_path / "null", 3), device(tmp_path / "full", 7)
    write_text(null, "report")
    assert stat.S_ISCHR(null.lstat().st_mode)
    with pytest.raises(UserError, match=r"full: No space left on device"):
        write_text(full, "report")
    assert stat.S_ISCHR(full.lstat().st_mode)


def test_standard_output_by_its_path(tmp_path: Path) -> None:
    """Redirected into a file, it is not replaced: what was printed before stays in it."""
    code = (
        "import sys; from hrm_edge.files import write_text\n"
        "print('before', flush=True); write_text('/proc/self/fd/1', 'report\\n')"
    )
    with open(tmp_path / "out", "a") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nreport\n"


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "report.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    link.symlink_to("elsewhere/report.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    with pytest.raises(RuntimeError), atomic_file(link):
        raise RuntimeError
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "elsewhere") == ["report.json"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\nb", "a\0b", "x" * 256])
def test_what_is_no_plain_name(name: str) -> None:
    assert not is_plain_name(name)
    assert is_plain_name("step.onnx")
