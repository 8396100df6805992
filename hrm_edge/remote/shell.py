"""Scripts and answers that pass a board's login shell unharmed, whatever it prints.

sshd gives every command to the user's login shell, which may be csh, whose quoting is another one, and which may print
at its start. So a script travels as base64 in words that every shell passes on unchanged, ``sh`` runs it, and its
output begins with a mark; whatever came before the mark is the login shell's.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

_WORD = 512  # characters; Berkeley's csh takes words of 1,024
_PIECE = 1 << 16


def new_mark() -> bytes:
    """Return a line that no login shell prints."""
    return f"hrm-edge-{secrets.token_hex(8)}\n".encode()


def remote_words(script: str, mark: bytes) -> str:
    """Return the command for the login shell that prints ``mark`` and runs ``script`` in ``sh``."""
    text = f"printf '%s\\n' {mark.decode().strip()}\n{script}"
    encoded = base64.b64encode(os.fsencode(text)).decode()
    words = [encoded[start : start + _WORD] for start in range(0, len(encoded), _WORD)]
    return f"""sh -c 'eval "$(printf %s "$@" | base64 -d)"' sh {" ".join(f"'{word}'" for word in words)}"""


def after_mark(output: bytes, mark: bytes) -> bytes:
    """Return what the script printed; nothing where it never began."""
    return output.partition(mark)[2]


class Stream:
    """The output of a script as it comes, without what stands before the mark."""

    def __init__(self, pipe: IO[bytes], mark: bytes) -> None:
        self._pipe, self._mark = pipe, mark
        self._before: bytes | None = b""

    def read(self) -> bytes:
        """Return what is there, at least a byte, or nothing at the end."""
        while piece := os.read(self._pipe.fileno(), _PIECE):
            if self._before is None:
                return piece
            self._before += piece
            if self._mark in self._before:
                rest = after_mark(self._before, self._mark)
                self._before = None
                if rest:
                    return rest
        return b""


def main(arguments: Sequence[str]) -> int:
    """Be ssh for rsync: ``ARGUMENTS… HOST rsync --server …`` with the greeting of the board taken off the stream."""
    at = arguments.index("--server") - 1
    mark = new_mark()
    command = [*arguments[:at], remote_words(f"exec {shlex.join(arguments[at:])}", mark)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        stream = Stream(process.stdout, mark)
        with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):  # rsync has ended, or is about to
            while piece := stream.read():
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
