"""A Jetson's CSI camera through ``gst-launch-1.0``: raw frames over a pipe, where OpenCV has no GStreamer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import threading
import time
from collections import deque

import numpy as np

from hrm_edge.child import end_process
from hrm_edge.errors import UserError
from hrm_edge.vision.images import Image

_PROGRAM = "gst-launch-1.0"
_INSTALL = "sudo apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"
FIRST_FRAME_S = 15.0  # the sensor's daemon starts, and the exposure is found
FRAME_S = 5.0
END_S = 2.0
FPS = 30  # of a CSI sensor
_CHANNELS = 4  # BGRx, as the hardware converts to
_PIPE_BYTES = 1 << 20
RESTART = "check the ribbon cable, then: sudo systemctl restart nvargus-daemon"

Size = tuple[int, int]  # width, height in pixels


def _command(sensor: int, size: Size, descriptor: int) -> list[str]:
    """Return the command that writes frames to an open file. A frame that waits is replaced by the next one.

    Not to stdout: NVIDIA's source prints messages there.
    """
    width, height = size
    return [
        _PROGRAM,
        "-q",
        "nvarguscamerasrc",
        f"sensor-id={sensor}",
        "!",
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={FPS}/1",
        "!",
        "nvvidconv",
        "!",
        f"video/x-raw,format=BGRx,width={width},height={height}",
        "!",
        "queue",
        "max-size-buffers=1",
        "leaky=downstream",
        "!",
        "fdsink",
        f"fd={descriptor}",
        "sync=false",
    ]


class ProcessFeed:
    """Frames of ``gst-launch-1.0``, which :func:`open_csi` starts."""

    def __init__(self, sensor: int, size: Size) -> None:
        self._size, self._first = size, b""
        self._frames, writing = os.pipe()
        with contextlib.suppress(OSError):  # fewer wake-ups per frame, where the system allows it
            fcntl.fcntl(self._frames, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._process = subprocess.Popen(
                _command(sensor, size, writing),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
        except OSError as error:
            os.close(self._frames)
            raise UserError(f"{_PROGRAM} does not start: {error.strerror}", _INSTALL) from error
        finally:
            os.close(writing)
        self._said = deque[str](maxlen=20)
        # A pipe that nobody empties would stop the program one day.
        self._listener = threading.Thread(target=self._listen, name="gst-launch", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.append(line.decode(errors="replace").strip())

    def wait_for_first(self) -> bool:
        """Return whether a frame came in time; the next :meth:`read` gives it."""
        self._first = self._frame(FIRST_FRAME_S)
        return bool(self._first)

    def read(self) -> Image | None:
        frame, self._first = self._first or self._frame(FRAME_S), b""
        if not frame:
            return None
        width, height = self._size
        pixels = np.frombuffer(frame, np.uint8).reshape(height, width, _CHANNELS)
        return np.ascontiguousarray(pixels[:, :, :3])

    def _frame(self, limit_s: float) -> bytes:
        """Read one whole frame; nothing where the program ends or is silent for too long."""
        left, pieces = self._size[0] * self._size[1] * _CHANNELS, []
        due = time.monotonic() + limit_s
        while left:
            ready, _, _ = select.select([self._frames], [], [], max(0.0, due - time.monotonic()))
            piece = os.read(self._frames, left) if ready else b""
            if not piece:
                return b""
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.end()

    def end(self) -> str:
        """End the program, by force where it does not end itself; return the line that says what was wrong."""
        if self._frames >= 0:
            os.close(self._frames)
            self._frames = -1
        end_process(self._process, END_S)
        self._listener.join(END_S)
        lines = [line for line in self._said if line]
        return next((line for line in lines if "no element" in line or "ERROR" in line), lines[-1] if lines else "")


def open_csi(sensor: int, size: Size) -> ProcessFeed:
    """Start the program and wait for its first frame.

    Raises ``UserError`` where it is not installed, ends with an error, or gives no frame.
    """
    if shutil.which(_PROGRAM) is None:
        problem = f"a CSI camera needs an OpenCV with GStreamer or {_PROGRAM}, and neither is here"
        raise UserError(problem, _INSTALL)
    feed = ProcessFeed(sensor, size)
    try:
        if feed.wait_for_first():
            return feed
    except BaseException:
        feed.end()
        raise
    said = feed.end()
    if "no element" in said:
        raise UserError(f"GStreamer has no part of the CSI camera here: {said}", _INSTALL)
    why = said or f"no frame within {FIRST_FRAME_S:.0f} s"
    raise UserError(f"no CSI camera {sensor} answers: {why}", RESTART)
