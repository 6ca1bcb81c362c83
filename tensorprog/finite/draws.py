"""Standard normals by name: one draw serves every program and parametrization run at the same width and seed."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

#: Numbers drawn from one child stream: small enough to balance threads, large enough to hide a stream's start-up.
_BLOCK = 1 << 18

#: Tasks a thread gets: enough to even out what the cores do besides.
_TASKS = 8


@lru_cache(maxsize=4096)
def name_key(name: str) -> tuple[int, ...]:
    """Return four stable 32-bit words of a name.

    >>> name_key("W") == name_key("W") != name_key("V")
    True
    """
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def stream(entropy: tuple[int, ...], key: tuple[int, ...]) -> np.random.Generator:
    """Return the generator of one child stream; SFC64 draws normals fastest of numpy's generators."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy, spawn_key=key)))


def threads() -> int:
    """Return how many threads share large array work, one a core."""
    # whoever keeps linear algebra on one thread runs processes side by side
    return int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count() or 1)


@lru_cache(maxsize=1)
def pool() -> ThreadPoolExecutor:
    """Return the threads."""
    return ThreadPoolExecutor(threads())


def spread(function, items) -> list:
    """Return ``function`` of every item, worked out on all cores under the caller's rules for overflow.

    >>> spread(abs, [-1, 2])
    [1, 2]
    """
    rules, items = np.geterr(), list(items)  # numpy keeps them by thread
    # neighbours go to one thread: fewer tasks, and no two threads touch a page of fresh memory first
    share = max(1, len(items) // (_TASKS * threads()))

    def task(start: int) -> list:
        with np.errstate(**rules):
            return [function(item) for item in items[start : start + share]]

    return [x for xs in pool().map(task, range(0, len(items), share)) for x in xs]


def fork_safe() -> None:
    """Forget the thread pool: threads do not survive a fork."""
    pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=fork_safe)


