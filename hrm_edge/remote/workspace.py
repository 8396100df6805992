"""This workstation's folder on a board, and how models and data get there: by content, and only what changed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_text
from hrm_edge.manifest import MANIFEST, read_manifest
from hrm_edge.remote.host import Done, Host

_REMOTE_ROOT = ".cache/hrm-edge/remote"  # under the board's home
_MAX_BASES = 20  # folders that rsync compares with at most


def workstation(state: Path | None = None) -> str:
    """Return a name for this workstation and user, made once: two of them never share a folder on a board."""
    base = state or Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    file = base / "hrm-edge" / "workstation"
    if not file.is_file():
        host = re.sub(r"[^a-zA-Z0-9]+", "-", socket.gethostname()).strip("-")[:30] or "host"
        write_text(file, f"{host}-{secrets.token_hex(4)}\n")
    name = file.read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"[a-zA-Z0-9-]{1,60}", name):
        raise UserError(f"{file} holds no name of a workstation", f"rm {file}")
    return name


@dataclass(frozen=True)
class Sent:
    """Contents of the workspace on the board now."""

    path: str
    """In shell form: ``"$base"/models/0123…``; scripts of this package define ``base``."""
    bytes_sent: int
    """Content that went over the line; 0 where the board had it all."""


class Workspace:
    """``~/.cache/hrm-edge/remote/WORKSTATION`` on one board: ``models/``, ``data/``, ``engines/``, ``jobs/``."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        home = host.persistently(lambda: host.run('printf %s "$HOME"')).out
        if not re.fullmatch(r"/[^\n]*", home):
            raise UserError(f"{host.name} does not say where its home is: {home!r}", f"ssh {host.name} pwd")
        self.folder = f"{home}/{_REMOTE_ROOT}/{name}"
        self.base = f"base={shlex.quote(self.folder)}"
        self.preamble = f'set -u; {self.base}; mkdir -p "$base/jobs" && cd "$base" || exit 1; '

    def run(self, script: str, stdin: str | None = None) -> Done:
        """Run a short script in the workspace; it may be run twice where the connection drops."""
        return self.host.persistently(lambda: self.host.run(f"{self.preamble} {script}", stdin))

    def send_model(self, folder: Path) -> Sent:
        """Send an artifact: the files that its manifest lists, verified here. An engine of this machine stays here."""
        manifest = read_manifest(folder)
        digest = sha256(folder / MANIFEST)[:16]
        return self._send(folder, [*manifest.files, MANIFEST], "models", digest, rename=None)

    def send_data(self, path: Path) -> Sent:
        """Send a file or a folder of puzzles."""
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            raise UserError(f"{path} holds no files", "check the path")
        parent = path.parent if path.is_file() else path
        names = [str(file.relative_to(parent)) for file in files]
        digest = hashlib.sha256("".join(n + sha256(parent / n) for n in names).encode()).hexdigest()[:16]
        return self._send(parent, names, "data", digest, rename=path.name if path.is_file() else None)

    def _send(self, parent: Path, names: list[str], kind: str, digest: str, rename: str | None) -> Sent:
        target = f"{kind}/{digest}"
        path = f'"$base"/{target}' + (f"/{shlex.quote(rename)}" if rename else "")
        look = f"mkdir -p {kind}; [ -d {target} ] && echo there; ls -t {kind} | head -n {_MAX_BASES}"
        listed = self.run(look).out.split()
        if listed[:1] == ["there"]:
            return Sent(path, 0)
        # Files that are the same in another folder are copied there; what a cut-off copy left is gone on with.
        bases = [f"--copy-dest=../{name}" for name in listed if name != f"{digest}.part"]
        options = ["--checksum", "--partial", "--perms", "--copy-links", "--from0", "--files-from=-", *bases]
        there = self.host.at(f"{self.folder}/{target}.part/")
        listing = b"\0".join(map(os.fsencode, names))
        stats = self.host.persistently(lambda: self.host.rsync(options, parent, there, listing))
        finish = f"mv -T {target}.part {target} 2>/dev/null || [ -d {target} ]"
        if self.run(finish).code:
            raise UserError(f"{self.host.name}: {target} could not be completed", f"ssh {self.host.name} df -h")
        literal = re.search(r"Literal data: ([\d,]+)", stats)
        return Sent(path, int(literal[1].replace(",", "")) if literal else 0)
