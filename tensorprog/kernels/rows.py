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

#: Entries of a block: a dozen arrays of doubles fit in a core's cache.
BLOCK = 40_000
#: Entries of a block if several threads work: loops must be long beside the interpreter's work between two of them, for
#: which threads queue (waking one up takes as long as a loop over a short block).
LONG = 200_000
#: Arrays a formula may work in.
SCRATCH = 6
#: Matrices up to this many entries are not worth a thread.
SMALL = 1 << 16
#: Multiplications up to which OpenBLAS starts no threads, which would spin for milliseconds afterwards.
ALONE = 1 << 18
_INSIDE = threading.local()


def scratch(count: int, shape: tuple[int, ...], dtype) -> list[np.ndarray]:
    """Return arrays to work in, this thread's own, with anything in them; the next call returns the same ones.

    Fresh ones would cost more than the arithmetic: their pages go back to the kernel between any two blocks.

    >>> a, b = scratch(2, (3, 4), np.float32)
    >>> a.shape, b.dtype, np.shares_memory(a, b), np.shares_memory(a, scratch(1, (5,), float)[0])
    ((3, 4), dtype('float32'), False, True)
    """
    size = math.prod(shape)
    if size > LONG or count > SCRATCH:
        return [np.empty(shape, dtype) for _ in range(count)]
    if not hasattr(_INSIDE, "scratch"):
        _INSIDE.scratch = np.empty((SCRATCH, LONG))
    return [row.view(dtype)[:size].reshape(shape) for row in _INSIDE.scratch[:count]]


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write ``a @ b.T`` into ``out``, in parts for which no other threads are started unless it is much work.

    >>> product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]), np.empty((2, 2)))
    array([[1., 3.],
           [2., 4.]])
    """
    n, d = a.shape
    if n * len(b) * d <= ALONE or d > 128:
        return np.matmul(a, b.T, out=out)
    step = max(8, ALONE // (n * d))
    for start in range(0, len(b), step):
        np.matmul(a, b[start:start + step].T, out=out[:, start:start + step])
    return out


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


def portions(total: int, workers: int | None = None, slow: bool = False) -> tuple[int, int]:
    """Return how many threads are worth it for so many entries, and how many entries each takes at a time.

    >>> portions(1000), portions(10**7, 2), portions(10**6, 2, slow=True)
    ((1, 40000), (2, 200000), (2, 40000))
    """
    count = cores() if workers is None else workers
    size = min(LONG, total // (2 * count))
    if slow and total > SMALL:
        return count, BLOCK
    return (count, max(size, BLOCK)) if count > 1 and (size > LONG // 3 or workers is not None) else (1, BLOCK)


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


def share(work: Callable[[slice], object], n1: int, n2: int, slow: bool = False) -> None:
    """Call ``work(rows)`` for every block of rows of an (n1, n2) matrix, on all cores if it is large.

    A call inside of ``work`` runs in the thread it is made in. The first exception is raised here. Where an entry takes
    much time (``slow``), small matrices are shared out, too.

    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> share(lambda rows: np.sqrt(x[rows], out=x[rows]), 3, 2)
    >>> x[2, 0]
    np.float64(2.0)
    """
    count, size = portions(n1 * n2, None, slow)
    on_cores(lambda: work, list(blocks(n1, n2, size)), count)
