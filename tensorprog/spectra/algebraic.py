"""Algebraic spectra: the polynomial equation of a Stieltjes transform, found from exact moments and checked on more.

Free polynomials in Gaussian matrices and diagonals with finitely many values have algebraic Stieltjes transforms. With
enough exact moments the equation is the solution of a linear system in rationals; every moment beyond those
that determine it is a check that a wrong equation does not survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import comb, gcd, lcm
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

    def factors(self) -> list[Equation]:
        """Return the equations of the irreducible factors in which S occurs."""
        import sympy

        poly, z, s = self.expression()
        found = []
        for factor, _ in sympy.factor_list(poly, z, s)[1]:
            terms = {(int(i), int(j)): Fraction(int(c)) for (i, j), c in sympy.Poly(factor, z, s).terms()}
            if any(j for _, j in terms):
                found.append(_equation(terms, self.surplus))
        return found

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
        # a leading coefficient that vanishes is a root at infinity
        return np.linalg.eigvals(np.nan_to_num(companion, posinf=1e300, neginf=-1e300))

    def points(self) -> list[Fraction | float]:
        """Return the real points at which the transform may be singular: edges of the support, and atoms; ascending."""
        import sympy

        poly, z, s = self.expression()
        candidates = sympy.discriminant(poly, s) * sympy.LC(poly, s) if sympy.degree(poly, s) > 1 else sympy.LC(poly, s)
        return sorted(_real_roots(candidates, z))

    def weights(self, point: Fraction | float) -> list[Fraction | float]:
        """Return the weights that an atom at a point can have: w in (0, 1] such that ``S ~ w / (z - point)``."""
        import sympy

        # a pole is the side of slope -1 of the Newton polygon of the coefficients of (z - point)^i S^j
        shifted = [_shifted(column, point) for column in zip(*self.coefficients, strict=True)]
        size = max(abs(float(c)) for column in shifted for c in column)
        orders = {(i, j): i - j for j, column in enumerate(shifted) for i, c in enumerate(column)
                  if (c if isinstance(c, Fraction) else abs(c) > 1e-10 * size)}
        lowest = min(orders.values())
        w = sympy.Symbol("w")
        side = sympy.Add(*(sympy.nsimplify(shifted[j][i], rational=True) * w**j
                           for (i, j), order in orders.items() if order == lowest))
        return [x for x in _real_roots(side, w) if 0 < x <= 1]

    def without(self, point: Fraction, weight: Fraction) -> Equation:
        """Return the equation of ``S - weight / (z - point)``: no atom, under which small numbers hide."""
        terms: dict[tuple[int, int], Fraction] = {}
        for j, column in enumerate(zip(*self.coefficients, strict=True)):
            for i, c in enumerate(_shifted(column, point)):
                for k in range(j + 1):
                    place = (i - j + k, k)
                    terms[place] = terms.get(place, Fraction(0)) + c * comb(j, k) * weight ** (j - k)
        terms = {place: c for place, c in terms.items() if c}
        low, high = min(i for i, _ in terms), max(i for i, _ in terms)
        columns = [_shifted([terms.get((i, j), Fraction(0)) for i in range(low, high + 1)], -point)
                   for j in range(max(j for _, j in terms) + 1)]
        return _equation({(i, j): c for j, column in enumerate(columns) for i, c in enumerate(column)}, self.surplus)

    def stieltjes(self, z: np.ndarray, scale: float, mass: float = 1.0) -> np.ndarray:
        """Return S at points z of the upper half plane, by following the branch ``S ~ mass / z`` down from afar.

        Args:
            z: complex, (k,), imaginary parts >= 0 (0 is the limit from above).
            scale: an upper bound of the absolute values in the support.
        """
        x, y, ratio = np.real(z), np.imag(z), 0.6
        # as close to the axis as rounding allows; 0 is a floating-point number like no other, and often an edge
        floor = np.maximum(y, np.clip(1e-9 * np.abs(x), 1e-60 * scale, 1e-13 * scale))
        path = np.maximum(floor, 16.0 * scale)
        value = mass / (x + 1j * path)
        before = value.copy()
        going = np.arange(len(z))
        while len(going):
            here = x[going] + 1j * path[going]
            roots = self.roots(here)
            # the nearest to where a power law leads; the transform of a positive measure is in the lower half plane
            distance = np.abs(roots - before[going, None]) + 2 * np.maximum(np.imag(roots), 0)
            last = value[going]
            value[going] = roots[np.arange(len(going)), distance.argmin(axis=1)]
            lower = np.maximum(floor[going], ratio * path[going])
            there, former = x[going] + 1j * lower, x[going] + 1j * path[going] / ratio
            power = np.log(there / here) / np.log(here / former)
            before[going] = value[going] * np.exp(power * np.log(value[going] / last))
            ended = lower == path[going]
            path[going] = lower
            going = going[~ended]
        return value


def _shifted(column: Sequence, point: Fraction | float) -> list:
    """Return the coefficients of a polynomial in powers of (z - point), exactly if the point is rational."""
    exact = isinstance(point, Fraction)
    out = [Fraction(c) if exact else float(c) for c in column]
    for i in range(len(out)):  # repeated division by z - point
        for k in range(len(out) - 2, i - 1, -1):
            out[k] = out[k] + point * out[k + 1]
    return out


def _real_roots(expression: Any, z: Any) -> list[Fraction | float]:
    """Return the distinct real roots of a polynomial with rational coefficients, rational ones as Fractions."""
    import sympy

    found: list[Fraction | float] = []
    for factor, _ in sympy.factor_list(expression, z)[1]:
        poly = sympy.Poly(factor, z)
        if poly.degree() == 1:
            root = -poly.nth(0) / poly.nth(1)
            found.append(Fraction(int(root.p), int(root.q)))
        elif poly.degree() > 1:
            roots = [complex(r) for r in poly.nroots(n=20, maxsteps=200)]
            found += [r.real for r in roots if abs(r.imag) < 1e-12 * (1 + abs(r))]
    return found


def equation(moments: Sequence[Fraction]) -> Equation | None:
    """Return the simplest polynomial equation of the Stieltjes transform that all moments satisfy, or None.

    Args:
        moments: ``m_0 = 1, ..., m_K``, exact. An equation with U unknown coefficients needs ``K + 1 >= U - 1 + 4``.

    Example:
        >>> print(equation([1, 0, 1, 0, 2, 0, 5, 0, 14]))
        S**2 - S*z + 1 = 0

    Source: bostan2010complete (guessing algebraic equations from series).
    """
    series = _Powers([Fraction(x) for x in moments])
    for shape in _shapes(len(moments)):
        known, columns = series.columns(shape)
        if _nullity(columns) == 0:
            continue
        found = _nullspace(columns)
        if len(found) == 1:
            whole = _equation(dict(zip(shape, found[0], strict=True)), known - len(columns) + 1)
            # times a factor that is small at infinity, a wrong equation would pass
            return next((e for e in whole.factors() if series.satisfy(e)), None)
    return None


class _Powers:
    """Powers of the generating function m(t) = z S, t = 1/z, as far as the moments tell."""

    def __init__(self, moments: list[Fraction]):
        self.powers = [[Fraction(1)] + [Fraction(0)] * (len(moments) - 1), moments]

    def columns(self, shape: Sequence[tuple[int, int]]) -> tuple[int, list[list[Fraction]]]:
        """Return the monomials z^i S^j, times one power of t, as series up to the order to which all are known."""
        while len(self.powers) <= max(j for _, j in shape):
            self.powers.append(_product(self.powers[-1], self.powers[1]))
        low = max(i - j for i, j in shape)
        columns = [[Fraction(0)] * (low - i + j) + self.powers[j] for i, j in shape]
        known = min(len(c) for c, (_, j) in zip(columns, shape, strict=True) if j)
        return known, [(c + [Fraction(0)] * known)[:known] for c in columns]  # z^i alone is known to all orders

    def satisfy(self, law: Equation) -> bool:
        """Return whether the moments satisfy an equation, to the last one."""
        terms = {(i, j): c for i, row in enumerate(law.coefficients) for j, c in enumerate(row) if c}
        known, columns = self.columns(list(terms))
        return not any(sum(c * x[row] for c, x in zip(terms.values(), columns, strict=True)) for row in range(known))


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


def _equation(terms: Mapping[tuple[int, int], Fraction], surplus: int) -> Equation:
    """Return the polynomial ``sum c_ij z^i S^j``, times what makes its coefficients whole without a common factor."""
    terms = {place: c for place, c in terms.items() if c}
    whole = lcm(*(c.denominator for c in terms.values()))
    degree, low = max(j for _, j in terms), min(i for i, _ in terms)
    common = Fraction(gcd(*(int(c * whole) for c in terms.values())), whole)
    common = -common if terms[max(k for k in terms if k[1] == degree)] < 0 else common
    rows = max(i for i, _ in terms) - low + 1
    return Equation(tuple(tuple(int(terms.get((i + low, j), 0) / common) for j in range(degree + 1))
                          for i in range(rows)), surplus)
