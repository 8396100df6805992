"""The demo from its parts to its end: where pictures come from, and the window or the page that shows it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from hrm_edge.demo.loop import Demo
from hrm_edge.demo.thinker import Thinker
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.power import AUTO, open_meter
from hrm_edge.report.schema import ModelInfo
from hrm_edge.session import Session
from hrm_edge.solve import check_fits
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.terminal import echo
from hrm_edge.vision.frames import Camera, Mailbox
from hrm_edge.vision.images import decode_upload
from hrm_edge.vision.read import Reader
from hrm_edge.vision.sources import BROWSER, cameras, open_source


class Window:
    """A window on this machine's display; ``UserError`` where there can be none."""

    has_camera = False

    def __init__(self) -> None:
        from hrm_edge.demo.window import check_window

        check_window()

    def show(self, demo: Demo, about: ModelInfo, backend: str) -> None:
        """Show ``demo`` until the window is closed."""
        from hrm_edge.demo.window import run_window

        run_window(demo)


class Page:
    """A page at ``address``, by https where ``tls`` has a certificate and its key; ``kiosk``: in a browser here too."""

    has_camera = True

    def __init__(self, address: str, tls: tuple[Path, Path] | None, *, kiosk: bool) -> None:
        from hrm_edge.demo.kiosk import find_browser
        from hrm_edge.demo.serve import parse_address

        self._address, self._tls = parse_address(address), tls
        self._browser = find_browser() if kiosk else None

    def show(self, demo: Demo, about: ModelInfo, backend: str) -> None:
        """Serve ``demo`` until Ctrl-C or, in a kiosk, until its browser is closed."""
        from hrm_edge.demo.kiosk import Browser
        from hrm_edge.demo.power import Gauge
        from hrm_edge.demo.serve import Server
        from hrm_edge.demo.web import Web

        gauge = Gauge(open_meter(AUTO, System(), on_cpu="cpu" in backend))
        model = {"name": about.name, "parameters": about.parameters, "backend": backend}
        server = Server(demo, Web(demo, decode_upload, model, gauge), self._address, self._tls)
        source = "the browser's camera" if demo.camera is None else demo.camera.source.name
        echo(f"Source: {source}. Open {server.url}", err=True)
        if not self._address.is_local:
            _show_qr_code(server.url)
        echo("Ctrl-C ends it.", err=True)
        with contextlib.ExitStack() as until_the_end:
            until_the_end.callback(gauge.close)
            if self._browser is not None:
                until_the_end.callback(Browser(self._browser, server.url, server.stop).close)
            server.run()


def _show_qr_code(url: str) -> None:
    """Print the address as a QR code where a phone can see it: on a terminal that has its characters."""
    from hrm_edge.demo.kiosk import qr_code

    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    code = qr_code(url) if sys.stderr.isatty() and encoding == "utf8" else None
    if code is not None:
        echo(code, err=True, nl=False)


def find_source(camera: str | None, screen: Window | Page) -> str:
    """Return what to open: ``camera``, else the first one of this machine, else with a page the browser's."""
    if camera == BROWSER and not screen.has_camera:
        raise UserError("--camera browser needs the page", "add --web 8000")
    attached = cameras() if camera is None else [camera]
    return attached[0] if attached else BROWSER if screen.has_camera else "0"


@contextlib.contextmanager
def running(
    session: Session, task: Task, model: str, *, source: str, size: tuple[int, int], views: int, wait: bool
) -> Iterator[Demo]:
    """Start the camera at ``source`` and the thinking, and end both with the block.

    ``size``: asked of the camera. ``views``: tried per puzzle. ``wait``: for a camera that is not there yet. Raises
    ``UserError`` where ``model`` is for another task than 9x9 Sudoku, or the camera cannot be opened.
    """
    board = Sudoku(3, 3)
    if task != board:
        raise UserError(f"{model} solves {task.name}, and 9x9 grids are what is read", "choose another --model")
    check_fits(session, board)
    mailbox = Mailbox()
    camera = None if source == BROWSER else Camera(open_source(source, size), mailbox)
    demo = Demo(mailbox, camera, Reader(), Thinker(session, board, views=views))
    try:
        if camera is not None:
            camera.start(wait=wait)
        yield demo
    finally:
        if camera is not None:
            camera.stop()
        demo.thinker.stop()
