"""Headless Chromium over its DevTools protocol: enough of a browser for the page's tests, with no driver to install."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import websockets.sync.client as client

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
]  # fmt: skip


def installed() -> str | None:
    """The program, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: client.ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.logged: list[str] = []
        """Errors of the page's scripts and of its requests."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.logged.append(json.dumps(message["params"]["exceptionDetails"]))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.logged.append(json.dumps(message["params"]["entry"]))

    def open(self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=phone,
            deviceScaleFactor=2 if phone else 1,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, timeout_s: float = 30) -> Any:
        """The value of ``script`` as soon as it is true."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.1)
        return value

    def press(self, key: str, text: str = "") -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path, *, whole: bool = False) -> bytes:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(data := base64.b64decode(found["data"]))
        return data


class Browser:
    """A running Chromium; tabs share its cookies."""

    def __init__(self, port: str, path: str, open_sockets: ExitStack) -> None:
        self._address, self._path, self._open = f"ws://127.0.0.1:{port}", path, open_sockets

    def page(self) -> Page:
        with client.connect(self._address + self._path, open_timeout=30) as socket:
            socket.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
            while (message := json.loads(socket.recv(timeout=30))).get("id") != 1:
                pass
        target = message["result"]["targetId"]
        url = f"{self._address}/devtools/page/{target}"
        return Page(self._open.enter_context(client.connect(url, max_size=None, open_timeout=30)))


@contextmanager
def browser(folder: Path, camera: Path | None = None) -> Iterator[Browser]:
    """Chromium with an empty profile in ``folder``; ``camera``: the ``.mjpeg`` that its camera shows."""
    program = installed()
    assert program is not None
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
    if camera is not None:
        flags.append(f"--use-file-for-fake-video-capture={camera}")
    with open(folder / "chromium.log", "w") as log:
        process = subprocess.Popen([program, *flags, "about:blank"], stdout=log, stderr=log, start_new_session=True)
    try:
        port_file = folder / "profile" / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not port_file.exists() or len(port_file.read_text().split()) < 2:
            assert process.poll() is None, (folder / "chromium.log").read_text()
            assert time.monotonic() < end, "Chromium did not start"
            time.sleep(0.1)
        with ExitStack() as open_sockets:
            yield Browser(*port_file.read_text().split(), open_sockets)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
