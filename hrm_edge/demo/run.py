"""The demo from its parts to its end: the camera that it looks through, and the thinking beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hrm_edge.demo.loop import Demo
from hrm_edge.demo.thinker import Thinker
from hrm_edge.errors import UserError
from hrm_edge.session import Session
from hrm_edge.solve import check_fits
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.frames import Camera, Mailbox
from hrm_edge.vision.read import Reader
from hrm_edge.vision.sources import BROWSER, cameras, open_source


def find_source(camera: str | None, *, from_viewers: bool) -> str:
    """Return what to open: ``camera``, else the first one of this machine, else ``from_viewers`` the browser's."""
    if camera == BROWSER and not from_viewers:
        raise UserError("--camera browser needs the page", "add --web 8000")
    attached = cameras() if camera is None else [camera]
    return attached[0] if attached else BROWSER if from_viewers else "0"


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
