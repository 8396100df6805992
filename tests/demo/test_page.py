"""The page in headless Chromium, its camera fed with a video of a puzzle that is made here."""

from __future__ import annotations

import http.client
import time

import cv2
import numpy as np
import pytest

from tests.demo.chromium import Page, browser, installed
from tests.demo.conftest import serving
from tests.vision.scenes import EASY, OTHER, paper, scene, walk, write_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="Chromium is not installed: apt-get install chromium"),
]
STATE = "document.getElementById('pill').dataset.state"
BOARD = "[...document.querySelectorAll('#board .cell')].map((c) => c.querySelector('.big').textContent || '0').join('')"
PROVEN = "document.querySelectorAll('#board .cell.proven').length"
PLAYING = "document.getElementById('play').hasAttribute('data-on')"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with browser(folder, write_video(folder / "walk.mjpeg", walk(EASY, 30))) as found:
        yield found


def picture_of(page: Page) -> np.ndarray:
    """What the page's canvas shows [h, w, 3] BGR."""
    import base64

    url = page.evaluate("document.getElementById('picture').toDataURL('image/png')")
    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)


def green(image: np.ndarray) -> int:
    """Pixels of the answer's colour."""
    blue, leaf, red = (image[..., n].astype(int) for n in range(3))
    return int(((leaf > blue + 50) & (leaf > red + 50)).sum())


def test_a_browsers_camera_is_solved_and_shown_to_two_viewers(make, chromium, tmp_path):
    with serving(make()) as site:
        one, two = chromium.page(), chromium.page()
        one.open(site.server.url)
        two.open(site.server.url, 390, 844, dark=True, phone=True)
        one.until(f"{STATE} === 'waiting'")
        assert one.evaluate("document.getElementById('empty').hidden") is False
        one.call("Page.bringToFront")  # a tab in the background sends a frame a second
        one.press("c", "c")  # the camera, by keyboard
        for page in (one, two):
            page.until(f"{STATE} === 'solved'")
            page.until(f"!{PLAYING}", 60)
            page.until(f"{PROVEN} === {EASY.count('0')}")
            board = page.evaluate(BOARD)
            assert all(given in ("0", cell) for given, cell in zip(EASY, board, strict=True))
            assert "0" not in board
            assert green(picture_of(page)) > 2000
        assert one.evaluate("document.getElementById('camera').getAttribute('aria-pressed')") == "true"
        one.until("document.getElementById('announce').textContent.includes('solved in')")
        assert site.ask("GET", "/state").json["viewers"] == 2
        for page, name in ((one, "desktop"), (two, "phone")):
            assert len(page.screenshot(tmp_path / f"{name}.png", whole=True)) > 20_000
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, "it scrolls sideways"
        one.press("c", "c")
        two.until(f"{STATE} === 'waiting'")
        assert one.logged == two.logged == []


def test_the_replay_is_driven_by_keys(make, chromium, tmp_path):
    video = write_video(tmp_path / "walk.avi", walk(OTHER, 24))
    with serving(make(str(video))) as site:
        page = chromium.page()
        page.open(site.server.url, dark=True)
        page.until(f"{STATE} === 'solved'")
        page.until(f"!{PLAYING}", 60)
        steps = site.ask("GET", "/state").json["thought"]["steps"]
        where = "document.getElementById('where').textContent"
        assert page.evaluate(where).startswith(f"step {steps} of {steps}")
        page.press("Home")
        assert page.evaluate(where).startswith(f"step 1 of {steps}")
        if steps > 1:
            page.press("ArrowRight")
            assert page.evaluate(where).startswith(f"step 2 of {steps}")
            page.press("ArrowLeft")
            assert page.evaluate(PROVEN) == 0  # a belief, not the answer
        page.press(" ", " ")
        page.until(f"!{PLAYING}", 60)
        assert page.evaluate(PROVEN) == OTHER.count("0")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.press("t", "t")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("localStorage.clear()")
        assert page.logged == []


def test_a_photo_a_file_that_is_none_and_the_way_back(make, chromium, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.jpg"), scene(paper(EASY), (1280, 960), turn=90))
    (tmp_path / "notes.jpg").write_text("no picture")
    with serving(make(str(write_video(tmp_path / "walk.avi", walk(OTHER, 24))))) as site:
        page = chromium.page()
        page.open(site.server.url)
        page.until(f"{STATE} === 'solved'")
        choose(page, str(tmp_path / "notes.jpg"))
        assert "is no picture" in page.until("document.getElementById('notice').textContent")
        choose(page, str(tmp_path / "photo.jpg"))
        page.until("!document.getElementById('back').hidden")
        page.until(f"{STATE} === 'solved'")
        page.until(f"!{PLAYING} && {PROVEN} === {EASY.count('0')}", 60)
        page.evaluate("document.getElementById('back').click()")
        page.until(f"document.getElementById('back').hidden && {STATE} === 'solved'")
        page.until(f"!{PLAYING} && {PROVEN} === {OTHER.count('0')}", 60)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_status_hides_nothing_of_a_picture(make, chromium, tmp_path, width):
    """A photo that fills its frame: the last row stays in sight, and the status is seen before and after it."""
    cv2.imwrite(str(tmp_path / "photo.jpg"), scene(paper(EASY), (960, 960)))
    covers = (
        "(() => { const a = document.getElementById('pill').getBoundingClientRect();"
        " const b = document.getElementById('picture').getBoundingClientRect();"
        " return a.height > 10 && a.top < b.bottom && b.top < a.bottom })()"
    )
    on_top = (
        "(() => { const r = document.getElementById('pill').getBoundingClientRect();"
        " return document.elementFromPoint(r.left + r.width / 2, r.top + r.height / 2).closest('#pill') !== null })()"
    )
    with serving(make()) as site:
        page = chromium.page()
        page.open(site.server.url, width)
        page.until("document.getElementById('text').textContent !== 'connecting'")
        assert page.evaluate(on_top)
        choose(page, str(tmp_path / "photo.jpg"))
        page.until(f"{STATE} === 'solved'", 60)
        assert not page.evaluate(covers)
        assert page.evaluate(on_top)


def choose(page: Page, path: str) -> None:
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#photo")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[path], nodeId=node)


def test_a_server_that_comes_back_is_found_again(make, chromium):
    demo = make()
    with serving(demo) as site:
        page, port = chromium.page(), site.port
        page.open(site.server.url)
        page.until(f"{STATE} === 'waiting' && !document.getElementById('text').textContent.startsWith('conn')")
    page.until("document.getElementById('text').textContent === 'connection lost, trying again'")
    from hrm_edge.demo.serve import Address

    with serving(demo, Address("127.0.0.1", port)) as again:
        page.until("document.getElementById('text').textContent.startsWith('waiting')")
        assert again.ask("GET", "/state").json["viewers"] == 1
        assert page.evaluate("document.getElementById('empty').hidden") is False
        assert page.evaluate(STATE) == "waiting"


def test_the_address_with_the_token_opens_the_page_and_leaves_the_bar(make, chromium, monkeypatch):
    from hrm_edge.demo.serve import Address

    monkeypatch.setattr(Address, "is_local", property(lambda _: False))
    with serving(make()) as site:
        page = chromium.page()
        page.open(f"http://127.0.0.1:{site.port}/?token={site.server.token}")
        page.until("document.getElementById('text').textContent.startsWith('waiting')")
        assert page.evaluate("location.search") == ""
        assert page.logged == []
        page.call("Network.clearBrowserCookies")
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 401
        connection.close()
        time.sleep(0.1)
