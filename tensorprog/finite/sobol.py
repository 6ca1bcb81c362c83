r"""Standard normals that fill the space evenly: scrambled Sobol columns, for averages over a population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensorprog.finite.draws import Draws, name_key
from tensorprog.program.instructions import Data, Input, MatMul, MatrixType, Normal, VectorType
from tensorprog.program.program import Program

#: Numbers in all columns of one axis; what is asked for beyond is drawn plainly.
_ROOM = 1 << 25
_DIMENSIONS = 21201  # of scipy's direction numbers
#: Columns are made orthonormal in groups of this many, which keeps the cost linear in their number.
_GROUP = 128
#: Random matrices with a fixed axis no longer than this are drawn column by column, not product by product.
_NARROW = 64


class SobolDraws(Draws):
    r"""Draws whose vectors along growing axes are columns of a randomized net instead of independent normals.

    Coordinate i of the k-th fresh vector along an axis is ``Phi^-1(u_ik)``, ``u_i`` a scrambled Sobol point of an
    independent net per axis length and replicate; then mean 0, norm 1 and orthogonality are made exact, columns in
    the order of their first use. Every coordinate of the population still is one sample of the joint law, but their
    averages fluctuate far less. A program of linear lines has its limit up to rounding. Other numbers (fixed axes,
    matrices with two growing axes, more columns than were announced) are plain draws.

    Root mean square errors of a population of N (``python tests/bench/bench_limits.py --draws`` gives more), of
    ``<y,y>`` for ``y = W^T relu(W x)`` and of the gradient's ``<d,d>``, three relu layers forward and backward:

        N                                2^10      2^12      2^14      2^16
        <y,y>   plain                   9.7e-2    3.8e-2    1.9e-2    7.2e-3
                Latin hypercube         5.3e-3    9.4e-4    2.4e-4    6.2e-5
                Sobol                   4.0e-3    1.0e-3    2.9e-4    6.5e-5
                Sobol, orthonormal      1.4e-3    4.9e-4    1.1e-4    3.8e-5
        <d,d>   plain                   1.4e-1    5.7e-2    2.8e-2    1.8e-2
                Latin hypercube         8.2e-2    3.5e-2    1.8e-2    8.4e-3
                Sobol                   1.1e-2    4.0e-3    8.3e-4    2.5e-4
                Sobol, orthonormal      1.1e-2    4.0e-3    8.4e-4    2.2e-4

    Antithetic pairs are no better than plain draws: even functions see half as many samples. Orthonormal columns
    cost sines a factor of up to 2, gain kinks and jumps one of 1.5 to 3, and make quadratic averages exact.

    Args:
        n: the scale.
        seed: the replicate.
        columns: length of an axis -> how many columns will be asked for, see ``columns``.
        base: whole number >= 0; replicates of different bases are independent.

    Example:
        >>> d = SobolDraws(1024, 0, {1024: 2})
        >>> x, y = d.fresh((1024,), (1,)), d.fresh((1024,), (2,))
        >>> bool(abs(x @ x / 1024 - 1) < 1e-12 and abs(x @ y) < 1e-9)
        True

    Source: owen1997scrambled (randomized nets); sobol1967distribution.
    """

    def __init__(self, n: int, seed: int, columns: Mapping[int, int], *, base: int = 0):
        super().__init__(n, seed, cache=False)
        self.base, self._counts = base, dict(columns)
        self._nets: dict[int, np.ndarray] = {}
        self._first: dict[tuple, int] = {}
        self._used: dict[int, int] = {}

    @property
    def entropy(self) -> tuple[int, ...]:
        """What all streams start from; never that of an ordinary run."""
        return (self.base, self.n, self.seed, 1)

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return the standard normal array of this name and shape."""
        return self._columns(shape, name_key(name)) if self._axis(shape) else super().normal(name, shape)

    def visit(self, name: str, shape: tuple[int, ...], use: Callable[[int, np.ndarray], Any],
              out: np.ndarray | None = None) -> tuple[np.ndarray | None, list]:
        """Return ``normal(name, shape)``, copied into ``out`` if that is given, and ``use`` of it."""
        if not self._axis(shape):
            return super().visit(name, shape, use, out)
        found = self.normal(name, shape)
        if out is not None:
            out[...] = found
            found = out
        return found, [use(0, found.reshape(-1))]

    def fresh(self, shape: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
        """Return the standard normal array of a raw stream key."""
        return self._columns(shape, key) if self._axis(shape) else super().fresh(shape, key)

    def data(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return generic data: as always on a fixed axis; on a growing one it is a sample like all others."""
        return self._columns(shape, (*name_key(name), 1)) if self._axis(shape) else super().data(name, shape)

    def _axis(self, shape: tuple[int, ...]) -> int:
        """Return the growing axis that columns lie along; 0 if there is none, or two."""
        growing = [k for k in shape if k in self._counts]
        return growing[0] if len(growing) == 1 and len(shape) <= 2 else 0

    def _columns(self, shape: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
        length = self._axis(shape)
        count = int(np.prod(shape)) // length
        net = self._nets.get(length)
        if net is None:
            net = self._nets[length] = normal_net(length, self._counts[length], self._rng(length))
        start = self._first.setdefault((key, shape), self._used.get(length, 0))
        self._used[length] = max(self._used.get(length, 0), start + count)
        if start + count > len(net):
            return super().fresh(shape, key)
        block = net[start : start + count]
        return np.array(block.T if len(shape) == 2 and shape[0] == length else block.reshape(shape), order="C")

    def _rng(self, length: int) -> np.random.Generator:
        return np.random.default_rng([*self.entropy, length])


def normal_net(length: int, count: int, rng: np.random.Generator, *, orthonormal: bool = True) -> np.ndarray:
    """Return up to ``count`` columns of a scrambled Sobol net turned normal, as rows: shape (columns, length).

    Fewer are returned if scipy has no direction numbers for more, or if they would take too much room.

    >>> g = normal_net(1024, 3, np.random.default_rng(0))
    >>> bool(np.allclose(g @ g.T / 1024, np.eye(3))) and bool(np.allclose(g.sum(axis=1), 0))
    True
    """
    from scipy.linalg import solve_triangular
    from scipy.special import ndtri
    from scipy.stats import qmc

    bits = (length - 1).bit_length()
    count = min(count, _ROOM >> bits, _DIMENSIONS)
    if not count:
        return np.empty((0, length))
    # a prefix of the net is balanced as far as the powers of two in its length go
    sobol = qmc.Sobol(count, scramble=True, bits=64, seed=rng)  # pyright: ignore[reportCallIssue] - "rng" since 1.15
    u = sobol.random_base2(bits)[:length]
    g = np.empty((count, length))
    ndtri(np.clip(u.T, 2.0**-54, 1 - 2.0**-53), out=g)
    if orthonormal and length > 2 * _GROUP:
        g -= g.mean(axis=1, keepdims=True)
        for i in range(0, count, _GROUP):
            part = g[i : i + _GROUP]
            factor = np.linalg.cholesky(part @ part.T / length)
            part[:] = solve_triangular(factor, part, lower=True, check_finite=False)
    return g


def columns(program: Program, n: int) -> dict[int, int]:
    """Return how many fresh columns a run of a program at scale n asks for: length of a growing axis -> number.

    >>> from tensorprog.program.text import parse
    >>> columns(parse("dim n" + chr(10) + "matrix W : n x n ~ N(0, 1/n)" + chr(10) + "vector x : n ~ N(0, 1)" + chr(10)
    ...               + "y = W.T @ (W @ x)"), 64)
    {64: 3}
    """
    sizes = program.sizes(n)
    growing = {name for name, dim in program.dims.items() if not dim.is_fixed}
    counts: dict[int, int] = {}

    def add(axis: str, count: int) -> None:
        counts[sizes[axis]] = counts.get(sizes[axis], 0) + count

    drawn = {}
    for line in program.lines:
        if isinstance(line, Input) and isinstance(line.type, MatrixType):
            if isinstance(line.law, Normal):
                rows, cols = line.type.rows.name, line.type.cols.name
                drawn[line.out] = rows, cols
                for axis, other in ((rows, cols), (cols, rows)):
                    if axis in growing and other not in growing and sizes[other] <= _NARROW:
                        drawn.pop(line.out)
                        add(axis, sizes[other])
        elif isinstance(line, Input) and isinstance(line.type, VectorType):
            law = line.law
            if line.type.dim.name in growing and not (isinstance(law, Data) and (law.values or law.onehot is not None)):
                add(line.type.dim.name, 1)
        elif isinstance(line, MatMul) and line.matrix in drawn:
            axis = drawn[line.matrix][line.transposed]
            if axis in growing:
                add(axis, 1)
    return counts


__all__ = ["SobolDraws", "columns", "normal_net"]
