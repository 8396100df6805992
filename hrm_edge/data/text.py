"""Lines of text files, gzipped or not, in any common encoding, or of standard input."""

from __future__ import annotations

import codecs
import contextlib
import functools
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import check_input, os_error

STDIN, STDIN_NAME = "-", "standard input"
_HEAD = 4096  # first bytes, which show what a file is
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LATIN = "hrm_edge.latin-1"  # fallback for bytes that are not UTF-8: they occur only in comments and names
_OTHER_FILES = {
    b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"GIF8": "a picture", b"RIFF": "a picture or a film",
    b"%PDF": "a PDF", b"PK\x03\x04": "an archive or a spreadsheet (.zip, .xlsx)", b"\xd0\xcf\x11\xe0": "an Office file",
    b"7z\xbc\xaf": "an archive", b"BZh": "an archive", b"\xfd7zXZ": "an archive", b"\x28\xb5\x2f\xfd": "an archive",
}  # fmt: skip

codecs.register_error(_LATIN, lambda error: _as_latin(error))


@dataclass(frozen=True)
class Text:
    """Open text file."""

    name: str
    """Path, for messages."""
    lines: Iterator[str]
    """Lines with their ends, read lazily."""
    about: tuple[str, ...]
    """Unusual properties of the file, in words: gzipped, UTF-16."""


@contextlib.contextmanager
def open_text(path: Path | str) -> Iterator[Text]:
    """Open a text file or standard input (``-``). Raises ``UserError`` for any error, also while it is read."""
    name = STDIN_NAME if str(path) == STDIN else str(path)
    if str(path) != STDIN:
        check_input(path, pipe=True)
    try:
        with contextlib.ExitStack() as stack:
            raw = io.BytesIO(_stdin()) if str(path) == STDIN else stack.enter_context(open(path, "rb", buffering=0))
            yield _decoded(name, stack.enter_context(io.BufferedReader(raw)), stack)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name} is no whole gzip file: {error}", "download or write it again") from error
    except UnicodeError as error:
        raise UserError(f"{name} is not text: {error}", "save it as UTF-8") from error
    except OSError as error:
        raise os_error(error, name) from error


@functools.cache
def _stdin() -> bytes:
    """Return all of standard input, kept: a command may read its puzzles twice, a pipe comes only once."""
    return sys.stdin.buffer.read()


def _decoded(name: str, stream: io.BufferedReader, stack: contextlib.ExitStack) -> Text:
    about: list[str] = []
    if stream.peek(2)[:2] == b"\x1f\x8b" or name.endswith(".gz"):
        about.append("gzipped")
        stream = io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=stream)))
    head = stream.peek(_HEAD)[:_HEAD]
    encoding = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "utf-8")
    if encoding == "utf-16":
        about.append("UTF-16")
    else:
        _refuse_binary(name, head)
    lines = io.TextIOWrapper(stream, encoding, errors=_LATIN if encoding != "utf-16" else "strict", newline="")
    return Text(name, lines, tuple(about))


def _refuse_binary(name: str, head: bytes) -> None:
    other = next((what for start, what in _OTHER_FILES.items() if head.startswith(start)), None)
    if other or any(byte < 9 or 13 < byte < 27 for byte in head):  # tab to return, and escape, occur in texts
        what = f"it looks like {other}" if other else "it has control characters"
        hint = "give puzzles as a text or CSV file (.gz is fine)"
        if "picture" in what:  # from standard input, or where only texts are read
            hint += ", and a picture by the name of its file: hrm-edge solve photo.jpg"
        raise UserError(f"{name} is not text: {what}", hint)


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end
