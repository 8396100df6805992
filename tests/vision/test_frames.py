"""Frames from everything that --camera takes, and through every kind of trouble."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[vision]'")
from hrm_edge.errors import UserError
from hrm_edge.vision import sources
from hrm_edge.vision.frames import Camera, Mailbox, Rate, Source
from hrm_edge.vision.sources import _check_device, _csi_pipeline, _users_of, open_source
from tests.remote.board import free_port
from tests.vision.scenes import EASY, walk, write_video

SIZE = (640, 480)


def picture(value: int = 0) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def taken(mailbox: Mailbox, count: int, timeout_s: float = 60.0) -> list[np.ndarray]:
    end, found = time.monotonic() + timeout_s, []
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} frames came"
        frame = mailbox.take(0.5)
        if frame is not None:
            found.append(frame.image)
    return found


def test_only_the_newest_frame_is_kept_and_the_others_are_counted():
    mailbox = Mailbox()
    for value in range(5):
        mailbox.put(picture(value))
    frame = mailbox.take(0)
    assert (frame.number, int(frame.image[0, 0, 0])) == (5, 4)
    assert (mailbox.received, mailbox.dropped) == (5, 4)
    assert mailbox.take(0.01) is None
    assert mailbox.dropped == 4


def test_a_guest_takes_over_and_gives_back():
    mailbox, guest, other = Mailbox(), object(), object()
    assert mailbox.claim(guest)
    assert not mailbox.claim(other)
    assert not mailbox.put(picture(1))  # the host's camera goes on meanwhile
    assert mailbox.put(picture(2), guest)
    assert int(mailbox.take(0).image[0, 0, 0]) == 2
    mailbox.release(other)
    assert mailbox.guest is guest
    mailbox.release(guest)
    assert not mailbox.put(picture(3), guest)
    assert mailbox.put(picture(4))
    assert int(mailbox.take(0).image[0, 0, 0]) == 4


def test_a_still_is_shown_until_it_is_released():
    mailbox = Mailbox()
    assert mailbox.claim("photo", still=picture(7))
    frames = [mailbox.take(1.0) for _ in range(3)]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [7, 7, 7]
    assert [frame.number for frame in frames] == [1, 2, 3]
    mailbox.release()
    assert mailbox.take(0.01) is None


def test_rate():
    rate = Rate(window_s=2.0)
    assert rate.per_s(0.0) == 0
    for now in np.arange(0, 5, 0.1):
        rate.tick(now)
    assert rate.per_s(5.0) == pytest.approx(10, rel=0.01)
    assert rate.per_s(60.0) == 0


class Flaky:
    """A source that gives ``frames`` frames, dies, refuses to open ``refusals`` times, and comes back."""

    def __init__(self, frames: int, refusals: int = 0) -> None:
        self.frames, self.refusals = frames, refusals
        self.opened = self.closed = self.refused = 0

    def open(self) -> Flaky:
        if self.opened and self.refused < self.opened * self.refusals:
            self.refused += 1
            raise UserError("there is no camera", "plug it in")
        self.opened += 1
        self.left = self.frames
        return self

    def read(self) -> np.ndarray | None:
        assert self.closed < self.opened, "read after it was closed"
        time.sleep(0.001)
        self.left -= 1
        return picture(self.opened % 256) if self.left >= 0 else None

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("refusals", [0, 2])
def test_a_source_that_dies_and_returns_20_times_is_survived(refusals):
    flaky, mailbox = Flaky(3, refusals), Mailbox()
    camera = Camera(Source("flaky", flaky.open), mailbox, backoff_s=(0.002, 0.004))
    before = threading.active_count()
    camera.start()
    seen = set()
    end = time.monotonic() + 30
    while max(seen, default=0) < 21:
        assert time.monotonic() < end
        frame = mailbox.take(0.5)
        seen |= {int(frame.image[0, 0, 0])} if frame is not None else set()
    assert camera.reconnects >= 20
    camera.stop()
    assert flaky.opened == flaky.closed
    assert flaky.refused >= 20 * refusals
    assert threading.active_count() == before


def test_trouble_is_told_while_there_is_no_picture():
    flaky, mailbox = Flaky(1, refusals=10**6), Mailbox()
    camera = Camera(Source("camera 3", flaky.open), mailbox, backoff_s=(0.001, 0.002))
    camera.start()
    end = time.monotonic() + 60
    while "there is no camera; trying again" not in (camera.trouble or ""):
        assert time.monotonic() < end
    camera.stop()


def test_a_source_that_never_opened_is_the_users_business():
    def refuse():
        raise UserError("busy", "close it")

    with pytest.raises(UserError, match="busy"):
        Camera(Source("x", refuse), Mailbox()).start()


def test_a_camera_that_is_plugged_in_later_is_waited_for():
    flaky, mailbox = Flaky(3), Mailbox()
    plugged = threading.Event()

    def open_it() -> Flaky:
        if not plugged.is_set():
            raise UserError("there is no camera /dev/video0", "plug a camera in")
        return flaky.open()

    camera = Camera(Source("camera /dev/video0", open_it), mailbox, backoff_s=(0.002, 0.004))
    camera.start(wait=True)
    assert (camera.trouble or "").startswith("there is no camera /dev/video0; ")
    assert mailbox.take(0.05) is None
    plugged.set()
    end = time.monotonic() + 60
    while mailbox.take(0.5) is None:
        assert time.monotonic() < end
    camera.stop()
    assert flaky.opened == flaky.closed


# ---- real sources ----


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.avi", walk(EASY, 12), fps=60)


def test_a_video_file_plays_at_its_speed_and_starts_again(video):
    feed = open_source(str(video), SIZE).open()
    began = time.perf_counter()
    frames = [feed.read() for _ in range(30)]  # two and a half rounds
    took = time.perf_counter() - began
    feed.close()
    assert all(frame is not None and frame.shape == (480, 640, 3) for frame in frames)
    assert np.array_equal(frames[0], frames[12])
    assert not np.array_equal(frames[0], frames[6])
    assert took >= 28 / 60


def test_a_picture_and_a_folder_of_pictures(tmp_path, monkeypatch):
    for name, value in (("a.png", 10), ("c.png", 30)):
        cv2.imwrite(str(tmp_path / name), np.full((80, 90, 3), value, np.uint8))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not shown")
    feed = open_source(str(tmp_path / "a.png"), SIZE).open()
    assert [int(feed.read()[0, 0, 0]) for _ in range(3)] == [10, 10, 10]
    monkeypatch.setattr(sources, "FOLDER_S", 0.05)
    feed = open_source(str(tmp_path), SIZE).open()
    assert [int(feed.read()[0, 0, 0]) for _ in range(4)] == [10, 30, 10, 30]  # the torn one is passed over


class Stream(BaseHTTPRequestHandler):
    """An IP camera: multipart motion JPEG, which the server breaks off after 8 frames."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        data = cv2.imencode(".jpg", np.full((120, 160, 3), 99, np.uint8))[1].tobytes()
        for _ in range(8):
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n")
            time.sleep(0.005)

    def log_message(self, *_: object) -> None: ...


