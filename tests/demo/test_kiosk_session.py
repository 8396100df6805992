"""The kiosk's unit in a session of a desktop's user: systemd's manager, Chromium, and a camera that comes later."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
import websockets.sync.client as client

from tests.demo.chromium import FLAGS, Page, installed
from tests.remote.board import free_port
from tests.vision.scenes import EASY, walk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(installed() is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemd is not installed: apt-get install systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the session processes and mounts of its own"),
]
UNIT = Path(__file__).parents[2] / "jetson/hrm-edge-kiosk.service"
MANAGER = "/lib/systemd/systemd"
# systemd runs for a user only where the machine was started by it, which it sees by a folder. So the session gets a
# /run of its own, and processes and control groups that end with it. Not by exec: a first process serves no user.
SESSION = f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && {MANAGER} --user; exit $?"
ALONE = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "--mount-proc", "--kill-child"]
# What a desktop starts when its user has logged in, and stops when they log out.
DESKTOP = "[Unit]\nBindsTo=graphical-session.target\nBefore=graphical-session.target\n"
STATE = "document.getElementById('pill').dataset.state"
SAYS = "document.getElementById('pill').textContent"
LIMIT_S = 180


def until(found: Callable[[], Any]) -> Any:
    """The value of ``found`` as soon as it is true."""
    end = time.monotonic() + LIMIT_S
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return value


class Session:
    """A user's session in ``folder``, whose browser is Chromium without a display."""

    def __init__(self, folder: Path, camera_port: int, port: int) -> None:
        self.folder, self.camera_port, self.url = folder, camera_port, f"http://127.0.0.1:{port}/"
        self.first = 0
        """The session's first process."""
        self._words = folder / "words"
        units = folder / "config/systemd/user"
        (units / "hrm-edge-kiosk.service.d").mkdir(parents=True)
        (folder / "run").mkdir(mode=0o700)
        text = UNIT.read_text().replace("/opt/hrm-edge/venv/bin/hrm-edge", f"{sys.executable} -m hrm_edge")
        (units / UNIT.name).write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
        # as 'systemctl --user edit' writes it; the desktop itself brings DISPLAY
        camera = f"http://127.0.0.1:{camera_port}/video"
        (units / f"{UNIT.name}.d/override.conf").write_text(f"[Service]\nEnvironment=HRM_EDGE_CAMERA={camera}\n")
        (units / "desktop.target").write_text(DESKTOP)
        program = folder / "chromium"
        flags = " ".join(flag for flag in FLAGS if "fake" not in flag)
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{self._words}\nexec {installed()} {flags} "$@"\n')
        program.chmod(0o755)
        self.environ = {
            "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), "XDG_CONFIG_HOME": str(folder / "config"),
            "PATH": f"{folder}:{os.environ['PATH']}", "DISPLAY": ":0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def systemctl(self, *words: str, check: bool = True) -> str:
        inside = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--cgroup", "systemctl", "--user", *words]
        done = subprocess.run(inside, env=self.environ, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def property(self, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, UNIT.name)

    def words(self) -> list[str]:
        """What the browser was started with."""
        return self._words.read_text().splitlines() if self._words.exists() else []

    def profile(self) -> Path:
        (profile,) = [word.partition("=")[2] for word in self.words() if word.startswith("--user-data-dir=")]
        return Path(profile)

    @contextmanager
    def page(self) -> Iterator[Page]:
        """The page that the browser shows."""

        def tab() -> str | None:
            port_file = self.profile() / "DevToolsActivePort" if self.words() else None
            if port_file is None or not port_file.exists() or not port_file.read_text():
                return None
            listed = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json/list"
            with urllib.request.urlopen(listed, timeout=60) as answer:
                tabs = [tab for tab in json.load(answer) if tab["url"] == self.url]
            return tabs[0]["webSocketDebuggerUrl"] if tabs else None

        with client.connect(until(tab), max_size=None, open_timeout=60) as socket:
            page = Page(socket)
            page.until("document.getElementById('pill') !== null", LIMIT_S)  # it is blank at first
            yield page


@pytest.fixture
def session(tmp_path) -> Iterator[Session]:
    """The manager runs; the kiosk's unit is there and not yet enabled."""
    made = Session(tmp_path, free_port(), free_port())
    with open(tmp_path / "manager.log", "w") as log:
        manager = subprocess.Popen([*ALONE, "sh", "-c", SESSION], env=made.environ, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        children = Path(f"/proc/{manager.pid}/task/{manager.pid}/children")
        while manager.poll() is None and not children.read_text():
            time.sleep(0.1)
        made.first = int(children.read_text())
        while not made.systemctl("list-units", "--no-legend", check=False):
            if manager.poll() is not None or time.monotonic() > end:
                pytest.skip(f"no manager of a user starts here: {(tmp_path / 'manager.log').read_text()[-300:]}")
            time.sleep(0.1)
        made.systemctl("import-environment", "PATH", "DISPLAY", "OMP_NUM_THREADS")  # as desktops do
        yield made
        made.systemctl("exit")  # it takes its control groups with it
        manager.wait(60)
    finally:
        manager.kill()
        manager.wait()


class Network(http.server.BaseHTTPRequestHandler):
    """A network camera: pictures, one after another, for as long as somebody looks."""

    @staticmethod
    @functools.cache
    def frames() -> list[bytes]:
        return [cv2.imencode(".jpg", frame)[1].tobytes() for frame in walk(EASY, 10)]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for frame in itertools.cycle(self.frames()):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(frame))
                self.wfile.write(frame + b"\r\n")
                time.sleep(0.1)
        except OSError:  # the one who looked is gone
            return

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@contextmanager
def network_camera(port: int) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Network) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def browser_of(profile: Path) -> int:
    """The process of Chromium's that started the others."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text()
        except OSError:  # ended meanwhile
            continue
        if "--kiosk" in words and f"--user-data-dir={profile}" in words and "--type=" not in words:
            return int(folder.name)
    raise AssertionError("no browser is running")


def test_the_kiosk_from_login_to_logout(session):
    """No camera at login; the page comes, then the camera; the browser crashes and comes back; all ends at logout."""
    session.systemctl("enable", UNIT.name)
    assert session.property("ActiveState") == "inactive"
    session.systemctl("start", "desktop.target")
    with ExitStack() as later:
        with session.page() as page:
            assert (session.words()[0], session.words()[-1]) == ("--kiosk", session.url)
            page.until(f"{SAYS}.includes('gives no video')", LIMIT_S)
            assert session.property("ActiveState") == "active"
            later.enter_context(network_camera(session.camera_port))
            page.until(f"{STATE} === 'solved'", LIMIT_S)
            page.screenshot(session.folder / "page.png")
            assert not page.logged
        before = session.profile()
        (session.folder / "words").unlink()
        os.kill(browser_of(before), signal.SIGKILL)
        with session.page() as page:
            page.until(f"{STATE} === 'solved'", LIMIT_S)
        assert session.property("NRestarts") == "1"
        assert not before.exists()
        after = session.profile()
        session.systemctl("stop", "graphical-session.target")
        until(lambda: session.property("ActiveState") == "inactive")
        assert session.property("Result") == "success"
        assert not after.exists()
        assert session.property("ControlGroup") == ""  # no process is left
