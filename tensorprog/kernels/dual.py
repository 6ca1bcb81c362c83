r"""Dual activations: ``E phi(g) psi(g')`` for Gaussian pairs, as code on whole matrices of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.kernels import closed
from tensorprog.kernels.compose import Homogeneous
from tensorprog.kernels.rows import LONG, blocks, share, tiles


@dataclass(frozen=True)
class Dual:
    r"""The function ``(q1, q2, c) -> E phi(g) psi(g')``, (g, g') ~ N(0, [[q1, c], [c, q2]]); made by ``dual``.

    Args:
        phi, psi: the two nonlinearities.
        method: "closed form", exact up to rounding; or "quadrature", to 1e-8 of ``sqrt(E phi^2 E psi^2)``.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> relu = dual(nonlinearity("relu"))
        >>> q, c = np.array([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 2.0]])
        >>> k, slope = relu.with_slope(q, q, c)
        >>> print(k.round(6), slope.diagonal(), relu.diagonal(q), relu.method)
        [[0.5      0.364299]
         [0.364299 1.      ]] [0.5 0.5] [0.5 1. ] closed form

    Source: daniely2016toward (the name); cho2009kernel.
    """

    phi: Nonlinearity
    psi: Nonlinearity
    method: str
    formula: closed.Formula = field(repr=False, compare=False)
    both: bool = field(repr=False, compare=False)

    def matrix(self, q1, q2, c, out=None) -> np.ndarray:
        """Return ``E phi(g_i) psi(g'_j)`` for every pair of variances q1[i], q2[j] and covariance c[i, j].

        Args:
            q1: variances, shape (N1,); ``q2``: shape (N2,); not negative, order n^0.
            c: covariances, shape (N1, N2), float32 or float64, at most sqrt(q1 q2) up to rounding.
            out: where to write, c itself if it is no longer needed.

        Returns:
            Shape (N1, N2), of the type of c.

        Raises:
            ProgramError: the shapes do not fit.
        """
        q1, q2, c = _arrays(q1, q2, c)
        out = np.empty_like(c) if out is None else out
        share(lambda rows: self.block(q1[rows, None], q2[None], c[rows], out[rows], None), *c.shape, slow=self._slow)
        return out

    def with_slope(self, q1, q2, c, out=None, slope=None) -> tuple[np.ndarray, np.ndarray]:
        """Return ``E phi(g) psi(g')`` and ``E phi'(g) psi'(g')``, which share their angles and roots.

        Derivatives are those almost everywhere. Arguments and errors as in ``matrix``; ``slope`` is where the second
        result is written, and must not be c.
        """
        q1, q2, c = _arrays(q1, q2, c)
        out = np.empty_like(c) if out is None else out
        slope = np.empty_like(c) if slope is None else slope
        share(lambda rows: self.block(q1[rows, None], q2[None], c[rows], out[rows], slope[rows]),
              *c.shape, slow=self._slow)
        return out, slope

    def diagonal(self, q) -> np.ndarray:
        """Return ``E phi(g) psi(g)``, g of the variances q, shape (N,); what ``matrix`` gives at c = q1 = q2."""
        q = np.asarray(q)
        q = q if q.dtype == np.float32 else q.astype(float)
        out = np.empty((len(q), 1), q.dtype)
        column = q[:, None]
        for rows in blocks(len(q), 1):
            own = column[rows]
            self.block(own, own, own, out[rows], None)
        return out[:, 0]

    @cached_property
    def slope(self) -> Dual | None:
        """The dual of the derivatives; None if one of them is identically zero."""
        first, second = self.phi.partial(), self.psi.partial()
        return None if first is None or second is None else dual(first, second)

    @property
    def _slow(self) -> bool:
        return not isinstance(self.formula, closed.Closed)

    @property
    def pair(self) -> tuple[Dual, Dual | None]:
        """This dual and that of the derivatives."""
        return self, self.slope

    @cached_property
    def homogeneous(self) -> Homogeneous | None:
        """What ``compose`` needs of a homogeneous nonlinearity of degree one; None for others, and for mixed pairs.

        >>> from tensorprog.atoms.registry import nonlinearity
        >>> dual(nonlinearity("abs")).homogeneous, dual(nonlinearity("erf")).homogeneous
        (Homogeneous(second_moment=1.0, bend=2.0), None)
        """
        if self.phi != self.psi or self.phi.degree != 1:
            return None
        up, down = float(self.phi(1.0)), float(self.phi(-1.0))
        return Homogeneous((up * up + down * down) / 2, (up + down) ** 2 / (up * up + down * down))

    def block(self, q1, q2, c, out, slope) -> None:
        """Write into ``out`` and ``slope`` (None: not wanted) in the calling thread.

        q1 is a column and q2 a row; or all of them are columns, one pair a row.
        What the public methods do for each block of rows: a network's layers can be run on one block after the other.
        ``out`` may be c, ``slope`` may not.
        """
        if c.size > LONG:
            for rows, columns in tiles(c.shape[0], c.shape[1], LONG):
                self.block(*(_cut(x, rows, columns) for x in (q1, q2, c, out, slope)))
            return
        with np.errstate(under="ignore"):
            if slope is None or self.both:
                self.formula(q1, q2, c, out, slope)
            else:
                if self.slope is None:
                    slope[...] = 0
                else:
                    self.slope.block(q1, q2, c, slope, None)
                if out is not None:
                    self.formula(q1, q2, c, out, None)
            if slope is not None and self.both and self.slope is not None:
                self.slope._at_zero(q1, q2, slope)
            if out is not None:
                self._at_zero(q1, q2, out)

    def features(self, q: np.ndarray) -> list[np.ndarray] | None:
        """Return what ``tile`` needs of variances (N,), as rows and as columns, (N, k) each.

        None if it cannot be used: some formulas have no such part, and variances of 0, or large ones, need care.
        """
        formula = self.formula
        fit = isinstance(formula, closed.Closed) and q.size and q.min() > 0 and q.max() ** 2 < formula.limit
        return formula.features(q) if isinstance(formula, closed.Closed) and fit else None

    def tile(self, left: np.ndarray, right: np.ndarray, c, out, slope) -> None:
        """Do what ``block`` does, from features; for at most LONG pairs."""
        assert isinstance(self.formula, closed.Closed)
        self.formula.pairs(left, right, c, out, slope, None)

    def _at_zero(self, q1, q2, out) -> None:
        # A Gaussian of variance 0 is 0, where a step has a value of its own, and quadrature has nothing to do.
        for own, other, kind, rest in ((q1, q2, self.phi, self.psi), (q2, q1, self.psi, self.phi)):
            if (0 in kind.jumps or not self.both) and not np.all(own):
                value = kind(0.0)
                means = value * mean(rest, other) if value else np.zeros_like(other)
                np.copyto(out, means.astype(out.dtype), where=own == 0)


def _cut(x, rows: slice, columns: slice):
    if x is None:
        return None
    return x[rows if len(x) > 1 else slice(None), columns if x.shape[1] > 1 else slice(None)]


def _arrays(q1, q2, c):
    c = np.asarray(c)
    c = c if c.dtype == np.float32 else c.astype(float, copy=False)
    q1, q2 = (np.asarray(q).astype(c.dtype, copy=False) for q in (q1, q2))
    if c.shape != (*q1.shape, *q2.shape) or c.ndim != 2:
        raise ProgramError("dual", (q1.shape, q2.shape, c.shape), "variances and covariances do not fit",
                           "give shapes (N1,), (N2,) and (N1, N2)")
    return q1, q2, c


def mean(phi: Nonlinearity, q: np.ndarray) -> np.ndarray:
    """Return ``E phi(sqrt(q) Z)`` for an array of variances of any shape.

    >>> from tensorprog.atoms.registry import nonlinearity
    >>> mean(nonlinearity("step"), np.array([1.0, 4.0, 0.0]))
    array([0.5, 0.5, 0. ])
    """
    from tensorprog.kernels.moments import mean_formula

    return mean_formula(phi)(q)


@lru_cache(maxsize=512)
def dual(phi: Nonlinearity, psi: Nonlinearity | None = None) -> Dual:
    r"""Return the dual activation of phi and psi (phi itself unless given).

    Raises:
        NotCoveredError: a nonlinearity is not defined on the whole real line, or ``E phi(g)^2`` can be infinite.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> float(dual(nonlinearity("erf")).diagonal(np.array([0.5]))[0] * 6).__round__(12)
        2.0
        >>> dual(nonlinearity("log"))
        Traceback (most recent call last):
        tensorprog.errors.NotCoveredError: line E log(g)^2: a Gaussian also takes values where this is not defined ...
    """
    psi = phi if psi is None else psi
    for f in (phi, psi):
        if f.domain != "real":
            raise NotCoveredError(f"E {f.name}(g)^2", f.domain,
                                  "a Gaussian also takes values where this is not defined",
                                  "a nonlinearity on the whole real line")
    if phi == psi and (found := closed.find(phi)):
        return Dual(phi, psi, "closed form", *found)
    from tensorprog.kernels import moments

    return Dual(phi, psi, *moments.find(phi, psi), False)
