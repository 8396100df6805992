"""From frames to drawn answers, with the shipped networks."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from hrm_edge.demo.loop import PATIENCE_FRAMES, Demo
from hrm_edge.demo.thinker import Thinker, beliefs
from hrm_edge.demo.view import View
from hrm_edge.errors import UserError
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision.frames import Frame, Source
from hrm_edge.vision.locate import Grid
from hrm_edge.vision.read import Reading
from hrm_edge.vision.track import Tracker
from tests.demo.conftest import NINE
from tests.scripted import ScriptedSession, spec_of
from tests.vision import kinds as kinds_of_pictures
from tests.vision.scenes import EASY, OTHER, paper, scene, walk

TWO_FIVES = EASY[:18] + "501806405" + EASY[27:]  # row 3


def feed(demo: Demo, frames, fps: float = 30.0) -> list[View]:
    """The view of every frame, the thinker being given the time of a frame in between."""
    views = []
    for number, image in enumerate(frames, start=1 + demo.view.number):
        began = time.perf_counter()
        demo.show(Frame(image, number, began))
        views.append(demo.view)
        time.sleep(max(0.0, 1 / fps - (time.perf_counter() - began)))
    return views


def kinds(views: list[View]) -> list[str]:
    """The states, each once for as long as it lasts."""
    found = [view.state.kind for view in views]
    return [kind for n, kind in enumerate(found) if n == 0 or kind != found[n - 1]]


def drawn(view: View, frame: np.ndarray, grid: Grid) -> np.ndarray:
    """Cells [81] as seen in which the view has the answer's colour and the frame has not."""
    blue, leaf, red = (view.image[..., n].astype(int) for n in range(3))
    near = ((leaf > blue + 50) & (leaf > red + 50)) & (view.image != frame).any(axis=2)
    centres = grid.mesh.reshape(10, 10, 2)
    found = np.zeros(81, bool)
    for cell in range(81):
        row, column = divmod(cell, 9)
        x, y = centres[row : row + 2, column : column + 2].reshape(4, 2).mean(axis=0).round().astype(int)
        found[cell] = near[y - 8 : y + 9, x - 8 : x + 9].any()
    return found


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_video_is_located_read_solved_and_the_answer_drawn_into_the_blanks(make, turn):
    demo = make()
    frames = [np.full((480, 640, 3), 80, np.uint8), *walk(EASY, 24, turn=turn)]
    views = feed(demo, frames)
    while views[-1].state.kind in ("reading", "solving"):  # a busy machine takes longer
        views += feed(demo, frames[-1:])
    order = [kind for kind in kinds(views) if kind != "solving"]  # it may take less than a frame
    assert order == ["searching", "reading", "solved"]
    last = views[-1]
    assert last.board["givens"] == EASY
    assert last.state.text.startswith("solved in ")
    assert last.state.text.endswith((" steps", " step"))
    assert last.figures["answer_after_ms"] > 0
    grid = Tracker().update(frames[-1])
    blanks = np.rot90(np.array([c == "0" for c in EASY]).reshape(9, 9), -turn // 90)
    assert (drawn(last, frames[-1], grid).reshape(9, 9) == blanks).all()
    assert not drawn(views[1], frames[1], grid).any()


def test_what_a_player_entered_wrongly_is_said_beside_the_picture(make):
    demo = make()
    blue = (200, 80, 20)
    image = cv2.resize(kinds_of_pictures.played({2: blue}), (480, 480), interpolation=cv2.INTER_AREA)
    views = feed(demo, [image] * 8)
    while views[-1].board is None:
        views += feed(demo, [image])
    board = views[-1].board
    assert board["givens"] == kinds_of_pictures.PUZZLE
    assert board["doubtful"] == [2]
    assert any("1 of them disagrees, row 1 column 3 read as" in note for note in board["notes"])


def test_contradictory_digits_are_named(make):
    views = feed(make(), walk(TWO_FIVES, PATIENCE_FRAMES + 15))
    assert views[-1].state.kind == "unsolvable"
    assert views[-1].state.text == "cannot be solved: two 5s in row 3"
    assert "solved" not in kinds(views)


def test_what_the_model_cannot_solve_is_never_drawn(make):
    """This session's answers are right but for one cell."""
    demo = make(session=ScriptedSession(NINE, spec_of(NINE), hopeless=1.0), views=3)
    frames = list(walk(EASY, 24))
    views = feed(demo, frames)
    assert views[-1].state.kind == "unsolvable"
    assert views[-1].state.text == "not solved: 3 views, and no answer obeyed the rules"
    assert views[-1].thought.solution is not None
    assert views[-1].thought.answer is None
    grid = Tracker().update(frames[-1])
    assert not any(drawn(view, frame, grid).any() for view, frame in zip(views, frames, strict=True))


def test_another_puzzle_in_the_same_place_is_noticed(make):
    demo = make()
    first = feed(demo, [scene(paper(EASY))] * 12)
    assert (first[-1].state.kind, first[-1].board["givens"]) == ("solved", EASY)
    views = feed(demo, [scene(paper(OTHER))] * 24)
    assert (views[-1].state.kind, views[-1].board["givens"]) == ("solved", OTHER)
    wrong = [view for view in views if view.state.kind == "solved" and view.board["givens"] == EASY]
    assert len(wrong) <= 5  # until the next reading


def test_a_4x4_grid_given_to_a_9x9_model(make):
    (view,) = feed(make(), [scene(paper("0030400000020100", 4))])
    assert view.state.text == "cannot be solved: a 4x4 grid, and the model solves 9x9"


def test_an_empty_grid_and_half_a_grid(make):
    views = feed(make(), walk("0" * 81, PATIENCE_FRAMES + 8))
    assert views[-1].state.text == "cannot be solved: only 0 digits were read, a puzzle has at least 17"
    half = scene(paper(EASY))[:, 330:]
    assert {view.state.kind for view in feed(make(), [half] * 5)} <= {"searching", "reading", "unsolvable"}


def test_a_lost_camera_says_so(make):
    class Dead:
        def read(self):
            return None

        def close(self): ...

    opened = []

    def open_once():
        if opened:
            raise UserError("there is no camera /dev/video0", "plug it in")
        opened.append(1)
        return Dead()

    demo, stop = make(Source("camera 0", open_once)), threading.Event()
    thread = threading.Thread(target=demo.run, args=(stop,), daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while "trying again" not in demo.wait(demo.view.number, 1).state.text:
        assert time.monotonic() < end
    assert demo.view.state.kind == "waiting"
    stop.set()
    thread.join()


# ---- the thinker ----


def reading_of(puzzle: str, sure: float = 0.999) -> Reading:
    digits = np.array([int(c) for c in puzzle])
    probabilities = np.full((81, 10), (1 - sure) / 9, np.float32)
    probabilities[np.arange(81), digits] = sure
    mesh = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1).astype(np.float32)
    return Reading(Grid(mesh[[0, 0, -1, -1], [0, -1, -1, 0]], mesh, 1.0), probabilities, 0)


def ended(thought, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while thought.ended_s is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    return thought


def test_every_step_is_kept_as_beliefs_and_the_last_one_is_the_answer(nano):
    thinker = Thinker(nano, NINE)
    thought = ended(thinker.think(reading_of(EASY)))
    assert thought.answer.tolist() == require_unique(NINE, NINE.parse(EASY)).tolist()
    records = np.frombuffer(bytes(thought.records), np.uint8).reshape(-1, 2 + 81 * 9)
    assert len(records) == thought.steps == thought.solution.steps
    assert records[0, :2].tolist() == [0, 1]
    assert records[-1, :2].tolist() == [thought.view, thought.solution.steps - (records[:, 0] < thought.view).sum()]
    assert (records[-1, 2:].reshape(81, 9).argmax(axis=1) + 2 == thought.answer).all()
    assert thinker.think(reading_of(EASY, 0.9)) is thought  # known: answered at once
    thinker.stop()


def test_beliefs_are_probabilities_of_the_digits():
    logits = np.zeros((2, 11), np.float32)
    logits[0, 4] = 20.0  # digit 3
    found = beliefs(logits)
    assert found.shape == (2, 9)
    assert found[0].tolist() == [0, 0, 255, 0, 0, 0, 0, 0, 0]
    assert set(found[1].tolist()) == {23}  # 255 / 11: pad and blank have their share


class Slow(ScriptedSession):
    def step(self, tokens, puzzle_ids, carry):
        time.sleep(0.005)
        return super().step(tokens, puzzle_ids, carry)


def test_a_new_reading_ends_the_thought_about_the_last_one():
    session = Slow(NINE, spec_of(NINE), hopeless=1.0)
    thinker = Thinker(session, NINE, views=10_000)
    first = thinker.think(reading_of(EASY))
    while first.steps < 3:
        time.sleep(0.002)
    second = thinker.think(reading_of(OTHER))
    while second.steps < 3:
        time.sleep(0.002)
    assert first.ended_s is None
    steps = first.steps
    again = thinker.think(reading_of(EASY))  # a given up thought is begun anew, the old one stays as it was
    assert again is not first
    while again.steps < 2:
        time.sleep(0.002)
    assert first.steps == steps
    assert again.number > second.number > first.number
    thinker.stop()


def test_a_refused_reading_is_judged_again_later(nano, monkeypatch):
    thinker = Thinker(nano, NINE)
    thought = ended(thinker.think(reading_of(TWO_FIVES)))
    assert "two 5s in row 3" in thought.refused.problem
    assert (thought.givens, thought.solution) == (None, None)
    assert thinker.think(reading_of(TWO_FIVES)) is thought
    monkeypatch.setattr("hrm_edge.demo.thinker.REFUSED_S", 0.0)
    again = thinker.think(reading_of(TWO_FIVES))
    assert again is not thought
    assert again.refused is not None  # it stays refused meanwhile: what people read does not flicker
    thinker.stop()


def test_a_fault_of_the_model_reaches_the_user(make):
    class Broken(ScriptedSession):
        def step(self, tokens, puzzle_ids, carry):
            raise RuntimeError("the device is gone")

    demo = make(session=Broken(NINE, spec_of(NINE)))
    demo.thinker.think(reading_of(EASY))
    with pytest.raises(RuntimeError, match="the device is gone"):
        demo.run(threading.Event())
