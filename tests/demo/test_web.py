"""The server on loopback: viewers, cameras, photos, and everything hostile."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hrm_edge.demo import web
from hrm_edge.demo.serve import Address
from hrm_edge.demo.web import FRAME_BYTES, PHOTO_BYTES
from tests.demo.conftest import serving
from tests.demo.fuzz import hostile
from tests.vision.scenes import EASY, paper, scene, walk, write_video


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def states(socket, until, timeout_s: float = 60.0):
    """The state for which ``until`` is true, and the pictures on the way; each picture is acknowledged."""
    end, pictures = time.monotonic() + timeout_s, []
    while True:
        assert time.monotonic() < end, "the state never came"
        message = socket.recv(timeout=60)
        if isinstance(message, bytes):
            pictures.append(message)
            socket.send("shown")
        elif "state" in (document := json.loads(message)) and until(document):
            return document, pictures


def solved(document) -> bool:
    return document["state"] == "solved"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    return str(write_video(tmp_path_factory.mktemp("web") / "walk.avi", walk(EASY, 24)))


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(site):
    for path, kind in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "javascript"),
        ("/board.js", "javascript"),
    ):
        answer = site.ask("GET", path)
        assert answer.status == 200
        assert kind in answer.headers["content-type"]
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        text = answer.body.decode()
        assert not re.findall(r"(?:src|href|url|import|fetch)\W{1,4}(?:https?:)?//", text)
    assert site.ask("GET", "/nothing").status == 404
    assert site.ask("GET", "/../web.py").status == 404


def test_state_snapshot_and_beliefs(make, video):
    with serving(make(video)) as site:
        assert site.ask("GET", "/beliefs/1").status == 404
        with site.live() as live:
            document, pictures = states(live, solved)
        assert document["board"]["givens"] == EASY
        assert re.fullmatch(r"[1-9]{81}", document["answer"])
        assert document["thought"]["verified"]
        assert document["power"] == {"watts": None, "meter": "no meter"}
        assert cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)
        assert site.ask("GET", "/state").json["board"] == document["board"]
        snapshot = site.ask("GET", "/snapshot.jpg")
        assert re.match(r'attachment; filename="sudoku-\d{8}-\d{6}\.jpg"', snapshot.headers["content-disposition"])
        assert cv2.imdecode(np.frombuffer(snapshot.body, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)
        number, steps = document["thought"]["number"], document["thought"]["steps"]
        records = site.ask("GET", f"/beliefs/{number}").body
        assert len(records) == steps * (2 + 729)
        last = site.ask("GET", f"/beliefs/{number}?from={steps - 1}").body
        assert last == records[-731:]
        digits = np.frombuffer(last[2:], np.uint8).reshape(81, 9).argmax(axis=1) + 1
        assert "".join(map(str, digits)) == document["answer"]
        for odd in ("-1", "x", "9" * 30, "999"):
            assert site.ask("GET", f"/beliefs/{number}?from={odd}").status == 200
        assert site.ask("GET", f"/beliefs/{number + 5}").status == 404


def test_no_snapshot_before_the_first_picture(site):
    assert site.ask("GET", "/snapshot.jpg").status == 404


def test_two_viewers_see_the_same_at_once_and_a_slow_one_holds_nobody_up(make, video):
    with serving(make(video)) as site, site.live() as one, site.live() as two, site.live() as slow:
        first, _ = states(one, solved)
        second, _ = states(two, solved)
        assert first["answer"] == second["answer"]
        assert second["viewers"] == 3
        number = second["number"]
        _, pictures = states(one, lambda d: d["number"] > number + 20)
        assert len(pictures) > 5
        unasked = 0
        slow.send("x" * 10)  # no word of the protocol
        for message in slow:
            unasked += isinstance(message, bytes)
            if isinstance(message, str) and json.loads(message)["number"] > number + 20:
                break
        assert unasked == 1  # never acknowledged: no picture was piled up for it


def test_viewers_that_vanish_are_harmless(make, video):
    with serving(make(video)) as site:
        for n in range(12):
            with site.live() as live:
                live.recv(timeout=60)
                if n % 3 == 0:
                    live.send("camera on")
                live.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
        with site.live() as live:
            alone, _ = states(live, lambda d: d["viewers"] == 1 and d["guest"] is None)
            later, pictures = states(live, lambda d: d["number"] > alone["number"] + 5)
        assert later["figures"]["received"] > alone["figures"]["received"]
        assert later["viewers"] == 1
        assert cv2.imdecode(np.frombuffer(pictures[-1], np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)


def test_the_number_of_viewers_is_limited(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_VIEWERS", 2)
    with site.live() as one, site.live() as two:
        one.recv(timeout=60)
        two.recv(timeout=60)
        with site.live() as three, pytest.raises(ConnectionClosed) as closed:
            three.recv(timeout=60)
        assert closed.value.rcvd.code == 1013


# ---- a browser's camera ----


def send_frames(live, frames, answers: list):
    """Send a frame whenever one is asked for, until ``solved``."""
    live.send("camera on")
    for message in live:
        if isinstance(message, bytes):
            live.send("shown")
            continue
        document = json.loads(message)
        if document.get("camera") == "more":
            if "what" in document:
                answers.append(document["what"])
            live.send(next(frames))
        elif document.get("camera") == "off":
            answers.append(document["what"])
            return document
        elif document.get("state") == "solved":
            return document
    raise AssertionError("the connection ended")


def test_a_browsers_camera_brings_the_frames(site):
    frames = [jpeg(frame) for frame in walk(EASY, 24)]
    answers: list[str] = []
    with site.live() as live:
        document = send_frames(live, iter([b"no picture", frames[0][:200], *frames * 4]), answers)
        assert document["board"]["givens"] == EASY
        assert document["guest"] == "viewer"
        assert answers == ["the upload is no picture", "the upload: the picture is damaged or cut off"]
        with site.live() as other:  # one camera at a time
            other.send("camera on")
            assert states_or_camera(other)["what"] == "another viewer has it"
        live.send("camera off")
        states(live, lambda d: d["guest"] is None)


def states_or_camera(live):
    while True:
        message = live.recv(timeout=60)
        if isinstance(message, str) and "camera" in (document := json.loads(message)):
            return document


def overwhelm(live) -> None:
    live.send(b"x" * (FRAME_BYTES + 1))
    list(live)


def test_a_frame_that_is_too_large_ends_that_connection_only(site):
    with site.live() as live:
        live.send("camera on")
        with pytest.raises(ConnectionClosed):
            overwhelm(live)
    with site.live() as live:
        states(live, lambda d: d["guest"] is None)


# ---- photos ----


def test_a_photo_is_solved_and_given_up_again(make, video):
    photo = jpeg(scene(paper(EASY), (1280, 960), turn=180))
    with serving(make(video)) as site, site.live() as live:
        assert site.ask("POST", "/photo", photo).json == {"width": 1280, "height": 960}
        document, pictures = states(live, lambda d: d["guest"] == "photo" and solved(d))
        assert document["board"]["givens"] == EASY
        assert site.ask("DELETE", "/photo").status == 204
        _, pictures = states(live, lambda d: d["guest"] is None and d["number"] > document["number"] + 5)
        assert cv2.imdecode(np.frombuffer(pictures[-1], np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)


def test_a_photo_may_not_push_a_viewers_camera_away(site):
    with site.live() as live:
        live.send("camera on")
        assert states_or_camera(live) == {"camera": "more"}
        answer = site.ask("POST", "/photo", jpeg(scene(paper(EASY))))
        assert (answer.status, answer.json["what"]) == (409, "another viewer's camera is on")


def png_header(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".png", np.zeros((70, 70, 3), np.uint8))[1].tobytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


BAD_PHOTOS = [
    (b"", 422, "the upload is no picture"),
    (b"hello", 422, "the upload is no picture"),
    (b"\xff\xd8\xff\xe0" + bytes(50), 422, "the upload: the picture is damaged or cut off"),
    (jpeg(np.zeros((1, 1, 3), np.uint8)), 422, "too small"),
    (png_header(12_000, 9_000), 422, "more than 16 megapixels"),
    (bytes(PHOTO_BYTES + 1), 413, "too large: 24 MiB are the limit"),
]


@pytest.mark.parametrize(("body", "status", "what"), BAD_PHOTOS, ids=[row[2][-20:] for row in BAD_PHOTOS])
def test_bad_photos(site, body, status, what):
    try:
        answer = site.ask("POST", "/photo", body)
    except (BrokenPipeError, ConnectionResetError):  # refused by its length alone, before it was sent
        assert status == 413
        return
    assert answer.status == status
    assert what in answer.json["what"]
    assert answer.json["mend"]
    assert site.demo.mailbox.guest is None


def test_an_upload_without_a_length_is_cut_off(site):
    """Chunked, and endless: the server stops listening at its limit."""
    with socket.create_connection((site.host, site.port), timeout=30) as raw:
        raw.sendall(b"POST /photo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        sent = 0
        try:
            while sent < 100:
                raw.sendall(piece)
                sent += 1
        except OSError:
            pass
        else:
            raise AssertionError("100 MiB were taken")
    assert site.ask("GET", "/state").status == 200


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_hostile_uploads(site, count):
    """Fuzzed pictures: each is answered, none stops the server, and what is a picture does not stop the demo."""
    statuses = {200: 0, 422: 0}
    for body in hostile(count, seed=0):
        answer = site.ask("POST", "/photo", body)
        statuses[answer.status] += 1
        assert answer.status == 200 or (answer.json["what"] and answer.json["mend"])
    assert statuses[422] > 0.3 * count
    assert statuses[200] > 0.02 * count
    assert site.ask("POST", "/photo", jpeg(scene(paper(EASY)))).status == 200
    with site.live() as live:
        states(live, lambda d: solved(d) and d["board"]["givens"] == EASY)


# ---- who may see it ----


@contextmanager
def open_to_the_network(make, monkeypatch):
    """Bound to loopback all the same: only the address is not taken for local."""
    monkeypatch.setattr(Address, "is_local", property(lambda _: False))
    with serving(make()) as site:
        yield site


def test_beyond_this_machine_a_token_is_needed(make, monkeypatch):
    with open_to_the_network(make, monkeypatch) as site:
        token = site.server.token
        assert len(token) >= 16
        assert site.server.url.endswith(f"/?token={token}")
        for method, path in (
            ("GET", "/"),
            ("GET", "/state"),
            ("GET", "/snapshot.jpg"),
            ("POST", "/photo"),
            ("GET", "/page.js"),
        ):
            assert site.ask(method, path).status == 401
            assert site.ask(method, path + "?token=wrong").status == 401
        with pytest.raises(InvalidStatus):
            site.live()
        entered = site.ask("GET", f"/?token={token}")
        assert (entered.status, entered.headers["location"]) == (303, "./")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        mine = {"Cookie": cookie.partition(";")[0]}
        assert site.ask("GET", "/", **mine).status == 200
        assert site.ask("GET", "/state", **mine).status == 200
        with site.live(**mine) as live:
            live.recv(timeout=60)
        assert site.ask("GET", "/state", Cookie="hrm_edge_token=\x01").status == 401


def test_on_this_machine_no_token_and_no_foreign_name(site):
    assert site.server.token is None
    assert site.server.url == f"http://127.0.0.1:{site.port}/"
    assert site.ask("GET", "/state", Host="localhost:1").status == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", ""):
        assert site.ask("GET", "/state", Host=host).status == 403


def test_pages_of_other_sites_may_do_nothing(site):
    here = f"http://{site.host}:{site.port}"
    assert site.ask("DELETE", "/photo", Origin=here).status == 204
    for origin in ("https://evil.example", "null", f"http://{site.host}:1"):
        assert site.ask("DELETE", "/photo", Origin=origin).status == 403
        assert site.ask("POST", "/photo", b"x", Origin=origin).status == 403
        with pytest.raises(InvalidStatus):
            site.live(Origin=origin)
    with site.live(Origin=here) as live:
        live.recv(timeout=60)
