"""Checkpoints are written beside the training: one at a time, on a thread, and none is lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Runs one job at a time on a thread; what a job raised is raised by the next :meth:`submit` or :meth:`wait`."""

    def __init__(self) -> None:
        # The pool's thread is joined when the interpreter ends: an exit during a write waits for it.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then start ``job``."""
        self.wait()
        self._job = self._pool.submit(job)

    def failed(self) -> bool:
        """Return whether the last job ended with an error that was not raised yet. Does not wait."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Return when nothing is being written."""
        job, self._job = self._job, None
        if job is not None:
            job.result()
