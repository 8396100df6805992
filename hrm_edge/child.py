"""Start Python in another process without running code of the current folder.

``python -c`` and ``python -m`` put the current folder first on the import path, so that a file ``json.py`` in it runs
as soon as the child imports json. A command given in a folder that was downloaded must not do that. Every child of
this package starts through one of the two functions here.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

from hrm_edge.errors import EXIT_BUG, UserError

# Python 3.10 has no -P: the first entry, which is the current folder, goes before anything is imported.
_FORGET_FOLDER = "import sys; del sys.path[0]; "
_RUN_MODULE = _FORGET_FOLDER + "import runpy; del sys.argv[0]; runpy.run_module(sys.argv[0], None, '__main__', True)"


_VERSION: tuple[int, ...] = sys.version_info[:2]


def python_command(option: str, program: str, *arguments: str, version: tuple[int, ...] = _VERSION) -> list[str]:
    """Return the command for ``python -m MODULE ARGUMENTS`` or ``python -c CODE ARGUMENTS``.

    ``version``: of this Python; older ones than 3.11 get the same by other means.
    """
    if version >= (3, 11):
        return [sys.executable, "-P", option, program, *arguments]
    if option == "-m":
        return [sys.executable, "-c", _RUN_MODULE, program, *arguments]
    return [sys.executable, "-c", _FORGET_FOLDER + program, *arguments]


@dataclass(frozen=True)
class Ended:
    """A verb that ran in a process of its own."""

    code: int
    last_words: str
    """Its error, or else the last line that it printed on stderr."""


def run_verb(
    arguments: Sequence[str], *, limit_s: float | None = None, on_tick: Callable[[], None] | None = None
) -> Ended:
    """Run ``hrm-edge ARGUMENTS`` in a process of its own, which ends with this one's wait.

    ``on_tick`` is called twice a second. A process that takes longer than ``limit_s`` is stopped. It inherits the
    files that this process made inheritable.
    """
    command = python_command("-m", "hrm_edge", *arguments)
    began = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, close_fds=False
    ) as process:
        try:
            while True:
                try:
                    _, errors = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if on_tick is not None:
                        on_tick()
                    if limit_s is not None and time.monotonic() - began > limit_s:
                        process.kill()
                        process.communicate()
                        return Ended(process.returncode, f"it took longer than {limit_s:.0f} s and was stopped")
        except BaseException:
            process.terminate()
            raise
    return Ended(process.returncode, _last_words(errors.decode(errors="replace"), process.returncode))


def end_process(process: subprocess.Popen[Any], patience_s: float) -> None:
    """End a process, by force where it has not ended itself after ``patience_s`` seconds."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(errors: str, code: int) -> str:
    """Return the line that says why a verb ended so."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("Error: ", "Failed: "))]
    if not told and code < 0:
        return f"it was ended by signal {-code}" + " (out of memory?)" * (code == -9)
    if code == EXIT_BUG and len(lines) > 1:  # the last line asks for a report; before it stands what was raised
        return f"{lines[-2]} (a bug in hrm-edge: please report it)"
    return (told or lines or [f"exit code {code}"])[-1]


def spawn_context(version: tuple[int, ...] = _VERSION) -> SpawnContext:
    """Return multiprocessing's way of starting processes anew, safe in any folder.

    Processes are spawned, not forked, because the parent may hold threads of a matrix library.
    """
    if version >= (3, 11):
        os.environ["PYTHONSAFEPATH"] = "1"  # -P for the processes of a pool, and for whatever they start
    elif multiprocessing.util.spawnv_passfds is not _spawn_without_folder:
        multiprocessing.util.spawnv_passfds = _spawn_without_folder
    return multiprocessing.get_context("spawn")


def process_pool(processes: int, **options: Any) -> ProcessPoolExecutor:
    """Return a pool of ``processes`` that are spawned. Raises ``UserError`` where this machine lets none share work."""
    try:
        return ProcessPoolExecutor(processes, mp_context=spawn_context(), **options)
    except (OSError, ImportError) as error:  # /dev/shm is read-only, absent or closed to this user
        raise UserError(
            f"--processes {processes}: processes cannot share work here, /dev/shm does not take locks: {error}",
            "--processes 1, or let /dev/shm be written (a container: docker run --tmpfs /dev/shm)",
        ) from error


_spawn: Any = multiprocessing.util.spawnv_passfds


def _spawn_without_folder(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """Start what multiprocessing starts, a ``python -c``, with the current folder off the import path."""
    at = list(args).index("-c") + 1
    return int(_spawn(path, [*args[:at], _FORGET_FOLDER + args[at], *args[at + 1 :]], passfds))
