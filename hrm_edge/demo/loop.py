"""capture → locate → read → think → draw, on the newest frame only. The thinking has a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hrm_edge.demo.thinker import Thinker, Thought
from hrm_edge.demo.view import Stage, State, View
from hrm_edge.vision import overlay
from hrm_edge.vision.frames import Camera, Frame, Mailbox, Rate
from hrm_edge.vision.fuse import Fusion
from hrm_edge.vision.images import Image
from hrm_edge.vision.inks import entries_by_colour
from hrm_edge.vision.judge import doubts_text
from hrm_edge.vision.locate import Grid
from hrm_edge.vision.read import Reader, Reading, turned
from hrm_edge.vision.track import Tracker

_FRAME_TIMEOUT_S = 0.5
_WAITING_S = 2.0  # without a frame: a browser's tab in the background sends one a second
PATIENCE_FRAMES = 12  # read before a reading that the rules refuse is called unsolvable
_SETTLED_EVERY = 4  # frames between two readings once the reading is stable: enough to notice another puzzle
_SEARCHING = State("searching", "searching for a Sudoku")
_COLORS = {"solved": overlay.ANSWER, "unsolvable": overlay.REFUSED}


class Demo:
    """The loop and the newest :class:`View`. ``camera`` is None where viewers bring the frames (a browser's camera)."""

    def __init__(self, mailbox: Mailbox, camera: Camera | None, reader: Reader, thinker: Thinker) -> None:
        self.mailbox, self.camera, self.thinker = mailbox, camera, thinker
        self._reader, self._tracker, self._fusion = reader, Tracker(thinker.task.side), Fusion()
        self._stages = {name: Stage() for name in ("locate", "read", "draw")}
        self._rate = Rate()
        self._frames = 0
        self._track = 0  # the tracker's count that the fusion is about
        self._track_since_s = 0.0
        self._reading: Reading | None = None
        self._settled = False  # the rules have accepted the reading: it need not be read all the time
        self._refused = False  # the rules refuse the reading so far
        self._answer_after_ms: float | None = None
        self._board: dict[str, Any] | None = None
        self._thought: Thought | None = None
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self.view = View(0, State("waiting", "waiting for the first picture"), None, None, None, {})

    # -- viewers ------------------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in the loop's thread whenever there is a new view; returns what ends that."""
        with self._changed:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def wait(self, after: int, timeout_s: float) -> View:
        """Wait for a view with a number beyond ``after``, and return the newest."""
        with self._changed:
            self._changed.wait_for(lambda: self.view.number > after, timeout_s)
            return self.view

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop``. Raises what broke the thinker."""
        last_s = float("-inf")
        while not stop.is_set():
            if self.thinker.fault is not None:
                raise self.thinker.fault
            frame = self.mailbox.take(_FRAME_TIMEOUT_S)
            if frame is not None:
                last_s = frame.time_s
                self.show(frame)
            elif time.perf_counter() - last_s > _WAITING_S:
                self._publish(self._waiting(), self.view.image)

    def show(self, frame: Frame) -> None:
        """Make the view of ``frame``: one pass of the loop."""
        began = time.perf_counter()
        grid = self._tracker.update(frame.image, frame.time_s)
        self._stages["locate"].add(time.perf_counter() - began)
        if self._tracker.tracks != self._track or grid is None:
            self._forget(frame)
        image = frame.image.copy()
        if grid is None:
            state = _SEARCHING if self._tracker.other_side is None else self._other_side(self._tracker.other_side)
        else:
            self._read(frame.image, grid)
            state = self._judge()
            began = time.perf_counter()
            self._draw(image, grid, state)
            self._stages["draw"].add(time.perf_counter() - began)
        self._rate.tick()
        self._publish(state, image)

    def _forget(self, frame: Frame) -> None:
        """Forget what was read: another grid is in view, or none."""
        self._track, self._track_since_s = self._tracker.tracks, frame.time_s
        self._answer_after_ms = None
        self._fusion.reset()
        self._reading, self._settled = None, False

    def _read(self, image: Image, grid: Grid) -> None:
        """Fuse this frame's reading into what was read, where it is worth the time."""
        self._frames += 1
        if self._tracker.seen and (not self._settled or self._frames % _SETTLED_EVERY == 0):
            began = time.perf_counter()
            direction = self._reading.orientation if self._settled and self._reading is not None else None
            reading = self._fusion.add(self._reader.read(image, grid, direction))
            # what a player entered in an app may contradict the puzzle
            entered = entries_by_colour(image, reading) if self._refused else None
            self._reading = reading if entered is None else replace(reading, written=entered.astype(np.float32))
            self._stages["read"].add(time.perf_counter() - began)

    def _judge(self) -> State:
        """Judge the reading so far, and start the thinker on a stable one."""
        in_view = self._tracker.in_view
        reading = State("reading", "reading" if in_view < 2 else f"reading the clearest of {in_view} grids in view")
        self._settled = False
        if self._reading is None or not self._fusion.stable:
            return reading
        thought = self.thinker.think(self._reading)
        self._refused = thought.refused is not None
        if thought.refused is not None:
            why = thought.refused.problem.removeprefix("contradictory givens: ")
            if self._fusion.frames < PATIENCE_FRAMES:
                return State("reading", f"reading again: {why}")
            return State("unsolvable", f"cannot be solved: {why}")
        if thought.givens is None:
            return reading
        self._settled = True
        if thought is not self._thought:
            self._board, self._thought = self._board_of(thought), thought
        if thought.solution is None:
            view = f", view {thought.view + 1}" if thought.view else ""
            return State("solving", f"solving, step {thought.steps}{view}")
        if thought.answer is None:
            return State("unsolvable", f"not solved: {thought.solution.views} views, and no answer obeyed the rules")
        steps = f"{thought.steps} step{'s'[: thought.steps != 1]}"
        return State("solved", f"solved in {1e3 * thought.solution.latency_s:.0f} ms and {steps}")

    def _board_of(self, thought: Thought) -> dict[str, Any]:
        """Return the board beside the picture, and the cells in it that a person should look at."""
        reading, verdict = thought.reading, thought.verdict
        assert verdict is not None
        assert verdict.puzzle is not None
        return {
            "givens": self.thinker.task.format(verdict.puzzle),
            "confidence": np.rint(100 * reading.confidence).astype(int).tolist(),
            "doubtful": sorted({*verdict.repaired, *verdict.doubtful, *verdict.disagreeing}),
            "notes": doubts_text(reading, verdict),
        }

    def _draw(self, image: Image, grid: Grid, state: State) -> None:
        """Draw the outline, and the answer where there is a verified one, into ``image`` itself."""
        overlay.draw_outline(image, grid, _COLORS.get(state.kind, overlay.SEEKING))
        thought, reading = self._thought, self._reading
        if state.kind != "solved" or thought is None or reading is None:
            return
        assert thought.verdict is not None
        assert thought.answer is not None
        overlay.draw_result(image, turned(grid, reading.orientation), thought.verdict, thought.answer)
        if self._answer_after_ms is None:
            self._answer_after_ms = 1e3 * (time.perf_counter() - self._track_since_s)

    def _other_side(self, side: int) -> State:
        mine = self.thinker.task.side
        return State("unsolvable", f"cannot be solved: a {side}x{side} grid, and the model solves {mine}x{mine}")

    def _waiting(self) -> State:
        if self.mailbox.guest is not None:
            return State("waiting", "waiting for the viewer's camera")
        if self.camera is not None:
            return State("waiting", self.camera.trouble or f"waiting for {self.camera.source.name}")
        return State("waiting", "waiting for a picture: start this device's camera, or send a photo")

    def _publish(self, state: State, image: Image | None) -> None:
        view = View(self.view.number + 1, state, image, self._board, self._thought, self._figures())
        with self._changed:
            self.view = view
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _figures(self) -> dict[str, Any]:
        camera = self.camera
        return {
            "source": "a viewer's camera" if camera is None else camera.source.name,
            "camera_fps": round(self.mailbox.fps, 1),
            "loop_fps": round(self._rate.per_s(), 1),
            "received": self.mailbox.received,
            "dropped": self.mailbox.dropped,
            "reconnects": 0 if camera is None else camera.reconnects,
            "stages_ms": {name: stage.summary() for name, stage in self._stages.items()},
            "answer_after_ms": None if self._answer_after_ms is None else round(self._answer_after_ms),
        }
