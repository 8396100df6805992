"""View of the demo at one moment: the picture with its drawing, the state in words, and the figures."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from hrm_edge.demo.thinker import Thought
from hrm_edge.vision.images import Image

Kind = Literal["waiting", "searching", "reading", "solving", "solved", "unsolvable"]
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class State:
    """State of the demo, and the sentence that describes it."""

    kind: Kind
    text: str


@dataclass(frozen=True, eq=False)
class View:
    """One moment. Immutable, so that any number of viewers may look at it while the next one is made."""

    number: int
    state: State
    image: Image | None
    """The picture with everything drawn [h, w, 3] BGR; None before the first frame."""
    board: dict[str, Any] | None
    """The reading shown beside the picture: ``givens`` as text, ``confidence`` of each cell in percent, the cells that
    are ``doubtful``, and ``notes`` on them in words."""
    thought: Thought | None
    """About that reading."""
    figures: dict[str, Any]
    """Counters and timings, ready for JSON."""

    @functools.cached_property
    def jpeg(self) -> bytes | None:
        """The picture as JPEG, encoded once however many viewers there are."""
        if self.image is None:
            return None
        _, data = cv2.imencode(".jpg", self.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return bytes(data.tobytes())


class Stage:
    """Milliseconds that one part of the loop takes: the last 120 times."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=120)

    def add(self, seconds: float) -> None:
        self._ms.append(1e3 * seconds)

    def summary(self) -> dict[str, float] | None:
        """Return ``p50`` and ``p95`` in ms; None before the first time."""
        if not self._ms:
            return None
        p50, p95 = np.percentile(list(self._ms), [50, 95])
        return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}
