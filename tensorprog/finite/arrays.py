"""The few array operations that a run needs: the namespace that a backend provides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorprog.finite.draws import spread

#: Multiplications of one product that OpenBLAS's kernels for small matrices take, unpacked and on one thread.
_UNPACKED = 1 << 19


class Arrays:
    """numpy's arrays. A backend for another library overrides the methods that move data or differ in spelling.

    A *block* is a stack of vectors, shape (k, size), one vector a row, C-contiguous.

    Args:
        dtype: "float64" or "float32".
    """

    name = "numpy"

    def __init__(self, dtype: str = "float64"):
        self.dtype = np.dtype(dtype)

    @property
    def eps(self) -> float:
        """The rounding unit."""
        return float(np.finfo(self.dtype).eps)

    def of(self, x: np.ndarray):
        """Return a numpy array as an array of this backend, without a copy if possible."""
        return x

    def numpy(self, x) -> np.ndarray:
        """Return an array of this backend as a numpy array, without a copy if possible."""
        return x

    def full(self, size: int, value: float):
        """Return a vector of equal coordinates."""
        return np.full(size, value, self.dtype)

    def empty(self, shape: tuple[int, ...]):
        """Return an array whose entries are still to be written."""
        return np.empty(shape, self.dtype)

    def zeros(self, shape: tuple[int, ...]):
        """Return an array of zeros."""
        return np.zeros(shape, self.dtype)

    def block(self, vectors: Sequence):
        """Return vectors as a block."""
        return vectors[0][None] if len(vectors) == 1 else np.stack(vectors)

    def slice_rows(self, count: int, shape: tuple[int, int]) -> int:
        """Return how many rows at a time a matrix is best multiplied by ``count`` vectors, 0 for all at once."""
        step = _UNPACKED // (shape[1] * max(2, count))
        return step if step >= 8 and shape[0] >= 4 * step else 0

    def product(self, block, matrix, transposed: bool):
        """Return the block of products of a dense matrix, or its transpose, with the vectors of a block.

        Few columns times a large matrix should cost one pass over the matrix. BLAS packs it first, and its threads
        wait for each other; slices small enough for its kernels without packing are several times faster.
        """
        rows, cols = matrix.shape
        step = self.slice_rows(len(block), matrix.shape)
        if len(block) == 1 or not step:
            return block @ (matrix if transposed else matrix.T)
        out = np.zeros((len(block), cols) if transposed else (len(block), rows), matrix.dtype)

        def sums(start: int):
            part = np.zeros_like(out)
            for i in range(start, min(start + share, rows), step):
                part += block[:, i : i + step] @ matrix[i : i + step]
            return part

        def rows_from(start: int) -> None:
            for i in range(start, min(start + share, rows), step):
                out[:, i : i + step] = block @ matrix[i : i + step].T

        # a fixed number of shares: the order of summation does not depend on the number of threads
        share = -(-rows // (4 * step)) * step
        for part in spread(sums if transposed else rows_from, range(0, rows, share)):
            if part is not None:
                out += part
        return out

    def is_array(self, x) -> bool:
        """Whether ``x`` is an array of at least one axis, not a number."""
        return getattr(x, "ndim", 0) > 0

    def dot(self, x, y) -> float:
        """Return the inner product of two vectors."""
        return float(np.dot(x, y))

    def sum(self, x) -> float:
        """Return the sum of a vector's coordinates, accumulated in double precision."""
        return float(x.sum(dtype=np.float64))

    def largest(self, x) -> float:
        """Return the largest absolute coordinate."""
        return float(np.max(np.abs(x), initial=0.0))

    def norm(self, x) -> float:
        """Return the Euclidean norm of a vector, safe against overflow and underflow of the squares."""
        square = self.dot(x, x)
        if 1e-30 < square < 1e30:
            return math.sqrt(square)
        top = self.largest(x)
        if top == 0.0 or not math.isfinite(top):
            return top
        y = x / top
        return top * math.sqrt(self.dot(y, y))
