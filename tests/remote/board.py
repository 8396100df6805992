"""A real sshd on the loopback with its own key, port and home, behind a proxy that can cut the line."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.needs import installed, left_out, missing

ROOT = Path(__file__).parents[2]
# hrm-edge as setup.sh would have installed it, without what no board has; it notes every start, for a test to count.
PROGRAM = """#!/bin/sh
echo "$1" >>"$HOME/starts"
PYTHONPATH={path} exec {python} -m hrm_edge "$@"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Line:
    """A TCP proxy to ``port``. ``cut`` closes what is open; ``cut_after`` does so once, after so many bytes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.passed = 0
        self.cuts = 0
        self.cut_after: int | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while piece := one.recv(1 << 14):
                with self._lock:
                    self.passed += len(piece)
                    due = self.cut_after is not None and self.passed >= self.cut_after
                if due:
                    self.cut_after = None
                    self.cut()
                    return
                other.sendall(piece)
        except OSError:
            pass
        finally:
            self._close([one, other])

    def _close(self, sockets: list[socket.socket]) -> None:
        for one in sockets:
            with self._lock:
                self._open.discard(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> bool:
        """Close what is open; whether anything was."""
        with self._lock:
            sockets = list(self._open)
        self.cuts += bool(sockets)
        self._close(sockets)
        return bool(sockets)

    def close(self) -> None:
        self._server.close()
        self.cut()


class Board:
    """The sshd, its home, and the ssh configuration that reaches it through the line as host ``board``."""

    def __init__(self, folder: Path, login: str = "") -> None:
        """``login``: what sshd runs in place of every command, ``$SSH_ORIGINAL_COMMAND``, as a login shell would."""
        sshd = installed("sshd", "openssh-server")
        for tool, package in (("ssh", "openssh-client"), ("rsync", "rsync"), ("flock", "util-linux")):
            installed(tool, package)
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.path = f"{left_out(folder)}:{ROOT}"
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        port = free_port()
        self._sshd = [sshd, "-e", "-f", str(folder / "sshd_config")]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSetEnv HOME={self.home}\n"
            "PermitRootLogin yes\nMaxStartups 100\n" + (f"ForceCommand {login}\n" if login else "")
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        with open(folder / "sshd.log", "w") as log:
            self.process = subprocess.Popen([*self._sshd, "-D"], stderr=log)
        self._wait(port)
        self.line = Line(port)
        self.config = folder / "ssh_config"
        self.configure()
        self.install()

    def _wait(self, port: int) -> None:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        missing(f"sshd does not start here: {(self.folder / 'sshd.log').read_text()}")

    def configure(self, *, key: str = "user", known: str | None = "host", namespace: str | None = None) -> None:
        """Who asks, and which host key this workstation knows (None: none).

        With ``namespace``, of the network, the board has ports of its own: an sshd in there is talked to by pipe.
        """
        inside = f"ip netns exec {namespace} {shlex.join([*self._sshd, '-i'])} 2>>{self.folder}/sshd.log"
        text = f"[127.0.0.1]:{self.line.port} {(self.folder / f'{known}.pub').read_text()}" if known else ""
        (self.folder / "known_hosts").write_text(text)
        self.config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.line.port}\n  IdentitiesOnly yes\n"
            f"  IdentityFile {self.folder}/{key}\n  UserKnownHostsFile {self.folder}/known_hosts\n"
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n"  # what our own option has to overrule
            + (f"  ProxyCommand {inside}\n" if namespace else "")
        )

    def install(self) -> None:
        program = self.home / ".local/share/hrm-edge/venv/bin/hrm-edge"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PROGRAM.format(path=self.path, python=sys.executable))
        program.chmod(0o755)

    def uninstall(self) -> None:
        """Leave a machine that has nothing of ours: setup.sh refuses a folder that it did not make."""
        shutil.rmtree(self.home / ".local")

    def starts(self, verb: str) -> int:
        file = self.home / "starts"
        return file.read_text().split().count(verb) if file.exists() else 0

    def remote(self, *arguments: object, workstation: str = "here") -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, env=self.environ(workstation),
            cwd=self.folder, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def command(self, *arguments: object) -> list[str]:
        return [
            sys.executable,
            "-m",
            "hrm_edge",
            "remote",
            "--ssh-config",
            str(self.config),
            "board",
            *map(str, arguments),
        ]

    def environ(self, workstation: str) -> dict[str, str]:
        state = str(self.folder / f"state-{workstation}")
        return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": state, "PYTHONUNBUFFERED": "1"}

    def jobs(self) -> list[Path]:
        return sorted(self.home.glob(".cache/hrm-edge/remote/*/jobs/*"))

    def close(self) -> None:
        self.line.close()
        self.process.terminate()
        self.process.wait()
