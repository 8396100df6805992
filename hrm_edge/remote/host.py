"""One board behind ``ssh``: a shared connection that is made again when it drops, and what ssh's refusals mean.

Host keys are never accepted silently (``StrictHostKeyChecking=yes`` whatever the user's configuration says).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hrm_edge.callbacks import OnMessage
from hrm_edge.child import python_command
from hrm_edge.errors import UserError
from hrm_edge.remote.shell import after_mark, new_mark, remote_words

T = TypeVar("T")

SSH_FAILED = 255
# rsync's codes for a connection that broke: socket, protocol stream, killed, timeouts; the rest is about files.
_RSYNC_DROPPED = (5, 10, 12, 20, 30, 35, SSH_FAILED)
_PATIENCE_S = 600.0  # how long a lost board is waited for before giving up
_LAST_PAUSE_S = 15.0
_FIRST_TRIES = 3  # a line that breaks during the first handshake; one that cannot be made is told at once
# A board that lost its power says nothing: three missed answers, five seconds apart, are a drop.
_ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ConnectTimeout=15")

# No owners, links, devices or pipes: what comes back is files of this user.
_RSYNC = ("--recursive", "--times", "--protect-args", "--stats", "--timeout=60")

_REFUSALS = (  # words of ssh → (problem, hint); waiting does not help against these
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{host} shows another host key than before: it was installed anew, or it is not {host}",
        "compare with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on the board, then: ssh-keygen -R {name}",
    ),
    (
        "Host key verification failed",
        "{host} is not known here: its host key has to be accepted by you",
        "ssh {host}  (compare the fingerprint with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on the board)",
    ),
    ("Permission denied", "{host} refuses this user or key", "ssh-copy-id {host}, or name another user: USER@{name}"),
    ("Too many authentication failures", "{host} refuses the keys offered", "name one: IdentityFile in ~/.ssh/config"),
    ("Could not resolve hostname", "there is no host '{name}'", "check the name, or its entry in ~/.ssh/config"),
    ("Bad configuration option", "ssh does not understand its configuration", "ssh -G {host}"),
    ("Can't open user config file", "the file of --ssh-config cannot be read", "check the path"),
)


class DroppedError(Exception):
    """The connection broke or could not be made; the same call may go through later."""


@dataclass(frozen=True)
class Done:
    """A command that ran to its end on the board."""

    code: int
    out: str
    err: str


class Host:
    """``name`` is anything that ssh takes: an alias, HOST or USER@HOST."""

    def __init__(self, name: str, scratch: Path, config: Path | None, on_message: OnMessage) -> None:
        if name.startswith("-"):
            raise UserError(f"'{name}' is no host", "hrm-edge remote HOST doctor")
        for tool in ("ssh", "rsync"):
            if shutil.which(tool) is None:
                raise UserError(f"{tool} is not installed here", f"sudo apt-get install {tool}")
        self.name = name
        self._scratch = scratch
        self._on_message = on_message
        options = [*(["-F", str(config)] if config else []), "-o", "StrictHostKeyChecking=yes", *_ALIVE]
        if not sys.stdin.isatty():
            options += ["-o", "BatchMode=yes"]  # nobody is there to type a password
        self._ssh = ["ssh", *options, "-o", f"ControlPath={scratch}/%C"]

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Ask the shared connection's master process for something."""
        return subprocess.run([*self._ssh, "-O", *words, self.name], capture_output=True, text=True, check=False)

    def connect(self) -> None:
        """Have a shared connection, for which a password is asked once.

        Raises ``DroppedError``, or ``UserError`` where ssh is refused.
        """
        if self._control("check").returncode == 0:
            return
        # The connection outlives this command and keeps its stderr open: a pipe would never end.
        with tempfile.TemporaryFile("w+", dir=self._scratch) as words:
            keep = ["-o", "ControlMaster=yes", "-o", "ControlPersist=60"]
            done = subprocess.run(
                [*self._ssh, *keep, self.name, "true"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                check=False,
            )
            words.seek(0)
            if done.returncode:
                self._failed(words.read())

    def disconnect(self) -> None:
        self._control("exit")

    def forward(self, port: int) -> None:
        """Let ``port`` of this machine's loopback reach the same one of the board's."""
        done = self._control("forward", "-L", f"127.0.0.1:{port}:127.0.0.1:{port}")
        if done.returncode:
            raise UserError(f"port {port} cannot be forwarded: {done.stderr.strip()}", "choose another one: --port N")

    def command(self, script: str, mark: bytes) -> list[str]:
        """Return the local command that runs a shell script on the board, whatever login shell the user has there.

        Its output begins with ``mark``.
        """
        return [*self._ssh, "-T", self.name, remote_words(script, mark)]

    def run(self, script: str, stdin: str | None = None) -> Done:
        """Run a short script once. Raises ``DroppedError``, or ``UserError`` where ssh is refused."""
        mark = new_mark()
        done = subprocess.run(
            self.command(script, mark), capture_output=True, check=False, input=os.fsencode(stdin or "")
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode == SSH_FAILED:
            self._failed(said)
        return Done(done.returncode, after_mark(done.stdout, mark).decode(errors="replace"), said)

    def at(self, path: str) -> str:
        """Return ``path`` of the board as rsync writes it."""
        user, sign, address = self.name.rpartition("@")
        return f"{user}{sign}[{address}]:{path}" if ":" in address else f"{self.name}:{path}"

    def rsync(self, options: Sequence[str], source: str | Path, target: str | Path, stdin: bytes = b"") -> str:
        """Run rsync over the shared connection; returns its statistics.

        ``source`` and ``target``: folders, of which the board's is made by :meth:`at`, the other a ``Path`` of here.
        """
        shell = shlex.join([*python_command("-m", "hrm_edge.remote.shell"), *self._ssh])
        # absolute: rsync takes a relative "nano:v2" for a folder of a host called nano
        places = [place if isinstance(place, str) else f"{place.absolute()}/" for place in (source, target)]
        done = subprocess.run(
            ["rsync", *_RSYNC, *options, f"--rsh={shell}", "--", *places], capture_output=True, check=False, input=stdin
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode in _RSYNC_DROPPED:
            self._failed(said)
        if done.returncode:
            words = said.strip().splitlines() or [f"exit code {done.returncode}"]
            if "not found" in said or done.returncode == 127:
                raise UserError(f"rsync is not installed on {self.name}", "there: sudo apt-get install rsync")
            full = "No space left" in said
            hint = f"free some space: ssh {self.name} df -h" if full else f"ssh {self.name} ls -ld .cache"
            raise UserError(f"copying to or from {self.name} failed: {words[0]}", hint)
        return done.stdout.decode(errors="replace")

    def _failed(self, words: str) -> None:
        host = {"host": self.name, "name": self.name.rpartition("@")[2]}
        for sign, what, hint in _REFUSALS:
            if sign in words:
                raise UserError(what.format(**host), hint.format(**host))
        lines = [line for line in words.strip().splitlines() if line]
        raise DroppedError(lines[-1] if lines else "the connection was closed")

    def persistently(self, work: Callable[[], T]) -> T:
        """Do ``work``, which may be done twice, and again after every drop until the board was lost for too long."""
        lost_at: float | None = None
        pause_s = 0.5
        while True:
            try:
                self.connect()
                return work()
            except ProgressedError as error:
                lost_at, pause_s = None, 0.5
                why = str(error)
            except DroppedError as error:
                why = str(error)
            now = time.monotonic()
            lost_at = lost_at if lost_at is not None else now
            if now - lost_at > _PATIENCE_S:
                raise UserError(f"{self.name} cannot be reached: {why}", f"ssh {self.name}; then run the same again")
            self._on_message(f"{self.name}: {why}; trying again")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)


class ProgressedError(DroppedError):
    """Dropped, but after something new had arrived: the patience starts afresh."""


@contextlib.contextmanager
def reach(name: str, config: Path | None, on_message: OnMessage) -> Iterator[Host]:
    """Keep a connection to ``name`` while the block runs. Raises ``UserError`` where the board cannot be reached."""
    with tempfile.TemporaryDirectory(prefix="hrm-edge-") as scratch:  # readable by this user only, and a short path
        host = Host(name, Path(scratch), config, on_message)
        for left in reversed(range(_FIRST_TRIES)):
            try:
                host.connect()
                break
            except DroppedError as error:
                if not left or "connect to host" in str(error):
                    raise UserError(f"{name} cannot be reached: {error}", f"ssh {name}") from error
                on_message(f"{name}: {error}; trying again")
        try:
            yield host
        finally:
            host.disconnect()
