"""A CSI camera through ``gst-launch-1.0``: a stand-in on PATH that writes frames, dies, hangs, or is missing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="pip install 'hrm-edge[vision]'")
from hrm_edge.errors import UserError
from hrm_edge.vision import gstreamer, sources
from hrm_edge.vision.frames import Camera, Mailbox
from hrm_edge.vision.gstreamer import _command
from hrm_edge.vision.sources import open_source

SIZE = (64, 48)
STAND_IN = """\
#!{python} -S
import os, signal, sys, time
words = sys.argv[1:]
fd = int(next(word for word in words if word.startswith("fd="))[3:])
assert words[1] == "nvarguscamerasrc" and words[2] == "sensor-id=1", words
print("GST_ARGUS: Creating output stream", flush=True)  # NVIDIA's source writes to stdout
def frame(value):
    data = bytes([value, value + 1, value + 2, 255]) * ({width} * {height})
    while data:  # a pipe takes a part
        data = data[os.write(fd, data):]
{body}
"""
BODIES = {
    "frames": "value = 0\nwhile True:\n    frame(value % 200)\n    value += 1\n    time.sleep(0.01)",
    "two frames": "frame(1)\nframe(2)",
    "half a frame": "os.write(fd, bytes(100))\nsys.exit(1)",
    "dies": "print('ERROR: Pipeline could not be set to PAUSED: No cameras available', file=sys.stderr)\nsys.exit(1)",
    "no element": "print('WARNING: erroneous pipeline: no element \"nvarguscamerasrc\"', file=sys.stderr)\nsys.exit(1)",
    "hangs": "time.sleep(60)",
    "hangs later": "frame(7)\ntime.sleep(60)",
    "hangs and does not end": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nframe(7)\ntime.sleep(60)",
    "talks": "frame(1)\nfor _ in range(5000): print('WARNING: ' + 60 * 'x', file=sys.stderr)\nframe(2)\ntime.sleep(60)",
}


@pytest.fixture
def gst(tmp_path, monkeypatch):
    """Put a stand-in with one of the bodies on PATH; OpenCV has no GStreamer."""
    monkeypatch.setattr(sources, "_has_gstreamer", lambda: False)
    monkeypatch.setattr(gstreamer, "FIRST_FRAME_S", 3.0)
    monkeypatch.setattr(gstreamer, "FRAME_S", 0.5)
    monkeypatch.setattr(gstreamer, "END_S", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(what: str) -> Path:
        program = tmp_path / "gst-launch-1.0"
        width, height = SIZE
        program.write_text(STAND_IN.format(python=sys.executable, width=width, height=height, body=BODIES[what]))
        program.chmod(0o755)
        return program

    return make


def opened(size: tuple[int, int] = SIZE) -> gstreamer.ProcessFeed:
    feed = open_source("csi:1", size).open()
    assert isinstance(feed, gstreamer.ProcessFeed)
    return feed


def test_frames_come_as_bgr_pictures(gst):
    gst("frames")
    feed = opened()
    first, second = feed.read(), feed.read()
    feed.close()
    assert first.shape == (48, 64, 3)
    assert first[0, 0].tolist() == [0, 1, 2]
    assert second[-1, -1].tolist() == [1, 2, 3]
    assert feed._process.returncode is not None


def test_a_frame_larger_than_the_pipe(gst, monkeypatch):
    monkeypatch.setitem(globals(), "SIZE", (1280, 720))
    gst("frames")
    feed = opened((1280, 720))
    assert feed.read().shape == (720, 1280, 3)
    assert (np.diff(feed.read().reshape(-1, 3).astype(int), axis=0) == 0).all()
    feed.close()


@pytest.mark.parametrize(
    ("what", "problem", "hint"),
    [
        ("dies", "no CSI camera 1 answers: ERROR: Pipeline could not be set to PAUSED: No cameras", "nvargus-daemon"),
        ("half a frame", "no CSI camera 1 answers: GST_ARGUS", "nvargus-daemon"),
        ("no element", "GStreamer has no part of the CSI camera here", "apt-get install gstreamer1.0-tools"),
        ("hangs", "no CSI camera 1 answers", "ribbon cable"),
    ],
)
def test_a_camera_that_gives_nothing(what, problem, hint, gst, monkeypatch):
    if what == "hangs":
        monkeypatch.setattr(gstreamer, "FIRST_FRAME_S", 0.5)
    gst(what)
    with pytest.raises(UserError) as error:
        opened()
    assert problem in error.value.problem
    assert hint in error.value.hint


@pytest.mark.parametrize("what", ["two frames", "hangs later", "hangs and does not end"])
def test_a_camera_that_is_lost_is_none_and_its_program_ended(what, gst):
    gst(what)
    feed = opened()
    frames = 0
    while feed.read() is not None:
        frames += 1
    assert frames == (2 if what == "two frames" else 1)
    feed.close()
    assert feed._process.returncode is not None


def test_much_talk_does_not_stop_the_frames(gst):
    gst("talks")
    feed = opened()
    assert [feed.read() is not None for _ in range(2)] == [True, True]
    feed.close()


def test_without_the_program_the_command_that_installs_it_is_told(gst, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs an OpenCV with GStreamer or gst-launch-1.0, and neither") as error:
        opened()
    assert error.value.hint == "sudo apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"
    (tmp_path / "gst-launch-1.0").write_text("no program")
    (tmp_path / "gst-launch-1.0").chmod(0o755)
    with pytest.raises(UserError, match=r"gst-launch-1.0 does not start"):
        opened()


def test_a_camera_that_comes_back_is_opened_again(gst):
    gst("two frames")
    mailbox = Mailbox()
    camera = Camera(open_source("csi:1", SIZE), mailbox, backoff_s=(0.05, 0.1))
    camera.start()
    end = time.monotonic() + 30
    while camera.reconnects < 2 and time.monotonic() < end:
        mailbox.take(0.2)
    camera.stop()
    assert camera.reconnects >= 2


def test_the_newest_frame_replaces_one_that_waits():
    words = " ".join(_command(0, (1280, 720), 5))
    assert "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1" in words
    assert words.endswith("queue max-size-buffers=1 leaky=downstream ! fdsink fd=5 sync=false")
