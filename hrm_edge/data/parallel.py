"""Work in several processes whose results come in the order of the jobs, so that their number does not matter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from hrm_edge.child import process_pool

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
    with process_pool(processes) as pool:
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
