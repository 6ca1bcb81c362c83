"""Work on large matrices: blocks of rows that fit in the cache, shared out over the machine's cores.

numpy lets other threads run inside its loops, so threads are enough.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

#: Entries of a block: a dozen arrays of doubles fit in a core's cache.
BLOCK = 12_000
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
    return ThreadPoolExecutor(cores(), "tensorprog-rows", initializer=lambda: setattr(_INSIDE, "worker", True))


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


def share(work: Callable[[slice], object], n1: int, n2: int, size: int = BLOCK) -> None:
    """Call ``work(rows)`` for every block of rows of an (n1, n2) matrix, on all cores if it is large.

    A call inside of ``work`` runs in the thread it is made in. The first exception is raised here.

    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> share(lambda rows: np.sqrt(x[rows], out=x[rows]), 3, 2)
    >>> x[2, 0]
    np.float64(2.0)
    """
    if n1 * n2 <= SMALL or getattr(_INSIDE, "worker", False) or cores() == 1:
        for rows in blocks(n1, n2, size):
            work(rows)
    else:
        for done in [_pool().submit(work, rows) for rows in blocks(n1, n2, size)]:
            done.result()
