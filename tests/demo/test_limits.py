"""What one client may hold of the server: connections, time, memory, and the log."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from hrm_edge.demo import connections, web
from tests.vision.scenes import EASY, paper, scene

PHOTO = cv2.imencode(".jpg", scene(paper(EASY)))[1].tobytes()


@contextlib.contextmanager
def raw(site, *pieces: bytes) -> Iterator[socket.socket]:
    with socket.create_connection((site.host, site.port), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        yield connection


def is_ended(connection: socket.socket, dribble: bytes) -> bool:
    """Whether the server ends a connection on which a byte comes now and then."""
    connection.settimeout(0.2)
    for _ in range(100):
        try:
            connection.sendall(dribble)
            if connection.recv(1 << 16) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


START = b"POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n"


@pytest.mark.parametrize(("sent", "limit"), [(b"GET / HTTP/1.1\r\nX: ", "ASKING_S"), (START, "ANSWERING_S")])
def test_a_client_that_sends_a_byte_now_and_then_is_let_go(site, monkeypatch, sent, limit):
    monkeypatch.setattr(connections, limit, 1.0)
    with raw(site, sent) as connection:
        assert is_ended(connection, b"x")
    assert site.ask("GET", "/state").status == 200


def test_a_viewer_may_stay(site, monkeypatch):
    monkeypatch.setattr(connections, "ASKING_S", 0.5)
    monkeypatch.setattr(connections, "ANSWERING_S", 0.5)
    with site.live() as live:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert "state" in json.loads(live.recv(timeout=60))


def test_connections_that_say_nothing_do_not_use_up_the_server(site, monkeypatch):
    monkeypatch.setattr(connections, "MOST", 8)
    monkeypatch.setattr(connections, "ASKING_S", 1.0)
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(raw(site)) for _ in range(30)]
        time.sleep(0.5)
        assert len(site.server._server.server_state.connections) <= 8
        assert all(is_ended(connection, b"") for connection in many)
        assert site.ask("GET", "/state").status == 200


def test_unfinished_uploads_hold_little(site):
    body = b"x" * (1 << 20)
    with contextlib.ExitStack() as stack:
        for _ in range(web.MAX_UPLOADS):
            stack.enter_context(raw(site, START, body))
        time.sleep(0.5)
        with raw(site, START) as one_more:
            answer = b"".join(iter(lambda: one_more.recv(1 << 16), b""))  # head and body may come apart
        assert b" 503 " in answer
        assert b"photos are being sent already" in answer
    time.sleep(0.5)
    assert site.ask("POST", "/photo", PHOTO).status == 200


def test_a_small_file_of_a_huge_picture_is_refused(site):
    png = cv2.imencode(".png", np.zeros((7900, 7900, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    assert len(png) < 300_000
    answer = site.ask("POST", "/photo", png)
    assert answer.status == 422
    assert "7900x7900 pixels, more than 16 megapixels" in answer.json["what"]


def test_a_phones_large_photo_is_read_at_half_its_size(site):
    large = cv2.resize(scene(paper(EASY)), (5760, 4320))  # 25 megapixels
    answer = site.ask("POST", "/photo", cv2.imencode(".jpg", large)[1].tobytes())
    assert answer.status == 200, answer.body
    assert answer.json == {"width": 2880, "height": 2160}


def test_frames_of_a_viewer_whose_camera_is_not_on_are_not_decoded(site, monkeypatch):
    decoded = []
    monkeypatch.setattr(web.Web, "decoded", lambda self, data: decoded.append(data))
    with site.live() as live:
        live.send(PHOTO)
        while "camera" not in (said := json.loads(live.recv(timeout=60))):
            pass
    assert said["camera"] == "off"
    assert not decoded


def test_bad_requests_do_not_fill_the_log(site, capfd):
    for _ in range(50):
        with raw(site, b"\x00nonsense\r\n\r\n") as connection:
            connection.recv(1 << 16)
    site.ask("GET", "/state")
    assert capfd.readouterr().err == ""
