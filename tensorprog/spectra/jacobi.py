"""From moments to orthogonal polynomials: the coefficients of their recurrence, exactly, and what these say for sure.

A probability measure with moments ``m_0 = 1, m_1, ...`` has monic orthogonal polynomials with
``p_{k+1}(x) = (x - a_k) p_k(x) - b_k p_{k-1}(x)``, and its Stieltjes transform is the continued fraction
``1/(z - a_0 - b_1/(z - a_1 - b_2/(...)))``. Moments are exponentially ill-conditioned, hence rationals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tensorprog.errors import NotCoveredError

#: Coefficients from inexact moments are kept while their error stays below this part of their scale.
_TRUSTED = Fraction(1, 100)


@dataclass(frozen=True)
class Jacobi:
    """The coefficients of the three-term recurrence of a measure's orthogonal polynomials.

    Args:
        a: ``a_0, a_1, ...``, the diagonal of the Jacobi matrix.
        b: ``b_1, b_2, ...``, the squares of the entries beside it; as many as ``a``, or one less.
        finite: whether the measure is known to be a sum of ``len(a)`` point masses (the next b is exactly 0).
    """

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]
    finite: bool = False

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal and the off-diagonal of the Jacobi matrix, floats."""
        return np.array([float(x) for x in self.a]), np.sqrt([float(x) for x in self.b[:len(self.a) - 1]])

    def gauss(self) -> tuple[np.ndarray, np.ndarray]:
        """Return nodes and weights of the Gauss quadrature: ``len(a)`` nodes, exact for all moments that are known.

        Example:
            >>> nodes, weights = jacobi([1, 0, 1, 0, 2, 0]).gauss()
            >>> [round(float(x @ weights), 12) + 0.0 for x in (nodes**2, nodes**4)]
            [1.0, 2.0]
        """
        from scipy.linalg import eigh_tridiagonal

        nodes, vectors = eigh_tridiagonal(*self.matrix())
        return nodes, vectors[0] ** 2

    def christoffel(self, x) -> np.ndarray:
        r"""Return ``1 / sum_k p_k(x)^2`` (orthonormal): no measure with these moments has more mass at the point x.

        Args:
            x: an array of any shape.

        Source: akhiezer1965classical, chapter 2.
        """
        x = np.asarray(x, float)
        a, b = self.matrix()
        previous, current, total = np.zeros_like(x), np.ones_like(x), np.ones_like(x)
        for k in range(len(b)):
            previous, current = current, ((x - a[k]) * current - (b[k - 1] if k else 0.0) * previous) / b[k]
            total = total + current**2
        return 1 / total

    def cdf_bounds(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Return what the moments prove of the cdf at x: lower and upper bounds (Chebyshev, Markov, Stieltjes).

        The quadrature that has x among its nodes bounds the mass below x from below without x, from above with it.

        Args:
            x: an array of any shape.

        Example:
            >>> low, high = jacobi([1, 0, 1, 0, 2, 0, 5, 0]).cdf_bounds([0.0])
            >>> bool(low[0] <= 0.5 <= high[0])
            True

        Source: akhiezer1965classical, chapter 2.
        """
        from scipy.linalg import eigh_tridiagonal

        x = np.asarray(x, float)
        a, b = self.matrix()
        low, high = np.empty(x.shape), np.empty(x.shape)
        for i, point in np.ndenumerate(x):
            # the last diagonal entry that makes the point an eigenvalue; without a last row, if it is one already
            ratio = 0.0
            for k in range(len(b)):
                pivot = point - a[k] - ratio
                ratio = b[k] ** 2 / (pivot if pivot else 1e-300)
            known = bool(len(b)) and abs(ratio) > 1e12 * (abs(a).max() + b.max())
            diagonal = a[:-1] if known else np.append(a[:-1], point - ratio)
            nodes, vectors = eigh_tridiagonal(diagonal, b[:len(diagonal) - 1])
            weights, own = vectors[0] ** 2, int(np.argmin(np.abs(nodes - point)))
            low[i], high[i] = weights[:own].sum(), weights[:own + 1].sum()
        return low, high


def jacobi(moments: Sequence, errors: Sequence | None = None) -> Jacobi:
    """Return the recurrence coefficients of the measure with these moments, by Chebyshev's algorithm in rationals.

    Args:
        moments: ``m_0 = 1, m_1, ..., m_K``: rationals, or floats (exact to rounding).
        errors: bounds of their errors, one each; coefficients are given as far as these determine them to 1%.

    Returns:
        ``Jacobi`` with ``a_0 ... a_{N-1}`` for ``K = 2N - 1``, and ``b_N`` too for ``K = 2N``.

    Raises:
        NotCoveredError: no probability measure has these moments.

    Example:
        >>> jacobi([1, 0, 1, 0, 2, 0, 5]).b                     # the semicircle's are constant
        (Fraction(1, 1), Fraction(1, 1), Fraction(1, 1))
        >>> jacobi([1, 0, -1])
        Traceback (most recent call last):
        tensorprog.errors.NotCoveredError: line moments: no measure has these moments: ...

    Source: gautschi2004orthogonal, section 2.1.
    """
    exact = [Fraction(m) for m in moments]
    if not exact or exact[0] != 1:
        raise NotCoveredError("moments", str(moments[0]) if exact else "none", "the moments of a probability measure "
                              "start with m_0 = 1", "put 1 in front")
    bounds = [Fraction(e) for e in errors] if errors is not None else [
        abs(x) / 2**52 if isinstance(m, float) else Fraction(0) for m, x in zip(moments, exact, strict=True)]
    if not any(bounds):
        return _chebyshev(exact)
    signs = np.random.default_rng(0).choice([-1, 1], (6, len(exact)))
    signs[:, 0] = 0  # m_0 is 1
    moved = [[m + int(s) * e for m, s, e in zip(exact, row, bounds, strict=True)] for row in signs]
    return _as_far_as_known(_chebyshev(exact, strict=False), [_chebyshev(m, strict=False) for m in moved])


def _chebyshev(m: Sequence[Fraction], *, strict: bool = True) -> Jacobi:
    if len(m) < 2:
        return Jacobi((), ())
    a, b = [m[1]], []
    before, row, norm = [Fraction(0)] * len(m), list(m), Fraction(1)
    for k in range(1, len(m) // 2 + 1):
        # row[l] = E[p_k(x) x^l]; it vanishes for l < k
        shift = b[-1] if b else Fraction(0)
        before, row = row, [row[i + 1] - a[-1] * row[i] - shift * before[i] for i in range(len(row) - 1)]
        if len(row) <= k:
            break
        if row[k] <= 0:
            if row[k] == 0 and not any(row[k:]):
                return Jacobi(tuple(a), tuple(b), finite=True)
            if strict:
                raise NotCoveredError("moments", str(row[k]), f"no measure has these moments: a Hankel determinant of "
                                      f"order {k + 1} is not positive", "check the moments")
            break
        b.append(row[k] / norm)
        if len(row) > k + 1:
            a.append(row[k + 1] / row[k] - before[k] / norm)
        norm = row[k]
    return Jacobi(tuple(a), tuple(b))


def _as_far_as_known(center: Jacobi, others: Sequence[Jacobi]) -> Jacobi:
    """Keep the coefficients on which perturbed moments agree."""

    def known(column, scale) -> int:
        rows = [column(j) for j in (center, *others)]
        for k in range(len(rows[0])):
            if any(len(r) <= k or abs(r[k] - rows[0][k]) > _TRUSTED * scale(k) for r in rows):
                return k
        return len(rows[0])

    b = known(lambda j: j.b, lambda k: center.b[k])
    a = known(lambda j: j.a, lambda k: max(center.b[:k + 1]) ** Fraction(1, 2) if center.b else abs(center.a[0]) or 1)
    size = min(a, b + 1)
    return Jacobi(center.a[:size], center.b[:min(b, size)])
