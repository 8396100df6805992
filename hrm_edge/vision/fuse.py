"""Readings of one grid over frames become one reading: cells vote with their log-probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hrm_edge.vision.read import Reading

_MEMORY = 0.85  # of what was seen so far, a frame later
_STABLE_FRAMES = 2  # agreeing in every cell
_OTHER_PUZZLE = 8  # cells with another digit, both sure: the camera looks at something else
_SURE = 0.9


class Fusion:
    """Adds up the readings of the frames that show the same puzzle."""

    def __init__(self) -> None:
        self.frames = 0
        """Readings added since the puzzle was first seen."""
        self._stable = 0
        self._scores = np.zeros((81, 10), np.float32)
        self._fused: Reading | None = None

    def add(self, reading: Reading) -> Reading:
        """Take in a frame's reading; what all frames of this puzzle say together, placed as in this frame."""
        if self._fused is not None and _differ(self._fused, reading):
            self.reset()
        log = np.log(np.maximum(reading.probabilities, 1e-4))  # one frame alone never rules a digit out
        self._scores = _MEMORY * self._scores + log
        top = self._scores.max(axis=1, keepdims=True)
        share = np.exp(self._scores - top)
        fused = replace(reading, probabilities=(share / share.sum(axis=1, keepdims=True)).astype(np.float32))
        same = self._fused is not None and bool((fused.digits == self._fused.digits).all())
        self._stable = self._stable + 1 if same else 0
        self._fused = fused
        self.frames += 1
        return fused

    @property
    def stable(self) -> bool:
        """The last frames changed no cell."""
        return self._stable >= _STABLE_FRAMES

    def reset(self) -> None:
        """Forget everything: another grid, or the grid was lost."""
        self.__init__()  # type: ignore[misc]


def _differ(one: Reading, other: Reading) -> bool:
    sure = (one.confidence > _SURE) & (other.confidence > _SURE)
    return int((sure & (one.digits != other.digits)).sum()) >= _OTHER_PUZZLE
