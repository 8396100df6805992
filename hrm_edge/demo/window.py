"""A window of OpenCV's own, where its build has one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import cv2

from hrm_edge.demo.loop import Demo
from hrm_edge.demo.view import View
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file
from hrm_edge.vision import overlay
from hrm_edge.vision.images import Image

_TITLE = "hrm-edge: live Sudoku"
_QUIT = (27, ord("q"))
_SNAPSHOT = ord("s")
_WAIT_S = 0.03


def check_window() -> None:
    """Raise ``UserError`` where this OpenCV cannot open a window, or there is no display to open it on."""
    in_browser = "see the demo in a browser: --web 8000"
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):  # some builds abort the program then
        raise UserError("no window can be opened: there is no display", in_browser)
    try:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error as error:
        if "The function is not implemented" in str(error):
            raise UserError(
                "this OpenCV has no windows (opencv-python-headless)",
                f"{in_browser}; or: pip install --force-reinstall opencv-python",
            ) from error
        raise UserError("no window can be opened on this display", in_browser) from error


def run_window(demo: Demo) -> None:
    """Show the demo until q or Escape is pressed or the window is closed; s saves a snapshot in the working folder."""
    stop = threading.Event()
    loop = threading.Thread(target=demo.run, args=(stop,), name="demo", daemon=True)
    loop.start()
    number = 0
    try:
        while loop.is_alive():
            view = demo.wait(number, _WAIT_S)
            if view.number != number and view.image is not None:
                number = view.number
                cv2.imshow(_TITLE, _with_text(view))
            key = cv2.waitKey(1) & 0xFF
            if key in _QUIT or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                break
            if key == _SNAPSHOT and view.image is not None:
                _save_snapshot(view, Path(time.strftime("sudoku-%Y%m%d-%H%M%S.jpg")))
    finally:
        stop.set()
        loop.join()
        cv2.destroyAllWindows()


def _with_text(view: View) -> Image:
    assert view.image is not None
    image = view.image.copy()
    overlay.draw_text(image, view.state.text, (255, 255, 255))
    return image


def _save_snapshot(view: View, path: Path) -> None:
    """Save the picture with its drawing as a JPEG file."""
    jpeg = view.jpeg
    assert jpeg is not None
    with atomic_file(path) as temporary:
        temporary.write_bytes(jpeg)