def fill_normal(out: np.ndarray, entropy: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    """Fill ``out`` (C-contiguous) with iid N(0, 1), on all cores; the numbers do not depend on how many there are.

    >>> a, b = (fill_normal(np.empty(5), (0, 64), (7,)) for _ in range(2))
    >>> bool((a == b).all())
    True
    """
    flat = out.reshape(-1)
    _by_blocks(flat.size, lambda i, here: _draw(flat[here], entropy, (*key, i)))
    return out


def _draw(part: np.ndarray, entropy: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    rng = stream(entropy, key)
    return polar(rng, part) if part.dtype == np.float32 else rng.standard_normal(out=part, dtype=part.dtype)


class _Own(threading.local):
    """Arrays of one thread, by use and type."""

    def __init__(self):
        self.arrays: dict[tuple[str, np.dtype], np.ndarray] = {}


_OWN = _Own()


def _scratch(use: str, size: int, dtype: np.dtype) -> np.ndarray:
    """Return this thread's flat array of a size, which its next call of this use overwrites.

    Memory asked for anew for every block would be cleared by the system, page by page, while other threads wait.
    """
    known = _OWN.arrays.get((use, dtype))
    if known is None or known.size < size:
        known = _OWN.arrays[use, dtype] = np.empty(size, dtype)
    return known[:size]


def polar(rng: np.random.Generator, out: np.ndarray) -> np.ndarray:
    """Fill ``out`` (flat, float32) with iid N(0, 1): ``r cos a`` and ``r sin a``, with r^2/2 exponential and a uniform.

    In single precision a few passes of vector instructions over a block are faster than a ziggurat, entry by entry.
    The radius comes from 32 random bits: no entry is larger than 6.8, which 1 in 10^11 normals would be.

    >>> polar(np.random.default_rng(0), np.empty(3, np.float32)).dtype
    dtype('float32')

    Source: box1958note.
    """
    half = -(-out.size // 2)
    bits = rng.bit_generator.random_raw(half).view(np.uint32)
    r, angle = _scratch("polar", 2 * half, out.dtype).reshape(2, half)
    np.copyto(r, bits[:half], casting="unsafe")
    r += np.float32(0.5)  # in (0, 1] after the next line
    r *= np.float32(2.0**-32)
    np.log(r, out=r)
    r *= np.float32(-2)
    np.sqrt(r, out=r)
    np.copyto(angle, bits[half:].view(np.int32), casting="unsafe")
    angle *= np.float32(np.pi * 2.0**-31)
    for part, wave in ((out[:half], np.cos), (out[half:], np.sin)):
        wave(angle[: part.size], out=part)
        part *= r[: part.size]
    return out


def _by_blocks(size: int, work) -> list:
    """Return ``work(i, slice)`` of every block of ``size`` numbers."""

    def one(i: int):
        return work(i, slice(i * _BLOCK, min((i + 1) * _BLOCK, size)))

    blocks = range(-(-size // _BLOCK))
    return spread(one, blocks) if len(blocks) > 1 else [one(i) for i in blocks]


class Draws:
    """The standard normals of one (width, seed): drawn when first asked for, by name and shape, and kept.

    Two programs that name a matrix alike see the same standard normal matrix whatever its variance, so that
    parametrizations are compared on common random numbers. Streams are keyed by (seed, n, name): no draw depends
    on the order of lines, on other variables, or on the number of threads.

    Args:
        n: the scale.
        seed: the replicate, a whole number >= 0.
        dtype: "float64" or "float32" (drawn natively).
        data_seed: of generic data, which depends on its name and this only.
        cache: False if nothing is asked for twice.

    Example:
        >>> d = Draws(64, 0)
        >>> d.normal("W", (64, 64)) is d.normal("W", (64, 64))
        True
    """

    def __init__(self, n: int, seed: int, dtype: str = "float64", *, data_seed: int = 0, cache: bool = True):
        self.n, self.seed, self.dtype, self.data_seed = int(n), int(seed), np.dtype(dtype), int(data_seed)
        self._cache: dict | None = {} if cache else None

    @property
    def entropy(self) -> tuple[int, ...]:
        """What all streams of random matrices and vectors start from."""
        return (self.seed, self.n)

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return the standard normal array of this name and shape; not to be written to."""
        if self._cache is not None and (name, shape) in self._cache:
            return self._cache[name, shape]
        return self._keep(name, self.fresh(shape, name_key(name)))

    @property
    def keeps(self) -> bool:
        """Whether arrays are kept for others."""
        return self._cache is not None

    def visit(self, name: str, shape: tuple[int, ...], use: Callable[[int, np.ndarray], Any],
              out: np.ndarray | None = None) -> tuple[np.ndarray | None, list]:
        """Return ``normal(name, shape)`` and ``use(start, part)`` of its blocks, flat, each used where it was drawn.

        The array is drawn into ``out``; if it is not given and nothing is kept for others, the blocks are gone when
        they have been used, and the array is None.
        """
        size, known = math.prod(shape), (self._cache or {}).get((name, shape))
        if known is not None or self.keeps:
            out = np.empty(shape, self.dtype) if known is None else known
        flat = None if out is None else out.reshape(-1)

        def work(i: int, here: slice):
            part = _scratch("visit", here.stop - here.start, self.dtype) if flat is None else flat[here]
            return use(here.start, part if known is not None else _draw(part, self.entropy, (*name_key(name), i)))

        results = _by_blocks(size, work)
        return None if out is None else self._keep(name, out), results

    def _keep(self, name: str, out: np.ndarray) -> np.ndarray:
        if self._cache is not None:
            out.flags.writeable = False
            self._cache[name, out.shape] = out
        return out

    def fresh(self, shape: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
        """Return the standard normal array of a raw stream key; never kept."""
        return fill_normal(np.empty(shape, self.dtype), self.entropy, key)

    def data(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return generic data: N(0, 1) by name and data seed, the same at every width, replicate and precision."""
        return fill_normal(np.empty(shape), (self.data_seed,), (*name_key(name), 1)).astype(self.dtype)
