"""``hrm-edge demo``: a camera sees a Sudoku, the model solves it, the answer is drawn on the picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import COUNT, PATH, Parsed, backend_option, model_option, option, say, views_option
from hrm_edge.errors import UserError
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.api.open import Opened
    from hrm_edge.backends import Backend
    from hrm_edge.demo.loop import Demo
    from hrm_edge.demo.serve import Address


def _size(text: str) -> tuple[int, int]:
    """``1280x720`` to (width, height)."""
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None:
        raise ValueError(f"'{text}' is no picture size: write 1280x720")
    return int(match[1]), int(match[2])


@click.command()
@option(
    "--camera",
    metavar="SOURCE",
    help="0 (V4L2), csi:0, an rtsp:// or http:// URL, a video, a picture, a folder of pictures, or browser.  "
    "[default: the first V4L2 camera; with --web and none, browser]",
)
@option("--wait", is_flag=True, help="Start without the camera or URL where it is not there yet, and wait for it.")
@option("--kiosk", is_flag=True, help="Open the page full-screen in a browser here, and end with it.")
@option("--web", metavar="[HOST:]PORT", help="Show a web page instead of a window; without HOST, here only.")
@model_option("Artifact or checkpoint folder, or a shipped model")
@views_option(64)
@backend_option
@option("--threads", type=COUNT, help="Threads of one step (artifacts).  [default: 1]")
@option("--size", type=Parsed("WxH", _size), default="1280x720", help="Asked of a V4L2 or CSI camera.")
@option("--cert", type=PATH, help="Certificate (PEM): the page over https.")
@option("--key", type=PATH, help="Its private key (PEM).")
def demo(
    camera: str | None,
    wait: bool,
    kiosk: bool,
    web: str | None,
    model: str | None,
    views: int,
    backend: Backend | None,
    threads: int | None,
    size: tuple[int, int],
    cert: Path | None,
    key: Path | None,
) -> None:
    """Show a Sudoku to a camera and watch the model solve it; the answer is drawn into the picture.

    An answer is drawn only when the rules have verified it. In the window: q ends, s saves a snapshot. Phones give a
    page their camera only over https: --cert and --key.

    \b
    hrm-edge demo --camera 0
    hrm-edge demo --camera browser --web 8000
    hrm-edge demo --camera puzzle.mp4 --web 0.0.0.0:8000
    """
    from hrm_edge.api.open import named_or_default, open_model
    from hrm_edge.backends import BACKENDS
    from hrm_edge.checkpoint import is_checkpoint

    if kiosk and web is None:
        web = "8000"
    if (cert is None) != (key is None) or (cert is not None and web is None):
        raise UserError(
            "--cert and --key go together, with --web", "give both: --web 8000 --cert cert.pem --key key.pem"
        )
    if web is None:
        from hrm_edge.demo.window import check_window, run_window

        check_window()
    else:
        from hrm_edge.demo.serve import parse_address

        address = parse_address(web)
    browser = None
    if kiosk:
        from hrm_edge.demo.kiosk import find_browser

        browser = find_browser()
    name, folder = named_or_default(model)
    on_cpu = backend is None or (backend != "auto" and BACKENDS[backend].on_cpu)
    if threads is None and on_cpu and not is_checkpoint(folder or Path(name)):
        threads = 1  # the picture wants the other cores
    opened = open_model(name, backend=backend, threads=threads, folder=folder, on_message=say)
    show = _build(opened, name, _source(camera, web), size, views)
    try:
        if show.camera is not None:
            show.camera.start(wait=wait)
        if web is None:
            run_window(show)
        else:
            _serve(show, opened, address, None if cert is None or key is None else (cert, key), browser)
    finally:
        if show.camera is not None:
            show.camera.stop()
        show.thinker.stop()


def _source(camera: str | None, web: str | None) -> str:
    """What to open: as asked, else the first camera of this machine, else with a page the browser's."""
    from hrm_edge.vision.sources import BROWSER, cameras

    if camera == BROWSER and web is None:
        raise UserError("--camera browser needs the page", "add --web 8000")
    if camera is not None:
        return camera
    attached = cameras()
    return attached[0] if attached else BROWSER if web is not None else "0"


def _build(opened: Opened, model: str, source: str, size: tuple[int, int], views: int) -> Demo:
    from hrm_edge.demo.loop import Demo
    from hrm_edge.demo.thinker import Thinker
    from hrm_edge.solve import check_fits
    from hrm_edge.tasks.sudoku import Sudoku
    from hrm_edge.vision.frames import Camera, Mailbox
    from hrm_edge.vision.read import Reader
    from hrm_edge.vision.sources import BROWSER, open_source

    task = Sudoku(3, 3)
    if opened.task != task:
        raise UserError(f"{model} solves {opened.task.name}, and 9x9 grids are what is read", "choose another --model")
    check_fits(opened.session, task)
    mailbox = Mailbox()
    camera = None if source == BROWSER else Camera(open_source(source, size), mailbox)
    return Demo(mailbox, camera, Reader(), Thinker(opened.session, task, views=views))


def _serve(show: Demo, opened: Opened, address: Address, tls: tuple[Path, Path] | None, browser: str | None) -> None:
    """Serve the page until Ctrl-C or, in a kiosk, until its ``browser`` is closed."""
    from hrm_edge.demo.kiosk import Browser
    from hrm_edge.demo.power import Gauge
    from hrm_edge.demo.serve import Server
    from hrm_edge.demo.web import Web
    from hrm_edge.device.system import System
    from hrm_edge.power import AUTO, open_meter
    from hrm_edge.vision.images import decode_upload

    model = {"name": opened.about.name, "parameters": opened.about.parameters, "backend": opened.session.backend}
    gauge = Gauge(open_meter(AUTO, System(), on_cpu="cpu" in opened.session.backend))
    page = Web(show, decode_upload, model, gauge)
    server = Server(show, page, address, tls)
    source = "the browser's camera" if show.camera is None else show.camera.source.name
    echo(f"Source: {source}. Open {server.url}", err=True)
    if not address.is_local:
        _show_qr_code(server.url)
    echo("Ctrl-C ends it.", err=True)
    shown = None if browser is None else Browser(browser, server.url, server.stop)
    try:
        server.run()
    finally:
        if shown is not None:
            shown.close()
        gauge.close()


def _show_qr_code(url: str) -> None:
    """Print the address as a QR code where a phone can see it: on a terminal that has its characters."""
    from hrm_edge.demo.kiosk import qr_code

    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    code = qr_code(url) if sys.stderr.isatty() and encoding == "utf8" else None
    if code is not None:
        echo(code, err=True, nl=False)