def test_an_http_stream_that_breaks_off_is_opened_again():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mailbox = Mailbox()
    source = open_source(f"http://user:secret@127.0.0.1:{server.server_port}/video", SIZE)
    assert "secret" not in source.name
    camera = Camera(source, mailbox, backoff_s=(0.01, 0.02))
    camera.start()
    end = time.monotonic() + 60
    while camera.reconnects < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    (frame,) = taken(mailbox, 1)
    assert frame.shape == (120, 160, 3)
    camera.stop()
    server.shutdown()
    server.server_close()


BAD = [
    ("no/such/file", "there is no such camera, file or URL", "--camera takes 0"),
    ("ftp://x/y", "cannot read ftp:// URLs", "rtsp"),
    ("text.mp4", "is no video that OpenCV can decode", "ffmpeg -i"),
    ("codec.avi", "is no video that OpenCV can decode", "ffmpeg -i"),
    ("torn.jpg", "damaged or cut off", "copy"),
    ("notes.png", "is no picture", "JPEG"),
    ("tiny.png", "too small to hold a puzzle", "64 pixels"),
    ("huge.png", "more than 64 megapixels", "smaller"),
    ("empty", "holds no pictures", "JPEG"),
    ("http://127.0.0.1:{port}/video", "gives no video", "check the address"),
]


