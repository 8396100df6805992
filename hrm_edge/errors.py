"""Errors that a user sees: one line that states the problem, one line that says how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_GATE = 1  # the work ran and failed its own gate (accuracy, parity)
EXIT_USER = 2  # the user's input or machine is at fault
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h: none of the contract's codes, a failed gate (1) least of all
EXIT_INTERRUPTED = 130


class HrmEdgeError(Exception):
    """Base of every error that the command line prints without a traceback.

    ``problem`` names the fault and the file, flag or key it is in; ``hint`` says what to do about it.
    """

    exit_code = EXIT_USER

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem if not hint else f"{problem}\n{hint}")
        self.problem = problem
        self.hint = hint


class UserError(HrmEdgeError):
    """Bad input, a bad file, or a machine that lacks something: exit code 2."""


class GateError(HrmEdgeError):
    """The work ran to its end but missed a limit it was asked to hold: exit code 1."""

    exit_code = EXIT_GATE


class Interrupted(HrmEdgeError):
    """Ctrl-C or SIGTERM; ``hint`` says how to go on: exit code 130."""

    exit_code = EXIT_INTERRUPTED


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a ``did you mean`` sentence for a misspelt word, or the list of known words."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(known)
