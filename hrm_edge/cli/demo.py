"""``hrm-edge demo``: a camera sees a Sudoku, the model solves it, the answer is drawn on the picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import COUNT, PATH, Parsed, backend_option, model_option, option, say, views_option
from hrm_edge.errors import UserError

if TYPE_CHECKING:
    from hrm_edge.backends import Backend


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
        from hrm_edge.demo.serve import Page

        page = Page(web, None if cert is None or key is None else (cert, key), kiosk=kiosk, on_message=say)
    name, folder = named_or_default(model)
    on_cpu = backend is None or (backend != "auto" and BACKENDS[backend].on_cpu)
    if threads is None and on_cpu and not is_checkpoint(folder or Path(name)):
        threads = 1  # the picture wants the other cores
    opened = open_model(name, backend=backend, threads=threads, folder=folder, on_message=say)
    from hrm_edge.demo.run import find_source, running

    source = find_source(camera, from_viewers=web is not None)
    with running(opened.session, opened.task, name, source=source, size=size, views=views, wait=wait) as show:
        if web is None:
            run_window(show)
        else:
            page.show(show, opened.about, opened.backend)
