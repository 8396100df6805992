"""The newest frame of a source, whatever the source does: a capture thread, a mailbox of one slot, reconnecting."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hrm_edge.errors import UserError
from hrm_edge.vision.images import Image

_BACKOFF_S = (0.5, 8.0)  # the first pause before opening a lost source again, doubled up to the second
_STOP_S = 2.0
STILL_INTERVAL_S = 0.1  # a still picture is shown again this often, so that what follows is the same as for a video


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and when it was received (``time.perf_counter`` seconds)."""

    image: Image
    number: int
    time_s: float


class Feed(Protocol):
    """An open source."""

    def read(self) -> Image | None:
        """Return the next frame; blocks until there is one. None: the source is gone."""

    def close(self) -> None:
        """Give the device back."""


@dataclass(frozen=True)
class Source:
    """Something that can be opened, and opened again after it was lost."""

    name: str
    open: Callable[[], Feed]
    """Raises ``UserError`` where it cannot be opened."""


class Rate:
    """Events per second over the last few seconds."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s, self._times = window_s, deque[float](maxlen=600)

    def tick(self, now: float | None = None) -> None:
        self._times.append(time.perf_counter() if now is None else now)

    def per_s(self, now: float | None = None) -> float:
        """Return the rate per second; 0 where fewer than two events are in the window."""
        since = (time.perf_counter() if now is None else now) - self._window_s
        while self._times and self._times[0] < since:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)


class Mailbox:
    """One slot: a new frame replaces one that was not taken, which counts as dropped.

    The host (the camera that the program was started with) fills it unless a guest (a browser's camera or a photo
    sent by a viewer) has claimed it; there is one guest at a time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._still: Image | None = None
        self._guest: object | None = None
        self._rate = Rate()
        self.received = 0
        self.dropped = 0

    def put(self, image: Image, guest: object | None = None) -> bool:
        """Offer a frame; False where somebody else holds the mailbox."""
        with self._changed:
            if guest is not self._guest:
                return False
            self._store(image)
            return True

    def _store(self, image: Image) -> None:
        self.dropped += self._frame is not None
        self.received += 1
        self._frame = Frame(image, self.received, time.perf_counter())
        self._rate.tick(self._frame.time_s)
        self._changed.notify_all()

    def take(self, timeout_s: float) -> Frame | None:
        """Return the newest frame not taken yet, waiting for one; None after ``timeout_s``."""
        with self._changed:
            wait_s = timeout_s if self._still is None else min(timeout_s, STILL_INTERVAL_S)
            if not self._changed.wait_for(lambda: self._frame is not None, wait_s) and self._still is not None:
                self._store(self._still)
            frame, self._frame = self._frame, None
            return frame

    def claim(self, guest: object, still: Image | None = None) -> bool:
        """Let ``guest`` fill the mailbox instead of the host; ``still``: with one picture until it is released.

        False where another guest has it.
        """
        with self._changed:
            if self._guest not in (None, guest):
                return False
            self._guest, self._still, self._frame = guest, still, None
            if still is not None:
                self._store(still)
            return True

    def release(self, guest: object | None = None) -> None:
        """Give the mailbox back to the host; ``guest``: only where that one has it."""
        with self._changed:
            if guest is None or guest is self._guest:
                self._guest = self._still = self._frame = None

    @property
    def guest(self) -> object | None:
        """Source that fills it instead of the host."""
        return self._guest

    @property
    def fps(self) -> float:
        """Frames received per second."""
        with self._changed:
            return self._rate.per_s()


class Camera:
    """Reads a source in a thread of its own into a mailbox, and opens it again whenever it is lost."""

    def __init__(self, source: Source, mailbox: Mailbox, *, backoff_s: tuple[float, float] = _BACKOFF_S) -> None:
        self.source, self.mailbox, self._backoff_s = source, mailbox, backoff_s
        self.reconnects = 0
        self.trouble: str | None = None
        """Reason, for people, why there is no picture; None while frames come."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, wait: bool = False) -> None:
        """Open the source, in the caller's thread so that ``UserError`` reaches the user, and begin to read it.

        With ``wait`` a source that is not there yet is no error: it is tried again, as one that is lost.
        """
        feed: Feed | None = None
        try:
            feed = self.source.open()
        except UserError as error:
            if not wait:
                raise
            self.trouble = f"{error.problem}; waiting for it"
        self._thread = threading.Thread(target=self._run, args=(feed,), name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that hangs in a driver is left behind after ``_STOP_S``."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _run(self, feed: Feed | None) -> None:
        pause_s = self._backoff_s[0]
        while not self._stop.is_set():
            if feed is not None:
                if self._drain(feed):
                    pause_s = self._backoff_s[0]
                feed = None
            if self._stop.wait(pause_s):
                return
            try:
                feed = self.source.open()
                self.reconnects += 1
            except UserError as error:
                pause_s = min(2 * pause_s, self._backoff_s[1])
                self.trouble = f"{error.problem}; trying again in {pause_s:.0f} s"

    def _drain(self, feed: Feed) -> bool:
        """Read until the source is gone; whether there was any frame."""
        any_frame = False
        try:
            while not self._stop.is_set():
                image = feed.read()
                if image is None:
                    self.trouble = f"{self.source.name} is gone; trying to open it again"
                    return any_frame
                any_frame, self.trouble = True, None
                self.mailbox.put(image)
            return any_frame
        finally:
            feed.close()
