"""Preparation of a process before a verb runs: open streams, a home folder, a user's name where they are missing."""

from __future__ import annotations

import codecs
import os
import pwd
import sys

_INSTEAD = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "…": "...", "≥": ">=", "≤": "<=", "±": "+-", "·": "*"}
)
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # as getpass looks for them


def prepare() -> None:
    """Open streams that were closed, print what their encoding lacks in other letters, and find a home."""
    _open_streams()
    codecs.register_error("hrm-edge", _other_letters)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="hrm-edge")
    _find_home()


def _open_streams() -> None:
    """Put /dev/null in the place of standard streams that are closed (``>&-``): else the next file opened is one."""
    while (taken := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(taken)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _other_letters(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded: a dash for a long one, the code of bytes that are no text, else ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_INSTEAD)
    letters = [f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c if c.isascii() else "?" for c in text]
    return "".join(letters), error.end


def _find_home() -> None:
    """Give the libraries of others a home and a name where the user has neither: a container started with a number.

    Without a home some of them stop every command, and others make a folder called ``~``.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in _NAMES):
            os.environ["USER"] = str(os.getuid())
        if not os.environ.get("HOME"):
            from hrm_edge.files import private_folder

            os.environ["HOME"] = str(private_folder())
