"""``hrm-edge demo``: what a user can get wrong, and a run of the real command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
pytest.importorskip("uvicorn", reason="pip install 'hrm-edge[web]'")
import cv2

from tests.vision.scenes import EASY, walk, write_video

REFUSALS = [
    (["--web", "8000", "--camera", "no.mp4"], "there is no such camera, file or URL", "--camera takes 0"),
    (["--web", "8000", "--camera", "ftp://x"], "cannot read ftp:// URLs", "rtsp"),
    (["--web", "8000", "--camera", "notes.mp4"], "is no video that OpenCV can decode", "ffmpeg"),
    (["--web", "8000", "--camera", "77"], "there is no camera /dev/video77", ""),
    (["--web", "80x"], "--web 80x: no address to listen at", "--web 8000"),
    (["--web", "no.such.host.invalid:8000", "--camera", "browser"], "unknown host", "--web 8000"),
    (["--web", "8000", "--cert", "cert.pem"], "--cert and --key go together", "give both"),
    (["--web", "8000", "--camera", "browser", "--cert", "no.pem", "--key", "no.pem"], "No such file", "openssl req"),
    (["--web", "8000", "--camera", "browser", "--model", "none"], "no model 'none'", "sudoku-nano"),
    (["--web", "8000", "--camera", "browser", "--model", "{mini}"], "solves mini-sudoku, and 9x9 grids", "--model"),
    (["--web", "8000", "--size", "big"], "'big' is no picture size", "1280x720"),
    (["--kiosk", "--camera", "browser"], "--kiosk: there is no display here", "--web 0.0.0.0:8000"),
    (["--camera", "browser"], "", "--web 8000"),
    ([], "", "--web 8000"),
]


@pytest.mark.parametrize(("arguments", "problem", "hint"), REFUSALS, ids=[" ".join(row[0]) for row in REFUSALS])
def test_refusals(run, mini, inside, monkeypatch, arguments, problem, hint):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (inside / "notes.mp4").write_text("no video")
    done = run("demo", *(a.format(mini=mini / "model") for a in arguments))
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert hint in done.err
    assert "Traceback" not in done.err


def test_a_port_in_use(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("demo", "--web", port, "--camera", "browser")
    assert done.code == 2
    assert f"port {port}: Address already in use" in done.err
    assert f"--web {port + 1}" in done.err


def test_a_window_without_a_window_system_points_to_the_page(run, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":77")
    done = run("demo", "--camera", "0")
    assert done.code == 2
    if "GUI:                           NONE" in cv2.getBuildInformation():
        assert "this OpenCV has no windows (opencv-python-headless)" in done.err
    assert "--web 8000" in done.err


def test_the_command_solves_a_video_and_ends_by_ctrl_c(tmp_path):
    video = write_video(tmp_path / "walk.avi", walk(EASY, 24))
    command = [sys.executable, "-m", "hrm_edge", "demo", "--camera", str(video), "--web", "0"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        first = running.stderr.readline()
        url = re.fullmatch(rf"Source: {video}\. Open (http://127\.0\.0\.1:\d+/)\n", first)[1]
        end = time.monotonic() + 60
        while (state := ask(url))["state"] != "solved":
            assert time.monotonic() < end, state
            time.sleep(0.1)
        assert state["board"]["givens"] == EASY
        assert state["model"]["name"] == "sudoku-lattice"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130
        assert "Traceback" not in err
    finally:
        running.kill()
        running.communicate()


def test_the_page_is_there_before_its_camera():
    """As in the kiosk: /dev/video77 is not plugged in yet."""
    command = [sys.executable, "-m", "hrm_edge", "demo", "--wait", "--camera", "77", "--web", "0"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        url = re.search(r"Open (http://127\.0\.0\.1:\d+/)", running.stderr.readline())[1]
        end = time.monotonic() + 60
        while "there is no camera /dev/video77; " not in (state := ask(url)).get("text", ""):
            assert time.monotonic() < end, state
            time.sleep(0.1)
        assert state["state"] == "waiting"
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        assert running.returncode == 130
    finally:
        running.kill()
        running.communicate()


def ask(url: str) -> dict:
    try:
        with urllib.request.urlopen(f"{url}state", timeout=60) as answer:
            return json.load(answer)
    except OSError:
        return {"state": "starting"}
