"""A function of one number, tabulated once and read off often."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from typing import Any

import numpy as np

#: Chebyshev nodes of the tabulated map, doubled until their tail is below this part of it, then intervals are halved.
_ORDERS, _TAIL = (8, 16, 32, 64), 1e-12


def root(fn: Callable[[float], float], low: float, high: float) -> float:
    """Return where a continuous function that changes its sign between ``low`` and ``high`` does so.

    >>> math.isclose(root(lambda x: x * x - 2, 1, 2), math.sqrt(2))
    True
    """
    from scipy.optimize import brentq

    x: Any = brentq(fn, low, high, xtol=1e-300, rtol=1e-15)  # pyright: ignore[reportArgumentType]
    return float(x)


class Table:
    """Chebyshev interpolation of a function on [low, high]: as many nodes as its tail asks for, then halves.

    ``tail`` is the size of the last coefficients, relative to the largest.

    >>> sine = Table(math.sin, 0.0, 1.0)
    >>> abs(sine(0.3) - math.sin(0.3)) < 1e-13, sine.tail < 1e-12
    (True, True)
    """

    def __init__(self, fn: Callable[[float], float], low: float, high: float, splits: int = 5):
        self.edges, self.coefs, self.tail = [low, high], [], 0.0
        known: dict[float, float] = {}
        for n in _ORDERS:
            places = (np.arange(n + 1) / n).tolist()
            for x in places:
                if x not in known:
                    known[x] = fn(low + (high - low) * math.sin(math.pi * x / 2) ** 2)
            coefs = np.fft.irfft([known[x] for x in places], 2 * n)[:n + 1] * 2
            coefs[[0, -1]] /= 2
            size = np.abs(coefs)
            self.tail = float(size[-4:].max() / size.max())
            if self.tail <= _TAIL or size.max() == 0:
                break
            if size[-n // 4:].max() > 1e-3 * size.max() and n == _ORDERS[-2]:
                break  # twice the nodes will not do
        if self.tail > _TAIL and splits:
            middle = (low + high) / 2
            left, right = (Table(fn, a, b, splits - 1) for a, b in ((low, middle), (middle, high)))
            self.edges, self.coefs = left.edges + right.edges[1:], left.coefs + right.coefs
            self.tail = max(left.tail, right.tail)
        else:
            signs = np.where(np.arange(len(coefs)) % 2, -1.0, 1.0)  # nodes go from low to high, cosines the other way
            last = int(np.max(np.flatnonzero(size > 1e-17 * size.max()), initial=0))
            self.coefs = [(coefs * signs)[:last + 1].tolist()]

    def __call__(self, x):
        """Return the values at a float, or an array of any shape."""
        if isinstance(x, float):
            i = min(max(bisect(self.edges, x) - 1, 0), len(self.coefs) - 1)
            return self._piece(i, x)
        out = np.empty_like(x)
        place = np.clip(np.searchsorted(self.edges, x, "right") - 1, 0, len(self.coefs) - 1)
        for i in np.unique(place):
            out[place == i] = self._piece(i, x[place == i])
        return out

    def _piece(self, i: int, x):
        low, high, coefs = self.edges[i], self.edges[i + 1], self.coefs[i]
        t = 2 * (2 * (x - low) / (high - low) - 1)
        a, b = 0.0, 0.0
        for c in coefs[:0:-1]:
            a, b = c + t * a - b, a
        return coefs[0] + t * a / 2 - b
