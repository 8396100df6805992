"""Every kind of picture that people send, drawn here, is read as the puzzle that it shows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision.formats import is_picture, pictures_of
from hrm_edge.vision.images import _decode_image, load_image, save_image
from hrm_edge.vision.locate import WAYS, locate
from hrm_edge.vision.read import Reader
from hrm_edge.vision.recognise import Recognised, recognise
from hrm_edge.vision.track import Tracker
from tests.vision.kinds import (
    ANSWER,
    BLACK,
    PUZZLE,
    SCHEMES,
    WHITE,
    Image,
    bent,
    boxes,
    cropped,
    draw,
    highlighted,
    played,
    scheme,
    transparent,
)  # fmt: skip

NINE = Sudoku(3, 3)
PICTURES = Path(__file__).with_name("pictures")
RED = (0, 0, 220)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def recognised(reader: Reader, image: Image) -> Recognised:
    found = recognise(image, reader, NINE)
    assert found.verdict.puzzle is not None, found.verdict.why
    return found


def read(reader: Reader, image: Image) -> str:
    return NINE.format(recognised(reader, image).verdict.puzzle)


@pytest.mark.parametrize("name", SCHEMES)
def test_light_on_dark(reader, name):
    image = scheme(name)
    assert not any(grid.side == 9 for grid in locate(image))  # as dark on light there is nothing
    assert read(reader, image) == PUZZLE


@pytest.mark.parametrize("path", sorted((PICTURES / "people").iterdir()), ids=lambda path: path.name)
def test_pictures_as_people_have_them(reader, path):
    """Drawn by another program than the other kinds: without margin, thick, dark, transparent, a ``.jfif``."""
    assert read(reader, load_image(path)) == PUZZLE


@pytest.mark.parametrize("share", [0, 0.002, 0.005, 0.01, 0.02])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_cut_to_the_grid(reader, share, dark):
    image = cropped(draw(margin=60), share)
    assert read(reader, 255 - image if dark else image) == PUZZLE


def test_cut_along_the_outer_line(reader):
    assert read(reader, draw(margin=60)[62:-62, 62:-62].copy()) == PUZZLE


@pytest.mark.parametrize("ink", [BLACK, WHITE, (160, 60, 0)], ids=["black", "white", "blue"])
def test_transparent_paper(reader, ink):
    data = cv2.imencode(".png", transparent(ink))[1].tobytes()
    assert read(reader, _decode_image(data, "x")) == PUZZLE
    deep = cv2.imencode(".png", transparent(ink).astype(np.uint16) * 257)[1].tobytes()
    assert np.abs(_decode_image(deep, "x").astype(int) - _decode_image(data, "x")).max() <= 1


@pytest.mark.parametrize("thick", [9, 10, 12])  # pixels of 42
def test_thick_frames(reader, thick):
    assert read(reader, draw(thick=thick)) == PUZZLE


@pytest.mark.parametrize("grey", [200, 225, 242])
def test_pale_hairlines_without_a_frame(reader, grey):
    assert read(reader, draw(thick=1, lines=(grey, grey, grey), frame=False)) == PUZZLE


@pytest.mark.parametrize(
    "image",
    [
        draw(tiles=highlighted(), inks={30: WHITE}),
        draw(tiles=boxes(WHITE, (205,) * 3), lines=(180,) * 3),
        draw(tiles=boxes((150,) * 3, (205,) * 3), lines=WHITE, thick=4, thin=2),
        draw(
            tiles=boxes((90,) * 3, (60,) * 3), lines=(20,) * 3, ink=(230,) * 3, paper=(30,) * 3, thick=4, thin=2
        ),
    ],
    ids=["highlighted cells, one dark", "tiles", "tiles with white gaps", "dark tiles with darker gaps"],
)  # fmt: skip
def test_cells_of_several_brightnesses(reader, image):
    assert read(reader, image) == PUZZLE


@pytest.mark.parametrize("height", [0.2, 0.25, 0.3, 0.35, 0.4])
@pytest.mark.parametrize("scale", [1, 1.3, 2])
def test_small_digits_enlarged(reader, height, scale):
    image = draw(cell=48, height=height)
    assert read(reader, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)) == PUZZLE


@pytest.mark.parametrize(("bulge", "tilt"), [(0.1, 45), (0.1, 55), (0.2, 30)])
def test_a_bent_page_from_the_side(reader, bulge, tilt):
    assert read(reader, bent(draw(cell=60, margin=60, thin=2, thick=4), bulge, tilt)) == PUZZLE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("slips", [{2: (200, 80, 20)}, {2: (200, 80, 20), 6: RED}], ids=["as the others", "one in red"])
def test_entries_of_a_player_that_contradict_the_puzzle_are_left_out(reader, slips, dark):
    image = played(slips)
    verdict = recognised(reader, 255 - image if dark else image).verdict
    assert NINE.format(verdict.puzzle) == PUZZLE
    assert verdict.disagreeing == tuple(slips)
    entered = [at for at in range(0, 81, 2) if PUZZLE[at] == "0"]
    assert verdict.ignored == tuple(sorted({*entered, *slips}))


def test_entries_of_a_player_that_are_right_count(reader):
    verdict = recognised(reader, played({})).verdict
    expected = "".join(ANSWER[at] if at % 2 == 0 else PUZZLE[at] for at in range(81))
    assert (NINE.format(verdict.puzzle), verdict.ignored) == (expected, ())


def test_pictures_are_known_by_their_content(reader, tmp_path):
    image = draw()
    for name, ending in (("photo.jfif", ".jpg"), ("download", ".png"), ("moving.gif", ".gif"), ("odd.txt", ".webp")):
        done, data = cv2.imencode(ending, image)
        assert done
        (tmp_path / name).write_bytes(data.tobytes())
        assert is_picture(tmp_path / name)
        assert read(reader, load_image(tmp_path / name)) == PUZZLE
    (tmp_path / "notes.txt").write_text("BM is how a bitmap begins, and 53 how this puzzle does")
    (tmp_path / "._photo.jpg").write_bytes(b"\0\5\x16\7")  # what a Mac leaves beside a photo
    assert [path.name for path in pictures_of(tmp_path)] == ["download", "moving.gif", "odd.txt", "photo.jfif"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.webp", b"RIFF"), ("a.png", b"\x89PNG"), ("a.bmp", b"BM"), ("a.gif", b"GIF8"), ("a", b"\xff\xd8")],
)
def test_a_picture_is_written_in_the_format_of_its_ending(tmp_path, name, kind):
    save_image(draw(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(kind)


def test_light_on_dark_in_a_video():
    tracker, image = Tracker(), scheme("grey")
    seen = [tracker.update(image, 0.1 * frame) is not None for frame in range(20)]
    assert all(seen[16:])
    assert tracker.tracks == 1
    tracker.update(np.full_like(image, 128), 9.0)  # gone
    assert tracker.update(image, 9.1) is not None  # and found at once, in the way that worked


def test_a_usual_video_is_looked_at_in_the_usual_way_alone(monkeypatch):
    ways = []

    def looked(image, way):
        ways.append(way)
        return locate(image, way=way)

    monkeypatch.setattr("hrm_edge.vision.track.locate", looked)
    tracker = Tracker()
    assert all(tracker.update(draw(), 0.1 * frame) is not None for frame in range(6))
    assert set(ways) == {WAYS[0]}


@pytest.mark.parametrize("path", sorted(PICTURES.glob("hand-*.jpg")), ids=lambda path: path.stem)
def test_a_grid_filled_in_by_hand(reader, path):
    """``PUZZLE`` printed, and handwriting that was not trained on, with crossed 7s; some of it is wrong."""
    verdict = recognised(reader, load_image(path)).verdict
    assert NINE.format(require_unique(NINE, verdict.puzzle)) == ANSWER
