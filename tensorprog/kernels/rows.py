"""Work on large matrices: blocks of rows that fit in the cache, shared out over the machine's cores.

numpy lets other threads run inside its loops, so threads are enough.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

#: Entries of a block: few enough for a core's cache, and enough that a loop over them is long beside the interpreter's
#: work between two loops, which threads queue for.
BLOCK = 40_000
#: Arrays a formula may work in.
SCRATCH = 6
#: Matrices up to this many entries are not worth a thread.
SMALL = 1 << 16
_INSIDE = threading.local()


def scratch(count: int, shape: tuple[int, ...], dtype) -> list[np.ndarray]:
    """Return arrays to work in, this thread's own, with anything in them; the next call returns the same ones.

    Fresh ones would cost more than the arithmetic: their pages go back to the kernel between any two blocks.

    >>> a, b = scratch(2, (3, 4), np.float32)
    >>> a.shape, b.dtype, np.shares_memory(a, b), np.shares_memory(a, scratch(1, (5,), float)[0])
    ((3, 4), dtype('float32'), False, True)
    """
    size = math.prod(shape)
    if size > BLOCK or count > SCRATCH:
        return [np.empty(shape, dtype) for _ in range(count)]
    if not hasattr(_INSIDE, "scratch"):
        _INSIDE.scratch = np.empty((SCRATCH, BLOCK))
    return [row.view(dtype)[:size].reshape(shape) for row in _INSIDE.scratch[:count]]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), "tensorprog-rows")  # the calling thread works, too


def blocks(n1: int, n2: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield slices of rows of an (n1, n2) matrix with about ``size`` entries each.

    >>> list(blocks(5, 100, 200))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, size // max(1, n2))
    for start in range(0, n1, step):
        yield slice(start, min(start + step, n1))


def tiles(n1: int, n2: int, size: int = BLOCK) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows and columns with at most ``size`` entries each.

    >>> list(tiles(2, 5, 3))
    [(slice(0, 1, None), slice(0, 3, None)), (slice(0, 1, None), slice(3, 5, None)),
     (slice(1, 2, None), slice(0, 3, None)), (slice(1, 2, None), slice(3, 5, None))]
    """
    for rows in blocks(n1, n2, size):
        for start in range(0, n2, size):
            yield rows, slice(start, min(start + size, n2))


def on_cores(worker: Callable[[], Callable[[Any], object]], jobs: Sequence, workers: int | None = None,
             progress: Callable[[int, int], object] | None = None) -> None:
    """Call ``worker()`` in every thread, and what it returns for one job after the other until all are done.

    The calling thread is one of them, and the only one that calls ``progress`` (with jobs done, jobs in all); inside
    of a job it is the only one. The first exception is raised here.

    >>> seen = []
    >>> on_cores(lambda: seen.append, range(5))
    >>> sorted(seen)
    [0, 1, 2, 3, 4]
    """
    todo, total = iter(jobs), len(jobs)
    done: list[None] = []
    failed: list[None] = []
    told = 0

    def tell() -> None:
        nonlocal told
        if progress is not None and len(done) != told:
            told = len(done)
            progress(told, total)

    def run(first: bool) -> None:
        before = getattr(_INSIDE, "worker", False)
        _INSIDE.worker = True
        try:
            work = worker()
            for job in todo:
                if failed:
                    return
                work(job)
                done.append(None)
                if first:
                    tell()
        except BaseException:
            failed.append(None)
            raise
        finally:
            _INSIDE.worker = before

    count = 1 if getattr(_INSIDE, "worker", False) else min(total, cores() if workers is None else workers)
    others = [_pool().submit(run, False) for _ in range(count - 1)]
    try:
        run(True)
    finally:
        for other in others:
            if not other.cancel():  # what did not start has nothing left to do
                other.result()
    tell()


def share(work: Callable[[slice], object], n1: int, n2: int, size: int = BLOCK) -> None:
    """Call ``work(rows)`` for every block of rows of an (n1, n2) matrix, on all cores if it is large.

    A call inside of ``work`` runs in the thread it is made in. The first exception is raised here.

    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> share(lambda rows: np.sqrt(x[rows], out=x[rows]), 3, 2)
    >>> x[2, 0]
    np.float64(2.0)
    """
    on_cores(lambda: work, list(blocks(n1, n2, size)), 1 if n1 * n2 <= SMALL else None)