@pytest.mark.parametrize(("text", "problem", "hint"), BAD, ids=[row[0] for row in BAD])
def test_bad_sources(tmp_path, monkeypatch, text, problem, hint):
    monkeypatch.chdir(tmp_path)
    whole = cv2.imencode(".jpg", picture())[1].tobytes()
    huge = bytearray(cv2.imencode(".png", np.zeros((70, 70, 3), np.uint8))[1].tobytes())
    huge[16:24] = (10_000).to_bytes(4, "big") * 2  # the header says 100 megapixels
    Path("text.mp4").write_text("no video")
    video = write_video(Path("whole.avi"), [picture()] * 3)
    Path("codec.avi").write_bytes(video.read_bytes().replace(b"MJPG", b"QQQQ"))  # whole, but nobody knows that codec
    Path("torn.jpg").write_bytes(whole[: len(whole) // 6])
    Path("notes.png").write_text("no picture")
    Path("tiny.png").write_bytes(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    Path("huge.png").write_bytes(huge)
    Path("empty").mkdir()
    with pytest.raises(UserError) as caught:
        open_source(text.format(port=free_port()), SIZE).open()
    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_v4l2_devices(tmp_path):
    with pytest.raises(UserError, match=r"there is no camera .*video0") as caught:
        open_source("0", SIZE, dev=tmp_path).open()
    assert "--camera browser" in caught.value.hint
    (tmp_path / "video2").touch()
    (tmp_path / "video10").touch()
    with pytest.raises(UserError) as caught:
        open_source("0", SIZE, dev=tmp_path).open()
    assert caught.value.hint == f"found: {tmp_path}/video2, {tmp_path}/video10"
    with pytest.raises(UserError, match="gives no picture"):  # a file, not a camera
        open_source("2", SIZE, dev=tmp_path).open()


def test_a_busy_camera_names_who_has_it(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    hold = f"import time; f = open({str(device)!r}); print('open', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        (who,) = _users_of(device)
        assert who.endswith(f"({holder.pid})")
        with pytest.raises(UserError, match=r"video0 is in use by .*python") as caught:
            open_source("0", SIZE, dev=tmp_path).open()
        assert "close that program" in caught.value.hint
    finally:
        holder.kill()
        holder.communicate()
    assert _users_of(device) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_camera_of_another_group_names_the_group(tmp_path):
    device = tmp_path / "video0"
    device.touch(mode=0o660)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="you may not use") as caught:
            _check_device(device)
    finally:
        os.seteuid(0)
    assert "sudo usermod -aG video $USER" in caught.value.hint


def test_a_csi_camera_goes_through_the_jetsons_own_pipeline():
    pipeline = _csi_pipeline(1, (1280, 720))
    assert pipeline.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=1280, height=720")
    assert pipeline.endswith("appsink drop=true max-buffers=1 sync=false")


def test_rates_of_a_camera_are_counted(video):
    mailbox = Mailbox()
    camera = Camera(open_source(str(video), SIZE), mailbox)
    camera.start()
    numbers = []
    for _ in range(5):
        time.sleep(0.1)  # slower than the video
        numbers.append(mailbox.take(1.0).number)
    camera.stop()
    assert all(a < b for a, b in itertools.pairwise(numbers))
    assert mailbox.dropped > 0
    assert mailbox.fps > 0
