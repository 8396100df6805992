"""Sources of ``--camera``, opened with OpenCV: V4L2 and CSI cameras, URLs, video files, pictures, folders."""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.files import check_input
from hrm_edge.vision.formats import FORMATS, is_picture
from hrm_edge.vision.frames import STILL_INTERVAL_S, Feed, Source
from hrm_edge.vision.gstreamer import FPS, RESTART, Size, open_csi
from hrm_edge.vision.images import Image, image_files, load_image

BROWSER = "browser"
_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")
FOLDER_S = 4.0  # how long each picture of a folder is shown
_NETWORK_TIMEOUT_MS = 5000
_TAKES = "--camera takes 0 (a V4L2 camera), csi:0, an rtsp:// or http:// URL, a video, a picture, a folder, or browser"
_GROUP = "join the group that may use cameras, then log in again: sudo usermod -aG video $USER"


def open_source(text: str, size: Size, dev: Path = Path("/dev")) -> Source:
    """Return the source that ``text`` names, not opened yet.

    ``size``: asked of a camera, which may choose another. Raises ``UserError`` where ``text`` names nothing.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # every failure is told in our own words
    if text.isdecimal() or re.fullmatch(r"/dev/video\d+", text):
        path = dev / f"video{int(text)}" if text.isdecimal() else Path(text)
        return Source(f"camera {path}", lambda: _v4l2(path, size))
    if match := re.fullmatch(r"csi:?(\d+)", text):
        sensor = int(match[1])
        return Source(f"CSI camera {sensor}", lambda: _csi(sensor, size))
    if match := re.match(r"([a-z][a-z0-9+.-]*)://", text, re.IGNORECASE):
        if match[1].lower() not in _SCHEMES:
            raise UserError(f"--camera {text}: cannot read {match[1]}:// URLs", f"known: {', '.join(_SCHEMES)}")
        return Source(_without_password(text), lambda: _url(text))
    path = Path(text)
    if path.is_dir():
        return Source(str(path), lambda: _PictureFeed(image_files(path)))
    if not path.exists():
        raise UserError(f"--camera {text}: there is no such camera, file or URL", _TAKES)
    if path.suffix.lower() in FORMATS or is_picture(path):
        return Source(str(path), lambda: _PictureFeed([path]))
    check_input(path)
    return Source(str(path), lambda: _video_file(path))


def cameras(dev: Path = Path("/dev")) -> list[str]:
    """Return the V4L2 devices of this machine, by number."""
    numbered = [(int(path.name[5:]), path) for path in dev.glob("video*") if path.name[5:].isdecimal()]
    return [str(path) for _, path in sorted(numbered)]


class _CaptureFeed:
    """A ``cv2.VideoCapture`` that is open."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def read(self) -> Image | None:
        try:
            ok, image = self._capture.read()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if ok and image is not None and image.size else None

    def close(self) -> None:
        self._capture.release()


class _VideoFileFeed(_CaptureFeed):
    """A video file at its own speed, from the start again when it ends."""

    def __init__(self, capture: Any, path: Path) -> None:
        super().__init__(capture)
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        self._interval_s = 1 / fps if 1 <= fps <= 240 else 1 / 30
        self._path, self._due_s = path, time.perf_counter()

    def read(self) -> Image | None:
        image = super().read()
        if image is None:  # the end; not every container can seek, so it is opened anew
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
            image = super().read()
        self._due_s = max(self._due_s + self._interval_s, time.perf_counter() - 1)
        time.sleep(max(0.0, self._due_s - time.perf_counter()))
        return image


class _PictureFeed:
    """Pictures in turn, each for ``FOLDER_S``, over and over; one that cannot be read is passed over.

    Raises ``UserError`` where none can be read.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths, self._at = paths, -1
        self._pause_s = 0.0  # the first picture comes at once
        self._turn()

    def _turn(self) -> None:
        """Go on to the next picture that can be read."""
        for tried in range(1, len(self._paths) + 1):
            self._at = (self._at + 1) % len(self._paths)
            try:
                self._image = load_image(self._paths[self._at])
            except UserError:
                if tried == len(self._paths):
                    raise
            else:
                self._until_s = time.perf_counter() + FOLDER_S
                return

    def read(self) -> Image | None:
        time.sleep(self._pause_s)
        self._pause_s = STILL_INTERVAL_S
        if len(self._paths) > 1 and time.perf_counter() > self._until_s:
            try:
                self._turn()
            except UserError:
                return None
        return self._image

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _csi_pipeline(sensor: int, size: Size) -> str:
    """Return the GStreamer pipeline of a Jetson's CSI sensor; its ISP converts, and only the newest frame is kept."""
    width, height = size
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM), width={width}, height={height}, framerate={FPS}/1 ! "
        "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def _has_gstreamer() -> bool:
    """Return whether this OpenCV was built with GStreamer, as JetPack's is and pip's is not."""
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _csi(sensor: int, size: Size) -> Feed:
    if not _has_gstreamer():
        return open_csi(sensor, size)
    capture = cv2.VideoCapture(_csi_pipeline(sensor, size), cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise UserError(f"no CSI camera {sensor} answers", RESTART)
    return _CaptureFeed(capture)


def _v4l2(path: Path, size: Size) -> _CaptureFeed:
    _check_device(path)
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if capture.isOpened():
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))  # raw video over USB 2 is slow at this size
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return _CaptureFeed(capture)
    holders = _users_of(path)
    if holders:
        raise _busy(path, holders)
    raise UserError(
        f"{path} gives no picture: it may be in use by another user's program, or be no camera",
        f"close other camera programs, or choose another: {', '.join(cameras(path.parent)) or 'none found'}",
    )


def _check_device(path: Path) -> None:
    """Raise ``UserError`` where a video device is not there, not ours to open, or busy."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError as error:
        others = cameras(path.parent)
        hint = f"found: {', '.join(others)}" if others else "plug a camera in, or use another source: --camera browser"
        raise UserError(f"there is no camera {path}", hint) from error
    except PermissionError as error:
        raise UserError(f"you may not use {path}", _GROUP) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(path, _users_of(path)) from error
        raise UserError(f"{path}: {os.strerror(error.errno or 0)}", "unplug the camera and plug it in again") from error


def _busy(path: Path, holders: list[str]) -> UserError:
    who = f" by {', '.join(holders)}" if holders else ""
    return UserError(f"{path} is in use{who}", "close that program, or choose another camera")


def _users_of(path: Path) -> list[str]:
    """Return other processes that hold ``path`` open, as far as we may see: ``name (pid)``."""
    holders = []
    target = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(handle) == target for handle in (process / "fd").iterdir()):
                holders.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:  # not ours to see, or ended meanwhile
            continue
    return holders


def _url(url: str) -> _CaptureFeed:
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _NETWORK_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        _NETWORK_TIMEOUT_MS,
    ]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise UserError(
            f"{_without_password(url)} gives no video", "check the address, the network and the password in it"
        )
    return _CaptureFeed(capture)


def _without_password(url: str) -> str:
    return re.sub(r"://[^/@]*@", "://", url)


def _video_file(path: Path) -> _VideoFileFeed:
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read", "change its permissions")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened() or not capture.read()[0]:
        capture.release()
        raise UserError(
            f"{path} is no video that OpenCV can decode (nor a picture)",
            f"convert it: ffmpeg -i {path} -c:v libx264 -pix_fmt yuv420p puzzle.mp4",
        )
    capture.release()
    return _VideoFileFeed(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), path)
