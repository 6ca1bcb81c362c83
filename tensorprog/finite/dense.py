"""Products with a random matrix that is formed: drawn while it is first multiplied, kept only if it is used again."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tensorprog.finite.arrays import Arrays
from tensorprog.finite.draws import Draws

#: Memory of matrices no longer in use, and how many bytes of it are held at most. The system clears fresh pages when
#: they are first touched, which takes a good part of the time of drawing what goes there.
_SPARE: list[np.ndarray] = []
_MOST_SPARE = 1 << 28


def _memory(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return an array whose entries are still to be written."""
    for i, array in enumerate(_SPARE):
        if (array.shape, array.dtype) == (shape, dtype):
            return _SPARE.pop(i)
    return np.empty(shape, dtype)


def _release(array: np.ndarray) -> None:
    """Keep an array's memory for the next run, instead of what was kept longest."""
    _SPARE.append(array)
    while sum(a.nbytes for a in _SPARE) > _MOST_SPARE:
        del _SPARE[0]


class DrawnGaussian:
    """An (m, n) matrix G of iid N(0, 1) by its entries, ``draws.normal(name, (m, n))``.

    Drawing fills the caches of all cores with blocks of entries: they are multiplied there and then, so that the first
    products cost no pass over the memory; a matrix that is used once never gets there.

    Args:
        shape: (m, n).
        draws: where the entries come from.
        name: the matrix's name.
        arrays: the backend.
        once: whether all its products are asked for in one call; if not after all, it is drawn again.

    Example:
        >>> G = DrawnGaussian((700, 800), Draws(800, seed=0), "G")
        >>> x = np.ones((2, 800))
        >>> bool(np.allclose(G.apply(x, False), x @ Draws(800, seed=0).normal("G", (700, 800)).T))
        True
    """

    def __init__(self, shape: tuple[int, int], draws: Draws, name: str, arrays: Arrays | None = None, *,
                 once: bool = False):
        self.arrays = arrays or Arrays(str(draws.dtype))
        self._shape, self._draws, self._name, self._once = shape, draws, name, once
        self._entries: Any = None

    def apply(self, block, transposed: bool):
        """Return G x (or G^T y) for the rows of a block, shape (k, n) -> (k, m), or (k, m) -> (k, n)."""
        if self._entries is None:
            step = 0 if transposed else self.arrays.slice_rows(len(block), self._shape)
            if step:
                return self._first(block, step)
            self._entries = self.arrays.of(self._draws.normal(self._name, self._shape))
        return self.arrays.product(block, self._entries, transposed)

    def _first(self, block, step: int):
        """Draw the entries and return G x, in products of ``step`` rows each."""
        cols = self._shape[1]
        pairs = np.repeat(block, 2, axis=0) if len(block) == 1 else block  # one vector would be a threaded product
        out = np.zeros((len(block), self._shape[0]), block.dtype)

        def multiply(start: int, part: np.ndarray) -> list:
            """Finish the rows that lie in a part; return its shares of those at its ends that it cuts."""
            head = min(-start % cols, part.size)
            tail = (part.size - head) % cols
            first, body = -(-start // cols), part[head : part.size - tail].reshape(-1, cols)
            for i in range(0, len(body), step):
                rows = body[i : i + step]
                out[:, first + i : first + i + len(rows)] = (pairs @ rows.T)[: len(block)]
            ends = [(first - 1, part[:head], block[:, cols - (-start % cols) :][:, :head]),
                    (first + len(body), part[part.size - tail :], block[:, :tail])]
            return [(row, (x * entries).sum(axis=1)) for row, entries, x in ends if entries.size]

        out_of_use = None if self._once or self._draws.keeps else _memory(self._shape, self._draws.dtype)
        entries, cuts = self._draws.visit(self._name, self._shape, multiply, out_of_use)
        if out_of_use is not None:
            weakref.finalize(self, _release, out_of_use)
        for row, share in (cut for part in cuts for cut in part):
            out[:, row] += share
        self._entries = entries
        return out
