"""How long work tells its caller what it does: one callback for notes in words, one for progress."""

from __future__ import annotations

import logging
from collections.abc import Callable

OnMessage = Callable[[str], None]
"""Gets a note in words."""
OnProgress = Callable[[str, float, float], None]
"""Gets what is being done, how much of it is done, and how much there is in all."""


def log(message: str) -> None:
    """Log a note; Python prints it on stderr unless the program sets up ``logging``."""
    logging.getLogger("hrm_edge").warning(message)


def ignore(what: str, done: float, total: float) -> None:
    """Show no progress."""
