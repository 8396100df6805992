"""The run folder: one process writes into it, and a job that was started again knows it for its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrm_edge.checkpoint import CHECKPOINTS, checkpoints
from hrm_edge.errors import UserError
from hrm_edge.files import os_error

_LOCK_FILE = ".lock"  # who trains here; also says which job was the last
_WAIT_S = 30.0  # for the ranks of the same job that are still on their way out


def _job_name() -> str:
    """Return the launcher's name of this job, empty without one; the same for all its restarts."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name  # "none" is torchrun's default: every job has it


def was_restarted(run: Path) -> bool:
    """Return whether the launcher has started this job before, so that its checkpoints are to be gone on from."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    own = _job_name() != "" and _holder(run).get("job") == _job_name()
    return (again or own) and bool(checkpoints(run))


def _holder(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run / _LOCK_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def lock_run_folder(run: Path) -> Iterator[None]:
    """Keep other processes from training in ``run``; the lock ends with the process, however that ends.

    Raises ``UserError`` where another process holds it. Removes what killed writers have left half-written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = open(run / _LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 - the block below closes it
    except OSError as error:
        raise os_error(error, run) from error
    with lock:
        _acquire(run, lock.fileno())
        lock.truncate(0)
        lock.write(json.dumps({"job": _job_name(), "pid": os.getpid(), "host": socket.gethostname()}))
        lock.flush()
        for torn in (run / CHECKPOINTS).glob(".*.tmp"):
            shutil.rmtree(torn, ignore_errors=True)
        yield


def _acquire(run: Path, handle: int) -> None:
    holder = _holder(run)
    deadline = time.monotonic() + (_WAIT_S if holder.get("job") and holder["job"] == _job_name() else 2.0)
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                raise UserError(f"{run} is in use: {who} trains there", "stop it, or choose another --out") from error
            time.sleep(0.1)
