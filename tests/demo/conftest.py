"""The demo with everything real in it: the shipped model, the shipped digit network, a server on loopback."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
pytest.importorskip("uvicorn", reason="pip install 'hrm-edge[web]'")
from websockets.sync.client import ClientConnection, connect

from hrm_edge import zoo
from hrm_edge.demo.loop import Demo
from hrm_edge.demo.serve import Address, Server
from hrm_edge.demo.thinker import Thinker
from hrm_edge.demo.web import Web
from hrm_edge.runtime import open_artifact
from hrm_edge.session import Session
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.frames import Camera, Mailbox, Source
from hrm_edge.vision.images import decode_upload
from hrm_edge.vision.read import Reader
from hrm_edge.vision.sources import open_source

NINE = Sudoku(3, 3)
MODEL = {"name": "sudoku-nano", "parameters": 661761, "backend": "onnxruntime-cpu"}


@pytest.fixture(scope="session")
def nano() -> Session:
    folder = zoo.folder_of("sudoku-nano")
    assert folder is not None
    return open_artifact(folder, threads=1)[0]


@pytest.fixture
def make(nano) -> Iterator[Callable[..., Demo]]:
    """Builds demos, and ends them."""
    made: list[Demo] = []

    def build(source: Source | str | None = None, session: Session = nano, views: int = 64) -> Demo:
        mailbox = Mailbox()
        source = open_source(source, (640, 480)) if isinstance(source, str) else source
        camera = None if source is None else Camera(source, mailbox, backoff_s=(0.01, 0.02))
        made.append(Demo(mailbox, camera, Reader(), Thinker(session, NINE, views=views)))
        if camera is not None:
            camera.start()
        return made[-1]

    yield build
    for demo in made:
        if demo.camera is not None:
            demo.camera.stop()
        demo.thinker.stop()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A served demo."""

    server: Server
    demo: Demo
    host: str
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def live(self, **headers: str) -> ClientConnection:
        """A viewer. Without a limit to its queue the goodbye is read even where the test stops reading before it."""
        return connect(
            f"ws://{self.host}:{self.port}/live", additional_headers=headers, max_size=None, open_timeout=30,
            compression=None, max_queue=None,
        )  # fmt: skip


@contextmanager
def serving(demo: Demo, address: Address | None = None, tls: tuple[Path, Path] | None = None) -> Iterator[Site]:
    web = Web(demo, decode_upload, MODEL, lambda: {"watts": None, "meter": "no meter"})
    server = Server(demo, web, address or Address("127.0.0.1", 0), tls)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:  # noqa: BLE001 - shown below
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield Site(server, demo, "127.0.0.1", server.port)
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert not faults, faults


@pytest.fixture
def site(make) -> Iterator[Site]:
    """A demo that waits for pictures from viewers."""
    with serving(make()) as found:
        yield found
