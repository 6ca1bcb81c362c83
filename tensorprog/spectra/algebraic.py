"""Algebraic spectra: the polynomial equation of a Stieltjes transform, found from exact moments and checked on more.

Free polynomials in Gaussian matrices and diagonals with finitely many values have algebraic Stieltjes transforms. With
enough exact moments the equation is the solution of a linear system in rationals; every moment beyond those
that determine it is a check that a wrong equation does not survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import factorial, gcd, lcm
from typing import Any

import numpy as np

#: An equation is believed if this many moments more than determine it agree with it.
SURPLUS = 4
#: Degrees in the Stieltjes transform that are tried.
_HIGHEST = 8
_PRIME = (1 << 61) - 1


@dataclass(frozen=True)
class Equation:
    """``sum_ij c_ij z^i S^j = 0``, satisfied by the Stieltjes transform ``S(z) = integral dmu(x) / (z - x)``.

    Args:
        coefficients: whole numbers ``c_ij``: row i the power of z, column j the power of S.
        surplus: how many moments beyond those that determine the equation agree with it.
    """

    coefficients: tuple[tuple[int, ...], ...]
    surplus: int

    def expression(self) -> tuple[Any, Any, Any]:
        """Return the polynomial as a sympy expression, and its symbols z and S."""
        import sympy

        z, s = sympy.symbols("z S")
        rows = enumerate(self.coefficients)
        return sympy.Add(*(c * z**i * s**j for i, row in rows for j, c in enumerate(row))), z, s

    def __str__(self) -> str:
        return f"{self.expression()[0]} = 0"

    @cached_property
    def _columns(self) -> list[np.ndarray]:
        """The coefficients of the powers of S, polynomials in z (lowest power first)."""
        return [np.array(column, float) for column in zip(*self.coefficients, strict=True)]

    def roots(self, z: np.ndarray) -> np.ndarray:
        """Return all solutions S at the points z (complex, (k,)): an array (k, degree)."""
        columns = np.stack([np.polynomial.polynomial.polyval(z, c) for c in self._columns], axis=-1)
        degree = columns.shape[-1] - 1
        companion = np.zeros((len(z), degree, degree), complex)
        companion[:, np.arange(1, degree), np.arange(degree - 1)] = 1
        companion[:, :, -1] = -columns[:, :-1] / columns[:, -1:]
        return np.linalg.eigvals(companion)

    def points(self) -> np.ndarray:
        """Return the real points at which the transform may be singular: edges of the support, and atoms; sorted."""
        import sympy

        poly, z, s = self.expression()
        candidates = sympy.discriminant(poly, s) * sympy.LC(poly, s) if sympy.degree(poly, s) > 1 else sympy.LC(poly, s)
        found = []
        for factor, _ in sympy.factor_list(candidates, z)[1]:
            found += [complex(r) for r in sympy.Poly(factor, z).nroots(n=20, maxsteps=200)]
        return np.array(sorted(r.real for r in found if abs(r.imag) < 1e-12 * (1 + abs(r))))

    def residues(self, point: float) -> np.ndarray:
        """Return the weights that an atom at a point can have: positive w such that ``S ~ w / (z - point)``."""
        # coefficients of (z - point)^i S^j; a pole is the side of slope -1 of the Newton polygon
        columns = [np.polynomial.Polynomial(c) for c in self._columns]
        size = max(np.abs(c).max() for c in self._columns) * (1 + abs(point)) ** len(self.coefficients)
        shifted = np.array([[c.deriv(i)(point) / factorial(i) if i else c(point) for c in columns]
                            for i in range(len(self.coefficients))])
        shifted[np.abs(shifted) < 1e-10 * size] = 0
        orders = {(i, j): i - j for (i, j), c in np.ndenumerate(shifted) if c}
        lowest = min(orders.values())
        edge = np.zeros(shifted.shape[1])
        for (i, j), order in orders.items():
            if order == lowest:
                edge[j] += shifted[i, j]
        found = np.polynomial.polynomial.polyroots(np.trim_zeros(edge, "b")) if np.count_nonzero(edge) > 1 else []
        return np.array([w.real for w in found if abs(w.imag) < 1e-9 and w.real > 1e-12])

    def stieltjes(self, z: np.ndarray, scale: float) -> np.ndarray:
        """Return S at points z of the upper half plane, by following the branch ``S ~ 1/z`` down from afar.

        Args:
            z: complex, (k,), imaginary parts >= 0 (0 is the limit from above).
            scale: an upper bound of the absolute values in the support.
        """
        x, ratio = z.real, 0.6
        # as close to the axis as rounding allows; 0 is a floating-point number like no other, and often an edge
        floor = np.maximum(z.imag, np.clip(1e-9 * np.abs(x), 1e-60 * scale, 1e-13 * scale))
        path = np.maximum(floor, 16.0 * scale)
        value = 1 / (x + 1j * path)
        before = value.copy()
        going = np.arange(len(z))
        while len(going):
            here = path[going]
            roots = self.roots(x[going] + 1j * here)
            # the nearest to where a power law leads; the transform of a positive measure is in the lower half plane
            distance = np.abs(roots - before[going, None]) + 2 * np.maximum(roots.imag, 0)
            last = value[going]
            value[going] = roots[np.arange(len(going)), distance.argmin(axis=1)]
            path[going] = lower = np.maximum(floor[going], ratio * here)
            before[going] = value[going] * (value[going] / last) ** (np.log(lower / here) / np.log(ratio))
            going = going[lower < here]
        return value


def equation(moments: Sequence[Fraction]) -> Equation | None:
    """Return the simplest polynomial equation of the Stieltjes transform that all moments satisfy, or None.

    Args:
        moments: ``m_0 = 1, ..., m_K``, exact. An equation with U unknown coefficients needs ``K + 1 >= U - 1 + 4``.

    Example:
        >>> print(equation([1, 0, 1, 0, 2, 0, 5, 0, 14]))
        S**2 - S*z + 1 = 0

    Source: the method of bostan2010complete, section 2 (guessing algebraic equations from series).
    """
    m = [Fraction(x) for x in moments]
    powers: list[list[Fraction]] = [[Fraction(1)] + [Fraction(0)] * (len(m) - 1)]
    for shape in _shapes(len(m)):
        while len(powers) <= max(j for _, j in shape):
            powers.append(_product(powers[-1], m))
        # times a power of t that makes them power series
        low = max(i - j for i, j in shape)
        columns = [[Fraction(0)] * (low - i + j) + powers[j] for i, j in shape]
        known = min(len(c) for c in columns)
        columns = [c[:known] for c in columns]
        if _nullity(columns) == 0:
            continue
        found = _nullspace(columns)
        if len(found) == 1:
            return _equation(shape, found[0], known - len(columns) + 1)
    return None


def _shapes(size: int) -> list[list[tuple[int, int]]]:
    """Return sets of monomials z^i S^j, fewest first: all up to two degrees, or those of t^k m^j, t = 1/z, m = z S."""
    shapes = []
    for j_most in range(1, _HIGHEST + 1):
        for most in range(1, 2 * _HIGHEST):
            if (most + 1) * (j_most + 1) - 1 + SURPLUS <= size:
                pairs = [(i, j) for i in range(most + 1) for j in range(j_most + 1)]
                shapes += [pairs, [(j - k, j) for k, j in pairs]]
    return sorted(shapes, key=lambda s: (len(s), max(j for _, j in s)))


def _product(x: Sequence[Fraction], y: Sequence[Fraction]) -> list[Fraction]:
    return [sum((x[i] * y[k - i] for i in range(k + 1)), Fraction(0)) for k in range(len(x))]


def _nullity(columns: Sequence[Sequence[Fraction]]) -> int:
    """Return the dimension of the kernel modulo a large prime: never too small, and quick."""
    p, kernel = _PRIME, 0
    echelon: list[tuple[int, list[int]]] = []
    for column in columns:
        if any(x.denominator % p == 0 for x in column):
            return 1
        row = [x.numerator * pow(x.denominator, -1, p) % p for x in column]
        for pivot, other in echelon:
            if row[pivot]:
                factor = row[pivot]
                row = [(u - factor * v) % p for u, v in zip(row, other, strict=True)]
        pivot = next((i for i, u in enumerate(row) if u), None)
        if pivot is None:
            kernel += 1
        else:
            inverse = pow(row[pivot], -1, p)
            echelon.append((pivot, [u * inverse % p for u in row]))
    return kernel


def _nullspace(columns: Sequence[Sequence[Fraction]]) -> list[list[Fraction]]:
    from sympy import QQ
    from sympy.polys.matrices import DomainMatrix

    size = (len(columns[0]), len(columns))
    entries = [[QQ(c[k].numerator, c[k].denominator) for c in columns] for k in range(size[0])]
    basis = DomainMatrix(entries, size, QQ).nullspace().to_Matrix().tolist()
    return [[Fraction(int(x.p), int(x.q)) for x in row] for row in basis]


def _equation(shape: Sequence[tuple[int, int]], vector: Sequence[Fraction], surplus: int) -> Equation:
    """Return the polynomial with these coefficients, in whole numbers without a common factor."""
    whole = lcm(*(c.denominator for c in vector))
    terms = {place: int(c * whole) for place, c in zip(shape, vector, strict=True) if c}
    low, common = min(i for i, _ in terms), gcd(*terms.values())
    degree = max(j for _, j in terms)
    common = -common if terms[max(k for k in terms if k[1] == degree)] < 0 else common
    rows = max(i for i, _ in terms) - low + 1
    return Equation(tuple(tuple(terms.get((i + low, j), 0) // common for j in range(degree + 1)) for i in range(rows)),
                    surplus)
