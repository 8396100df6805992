"""Work in several processes whose results come in the order of the jobs, and the new puzzles among such results."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm_edge.child import process_pool
from hrm_edge.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    """Yield ``work(job)`` for every job, in their order; jobs may be endless, and no more than needed are started.

    ``work`` and the jobs are sent to the processes, so ``work`` is a function of a module or a ``partial`` of one.
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    waiting = iter(jobs)
    # Ctrl-C is this process's to answer: the others would each print a traceback.
    with process_pool(processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            while True:
                for job in waiting:
                    ahead.append(pool.submit(work, job))
                    if len(ahead) >= 2 * processes:
                        break
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def only_new(
    chunks: Iterable[Result],
    names: Callable[[Result], Sequence[bytes | None]],
    count: int,
    *,
    seen: Iterable[bytes] = (),
    tries: int,
    give_up: int,
    refusal: tuple[str, str],
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[Result, NDArray[np.int64]]]:
    """Yield chunks of candidates, each with the rows of its new ones, until there are ``count`` of them.

    ``names``: a key for each row of a chunk, None where it is not wanted; a row is new where no row before has its key
    and ``seen`` has not. ``tries``: candidates that a chunk was chosen from. Raises ``UserError`` after ``give_up``
    tries in a row without a new one; ``refusal``: what the candidates are called then, and the hint.
    """
    known, total, fruitless = set(seen), 0, 0
    for chunk in chunks:
        rows: list[int] = []
        for row, name in enumerate(names(chunk)):
            if name is not None and name not in known and total + len(rows) < count:
                known.add(name)
                rows.append(row)
        yield chunk, np.array(rows, np.int64)
        total += len(rows)
        if on_progress is not None:
            on_progress(total)
        if total == count:
            return
        fruitless = 0 if rows else fruitless + tries
        if fruitless >= give_up:
            things, hint = refusal
            raise UserError(
                f"found only {total} of {count} such {things}: {give_up} tries in a row brought no new one", hint
            )
