"""What the benchmarks share as programs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from hrm_edge.errors import HrmEdgeError


def program(main: Callable[[], int]) -> Callable[[], int]:
    """Return ``main`` with an error of hrm-edge as one line and an exit code, as the command line has it."""

    @functools.wraps(main)
    def ended() -> int:
        try:
            return main()
        except HrmEdgeError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code

    return ended


def command_line() -> str:
    """Return the command that runs, for a results file: of a path of this machine the name alone."""
    return " ".join(["python", *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv)])
