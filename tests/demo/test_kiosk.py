"""The kiosk: a browser of this display, the address as a QR code, and a camera that comes later."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
pytest.importorskip("uvicorn", reason="pip install 'hrm-edge[web]'")
from hrm_edge.demo import kiosk
from hrm_edge.demo.kiosk import Browser, find_browser, qr_code
from hrm_edge.errors import UserError
from tests.vision.test_gstreamer import STAND_IN

URL = "http://192.168.1.20:8000/?token=kU2v-wXy_z01234567890A"
HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
# A stand-in for a browser: asks for its page, notes the words that it was given and the answer, stays until its end.
BROWSER = """\
#!{python} -S
import json, pathlib, sys, time, urllib.request
page = urllib.request.urlopen(sys.argv[-1]).read().decode()
pathlib.Path("{noted}").write_text(json.dumps([sys.argv[1:], page]))
while not pathlib.Path("{noted}.close").exists():
    time.sleep(0.05)
"""


def test_a_phone_reads_the_address_from_the_terminal():
    pytest.importorskip("segno", reason="pip install 'hrm-edge[web]'")
    code = qr_code(URL)
    assert code is not None
    assert set(code) <= {*HALVES, "\n"}
    rows = [np.array([HALVES[letter] for letter in line], np.uint8).T for line in code.splitlines()]
    picture = np.kron(255 * np.concatenate(rows), np.ones((8, 8), np.uint8))
    assert cv2.QRCodeDetector().detectAndDecode(np.pad(picture, 40, constant_values=255))[0] == URL


def test_without_segno_there_is_no_code(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    assert qr_code(URL) is None


@pytest.fixture
def browser(tmp_path, monkeypatch) -> Path:
    """Chromium's stand-in on PATH; the file that it notes in."""
    program, noted = tmp_path / "chromium", tmp_path / "noted.json"
    program.write_text(BROWSER.format(python=sys.executable, noted=noted))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    return noted


def test_no_display_and_no_browser(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no display here"):
        find_browser({})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"none of chromium, .*firefox is installed"):
        find_browser({"WAYLAND_DISPLAY": "wayland-0"})
    (tmp_path / "firefox").write_text("#!/nowhere\n")
    (tmp_path / "firefox").chmod(0o755)
    with pytest.raises(UserError, match="does not start"):
        Browser(find_browser({"DISPLAY": ":0"}), URL, print)


def test_a_snaps_profile_lies_where_a_snap_sees_it(tmp_path, monkeypatch):
    """Ubuntu's /usr/bin/firefox and chromium-browser start snaps, whose /tmp is another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "firefox").touch()
    assert kiosk._profiles("/usr/bin/chromium-browser", tmp_path) is None
    assert kiosk._profiles("/usr/bin/firefox", tmp_path) == tmp_path / "home/snap/firefox/common"
    (tmp_path / "chromium").touch()
    assert kiosk._profiles("/usr/bin/chromium-browser", tmp_path).is_dir()


def test_a_browser_that_does_not_end_is_ended(tmp_path, monkeypatch):
    program = tmp_path / "firefox"
    program.write_text("#!/bin/sh\ntrap '' TERM\nsleep 60 & wait\nsleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(kiosk, "END_S", 0.3)
    ended = []
    shown = Browser(str(program), URL, lambda: ended.append(1))
    time.sleep(0.2)
    shown.close()
    assert shown._process.returncode == -signal.SIGKILL
    assert not ended
    assert not Path(shown._profile.name).exists()


def noted(file: Path) -> list:
    end = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    return json.loads(file.read_text())


def state(url: str) -> dict:
    with urllib.request.urlopen(f"{url}state", timeout=60) as answer:
        return json.load(answer)


def test_the_page_comes_at_once_and_the_camera_later(browser, tmp_path):
    """As the unit starts it: no camera, the page comes in the browser, the camera appears, Ctrl-C ends all."""
    camera = tmp_path / "gst-launch-1.0"
    command = [sys.executable, "-m", "hrm_edge", "demo", "--kiosk", "--wait", "--camera", "csi:1", "--web", "0"]
    command += ["--size", "64x48"]
    absent = STAND_IN.format(python=sys.executable, width=64, height=48, body="print('ERROR: no camera')\nsys.exit(1)")
    camera.write_text(absent)
    camera.chmod(0o755)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        url = re.search(r"Open (http://127\.0\.0\.1:\d+/)", running.stderr.readline())[1]
        words, page = noted(browser)
        assert words[0] == "--kiosk"
        assert words[-1] == url
        assert "<html" in page
        end = time.monotonic() + 60
        while "no CSI camera 1 answers" not in state(url)["text"]:
            assert time.monotonic() < end
            time.sleep(0.1)
        there = camera.with_name("there")
        there.write_text(
            absent.replace("print('ERROR: no camera')\nsys.exit(1)", "while True:\n    frame(9)\n    time.sleep(0.05)")
        )
        there.chmod(0o755)
        there.rename(camera)
        while "answers" in state(url)["text"]:
            assert time.monotonic() < end
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        assert running.returncode == 130
    finally:
        running.kill()
        running.communicate()


def test_closing_the_browser_ends_the_demo(browser):
    command = [sys.executable, "-m", "hrm_edge", "demo", "--kiosk", "--camera", "browser", "--web", "0"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        noted(browser)
        Path(f"{browser}.close").touch()
        running.communicate(timeout=60)
        assert running.returncode == 0
    finally:
        running.kill()
        running.communicate()
