"""Spectra from moments: density, support, atoms, cdf and Stieltjes transform, by the best of four methods.

In this order, with the method in the result: point masses, if the moments are those of finitely many; an algebraic
equation found from exact moments (``algebraic``); the continued fraction with its coefficients continued to
infinity, if they settle (one interval, perhaps atoms outside); otherwise only what the moments prove of the cdf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError
from tensorprog.spectra.algebraic import Equation, equation
from tensorprog.spectra.jacobi import Jacobi, jacobi
from tensorprog.spectra.tails import Tail, tail

METHODS = ("atoms", "algebraic", "tail", "quadrature")

#: A spectrum by an equation must give back its moments to this relative accuracy, or rounding has spoiled it.
_CONSISTENT = 1e-6
#: Coefficients settle if they are foretold to this part of the interval's length.
_UNSETTLED = 1e-3
#: Nodes of the cdf's table on an interval, and the end of their range: exp(-pi sinh 4.4) = 1e-56.
_NODES, _END = 801, 4.4
#: What interpolation in that table costs.
_TABLE = 1e-8
#: Lighter atoms outside the interval are artefacts of a truncated continued fraction.
_LIGHT = 1e-7


@dataclass(frozen=True)
class Spectrum:
    """A probability measure on the line, known by its moments.

    Args:
        moments: ``m_0 = 1, m_1, ..., m_K`` as given.
        jacobi: the recurrence coefficients that they determine.
        method: "atoms", "algebraic", "tail" or "quadrature".
        support: the intervals of the continuous part, (low, high) each.
        atoms: point masses, (location, weight) each.
        error: of the cdf, the largest: by rounding if algebraic; estimated by dropping the last coefficients if
            "tail"; proven if "quadrature". What is proven in every case is ``cdf_bounds``.
        reason: why the method was taken, in a sentence.
        equation: the equation of the Stieltjes transform, if "algebraic".
    """

    moments: tuple[Any, ...]
    jacobi: Jacobi
    method: str
    support: tuple[tuple[float, float], ...]
    atoms: tuple[tuple[float, float], ...]
    error: float
    reason: str
    equation: Equation | None = None
    _continuous: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)
    _tables: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def converged(self) -> bool:
        """Whether there is a density; False if the moments prove bounds of the cdf only."""
        return self.method != "quadrature"

    def stieltjes(self, z) -> np.ndarray:
        """Return ``S(z) = integral dmu(x) / (z - x)`` at complex points; on the real axis its limit from above.

        Args:
            z: array of any shape, imaginary parts of either sign.

        Example:
            >>> s = spectrum([1, 0, 1, 0, 2, 0, 5, 0, 14])
            >>> bool(abs(s.stieltjes(2j) - (2j - 8**0.5 * 1j) / 2) < 1e-12)
            True
        """
        z = np.asarray(z, complex)
        below = np.imag(z) < 0
        upper = np.where(below, z.conj(), z).ravel()
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._continuous is None:
                nodes, weights = self.jacobi.gauss()
                found = (weights / (upper[:, None] - nodes)).sum(axis=1)
            else:
                found = sum((w / (upper - x) for x, w in self.atoms), self._continuous(upper))
        found = found.reshape(z.shape)
        return np.where(below, found.conj(), found)

    def density(self, x) -> np.ndarray:
        """Return the density of the continuous part at real points; 0 outside of the support.

        Args:
            x: array of any shape.

        Example:
            >>> spectrum([1, 0, 1, 0, 2, 0, 5, 0, 14]).density([0.0, 1.0, 3.0]).round(9)   # sqrt(4 - x^2) / 2 pi
            array([0.31830989, 0.27566445, 0.        ])
        """
        x = np.asarray(x, float)
        out = np.zeros(x.shape)
        if self._continuous is None:
            for table in self._tables:
                out += table.derivative(x)
            return out
        inside = np.zeros(x.shape, bool)
        for low, high in self.support:
            inside |= (x > low) & (x < high)
        if inside.any():
            value = np.nan_to_num(self._continuous(x[inside] + 0j))
            out[inside] = np.maximum(-np.imag(value) / np.pi, 0.0)
        return out

    def root_density(self, s) -> np.ndarray:
        """Return the density at s of the square root: of singular values, if this is the spectrum of their squares.

        Args:
            s: array of any shape; where s <= 0 the density is 0.

        Example:
            >>> s = spectrum([1, 1, 2, 5, 14, 42, 132, 429, 1430])
            >>> s.root_density([1.0]).round(9)                                           # sqrt(4 - s^2) / pi
            array([0.5513289])
        """
        s = np.asarray(s, float)
        return np.where(s > 0, 2 * s * self.density(s**2), 0.0)

    def cdf(self, x) -> np.ndarray:
        """Return the mass of ``(-infinity, x]`` at real points.

        Args:
            x: array of any shape.

        Example:
            >>> spectrum([1, 0, 1, 0, 2, 0, 5, 0, 14]).cdf([-3.0, 0.0, 2.0]).round(6)
            array([0. , 0.5, 1. ])
        """
        x = np.asarray(x, float)
        out = np.zeros(x.shape)
        for table in self._tables:
            out += table(x)
        for place, weight in self.atoms:
            out += weight * (x >= place)
        return out

    def cdf_bounds(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Return what the moments alone prove of the cdf at x, whatever the measure: see ``Jacobi.cdf_bounds``."""
        return self.jacobi.cdf_bounds(x)

    def __str__(self) -> str:
        parts = [f"[{low:.6g}, {high:.6g}]" for low, high in self.support]
        parts += [f"{weight:.6g} at {place:.6g}" for place, weight in self.atoms]
        return f"spectrum on {', '.join(parts)} ({self.method}; error of the cdf {self.error:.1g})"


def spectrum(moments: Sequence, errors: Sequence | None = None, *, method: str = "auto") -> Spectrum:
    """Return the measure with these moments.

    Args:
        moments: ``m_0 = 1, m_1, ..., m_K``: rationals, exact sympy numbers, or floats.
        errors: bounds of the moments' errors, if they are not exact.
        method: "auto", or one of ``METHODS``.

    Raises:
        NotCoveredError: no probability measure has these moments, a moment is not a number, or the method asked for
            does not apply.

    Example:
        >>> from math import comb
        >>> fuss_catalan = spectrum([Fraction(comb(3 * k, k), 2 * k + 1) for k in range(16)])   # products of two
        >>> print(fuss_catalan.equation, "on", fuss_catalan.support)
        S**3*z**2 - S*z + 1 = 0 on ((0.0, 6.75),)

    Source: bostan2010complete (the equation); vanassche1987asymptotics (the continued fraction's tail).
    """
    if method not in ("auto", *METHODS):
        raise NotCoveredError("spectrum", method, "no such method", "use auto, " + ", ".join(METHODS))
    given, numbers = tuple(moments), [rational(m) for m in moments]
    inexact = errors is not None or any(isinstance(m, float) for m in moments)
    found = jacobi([float(m) if isinstance(m, float) else x for m, x in zip(moments, numbers, strict=True)], errors)
    if not found.a:
        raise NotCoveredError("moments", len(given), "these moments determine nothing", "give more, or more exact ones")
    if found.finite and method in ("auto", "atoms"):
        return _point_masses(given, found)
    reasons = []
    if method in ("auto", "algebraic") and not found.finite:
        exact = not inexact and all(_is_rational(m) for m in moments)
        algebraic = _by_equation(given, found, numbers) if exact else None
        if algebraic is not None:
            return algebraic
        reasons.append("The moments satisfy no algebraic equation of a degree that so many could show." if exact else
                       "The moments are not exact rationals.")
    if method in ("auto", "tail") and not found.finite:
        continued = _by_tail(given, found)
        if isinstance(continued, Spectrum):
            return replace(continued, reason=" ".join([*reasons, continued.reason]))
        reasons.append(continued)
    if method in ("auto", "quadrature"):
        return _by_quadrature(given, found, " ".join(reasons))
    raise NotCoveredError("spectrum", method, " ".join(reasons) or "the moments are not those of this method",
                          'use method="auto"')


def rational(x) -> Fraction:
    """Return an exact number as a rational, irrational ones to 80 digits.

    Raises:
        NotCoveredError: if it has a symbol without a value.
    """
    if isinstance(x, int | float | Fraction):
        return Fraction(x)
    if not getattr(x, "is_number", False):
        raise NotCoveredError("moments", str(x), "this moment is not a number", "substitute numbers for its symbols")
    if x.is_Rational:
        return Fraction(int(x.p), int(x.q))
    return Fraction(str(x.evalf(80)))


def _is_rational(x) -> bool:
    return isinstance(x, int | Fraction) or bool(getattr(x, "is_Rational", False))


# -------------------------------------------------------------------------------------------- the methods


def _point_masses(moments: tuple, found: Jacobi) -> Spectrum:
    nodes, weights = found.gauss()
    atoms = tuple((float(x), float(w)) for x, w in zip(nodes, weights, strict=True))
    return Spectrum(moments, found, "atoms", (), atoms, 1e-14 * len(atoms), "A Hankel determinant vanishes.")


def _by_equation(moments: tuple, found: Jacobi, numbers: Sequence[Fraction]) -> Spectrum | None:
    law = equation(numbers)
    if law is None:
        return None
    points, nodes = law.points(), found.gauss()[0]
    if not points:
        return None
    scale = float(max(*(abs(x) for x in points), np.abs(nodes).max()))

    def full(z):
        with np.errstate(all="ignore"):
            return law.stieltjes(z, scale)

    atoms, rest, mass, hidden = [], law, 1.0, []
    for point in points:
        near = 1e-9 * scale
        seen = float(np.real(1j * near * full(np.array([float(point) + 1j * near]))[0]))
        weight = min([0.0, *law.weights(point)], key=lambda w: abs(float(w) - seen))
        if weight > 0:
            atoms.append((float(point), float(weight)))
            if isinstance(point, Fraction) and isinstance(weight, Fraction):
                rest, mass = rest.without(point, weight), mass - float(weight)
            else:
                hidden.append(atoms[-1])

    def continuous(z):
        with np.errstate(all="ignore"):
            value = rest.stieltjes(z, scale, mass)
            return value - sum((w / (z - x) for x, w in hidden), np.zeros(z.shape))

    edges = [float(x) for x in points]
    edges = [edges[0], *(y for x, y in zip(edges, edges[1:], strict=False) if y - x > 1e-9 * scale)]
    support: list[tuple[float, float]] = []
    tiny = 1e-7 / scale
    for low, high in zip(edges, edges[1:], strict=False):
        inner = low + (high - low) * np.array([0.23, 0.5, 0.81])
        if (-np.imag(continuous(inner + 0j))).min() > tiny:
            # where branches of other sheets meet is no edge
            through = bool(support) and support[-1][1] == low and -np.imag(continuous(np.array([low + 0j])))[0] > tiny
            support[-1:] = [(support[-1][0], high)] if through else [*support[-1:], (low, high)]
    result = Spectrum(moments, found, "algebraic", tuple(support), tuple(atoms), 0.0,
                      f"{law.surplus} moments more than determine the equation agree with it.", law, continuous)
    result, means = _with_tables(result)
    wanted = np.array([1.0, *(float(numbers[k]) for k in (1, 2))])
    error = np.abs(means - wanted).max() / max(1.0, np.abs(wanted).max())
    return replace(result, error=float(max(error, _TABLE))) if error < _CONSISTENT else None


def _by_tail(moments: tuple, found: Jacobi) -> Spectrum | str:
    """Return the spectrum by continued coefficients, or the reason why there is none."""
    if len(found.b) < 5:
        return "So few coefficients do not show whether they settle."
    rule = tail(found)
    if rule.missed > _UNSETTLED:
        return ("The recurrence coefficients do not settle: the support has several intervals, an atom inside, "
                "or more moments are needed.")
    full = _continued(moments, found, rule)
    if isinstance(full, str):
        return full
    errors = []
    for drop in (1, 2):
        less = _continued(moments, Jacobi(found.a[:-drop], found.b[:len(found.a) - drop]), rule)
        if isinstance(less, str):
            return less
        low, high = min(full.support[0][0], less.support[0][0]), max(full.support[0][1], less.support[0][1])
        x = low + (high - low) * np.sin(np.linspace(0.01, np.pi / 2 - 0.01, 201)) ** 2
        errors.append(float(np.abs(full.cdf(x) - less.cdf(x)).max()))
    return replace(full, error=max(_TABLE, abs(full.error), *errors))


def _continued(moments: tuple, found: Jacobi, rule: Tail) -> Spectrum | str:
    a, b, last_a, last_b = rule.continued(found)
    if last_b <= 0 or not (b > 0).all():
        return "The recurrence coefficients do not settle on an interval; more moments are needed."
    low, high = last_a - 2 * last_b, last_a + 2 * last_b

    def continuous(z):
        w = z - last_a
        # the semicircle's transform, with the root that vanishes at infinity
        root = np.sqrt(w - 2 * last_b) * np.sqrt(w + 2 * last_b)
        value = (w - root) / (2 * last_b**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            for k in range(len(a) - 1, -1, -1):
                value = 1 / (z - a[k] - b[k] ** 2 * value)
            return value - sum((w / (z - x) for x, w in atoms), np.zeros(z.shape))

    atoms = _outside(a, b, low, high)
    result = Spectrum(moments, found, "tail", ((float(low), float(high)),), atoms, 0.0,
                      "The recurrence coefficients settle" + (", as at a hard edge at 0." if rule.is_hard else "."),
                      None, continuous)
    result, means = _with_tables(result)
    missing = float(1 - means[0])
    if rule.is_hard and missing > 0:
        # mass so close to a hard edge that the continuation does not resolve where
        result = replace(result, _tables=(*result._tables, lambda x: missing * (x > 0)))
    return replace(result, error=abs(missing))


def _outside(a: np.ndarray, b: np.ndarray, low: float, high: float) -> tuple[tuple[float, float], ...]:
    """Return the atoms outside of the interval to which the coefficients settle: eigenvalues of the Jacobi matrix."""
    from scipy.linalg import eigh_tridiagonal

    margin = 1e-4 * (high - low)
    radius = float(np.abs(a).max() + 2 * b.max()) + 1
    found = []
    for start, end in ((-radius, low - margin), (high + margin, radius)):
        if end <= start:
            continue
        nodes, vectors = eigh_tridiagonal(a, b[:len(a) - 1], select="v", select_range=(start, end))
        found += [(float(x), float(w)) for x, w in zip(nodes, vectors[0] ** 2, strict=True) if w > _LIGHT]
    return tuple(found)


def _by_quadrature(moments: tuple, found: Jacobi, reason: str) -> Spectrum:
    nodes, weights = found.gauss()
    half = (len(nodes) + 1) // 2
    # where the continuous part is, half as many moments allow twice as much mass at a point; at an atom no more
    is_atom = Jacobi(found.a[:half], found.b[:half - 1]).christoffel(nodes) < 1.05 * weights
    atoms = tuple((float(x), float(w)) for x, w in zip(nodes[is_atom], weights[is_atom], strict=True))
    nodes, weights = nodes[~is_atom], weights[~is_atom]
    smooth = len(nodes) > 1
    result = Spectrum(moments, found, "quadrature", ((float(nodes[0]), float(nodes[-1])),) if smooth else (), atoms,
                      float(weights.max(initial=0.0)), (reason + " Density, support and atoms are rough; cdf_bounds "
                                                        "is proven.").strip(), None, None, ())
    return replace(result, _tables=(_Steps(nodes, weights),)) if smooth else result


# ---------------------------------------------------------------------------------------------------- cdfs


def _with_tables(result: Spectrum) -> tuple[Spectrum, np.ndarray]:
    """Return the spectrum with its cdf tabulated, and its mass and first two moments by that table."""
    tables = tuple(_Interval(low, high, result.density) for low, high in result.support)
    means = sum((t.means for t in tables), np.zeros(3))
    for place, weight in result.atoms:
        means = means + weight * float(place) ** np.arange(3)
    return replace(result, _tables=tables), means


class _Interval:
    """The cdf of a density on an interval, by a double exponential change of variables: any integrable edges."""

    def __init__(self, low: float, high: float, density: Callable[[np.ndarray], np.ndarray]):
        from scipy.interpolate import CubicSpline

        self.low, self.high = low, high
        u = np.linspace(-_END, _END, _NODES)
        left, right = (1 / (1 + np.exp(np.minimum(sign * np.pi * np.sinh(u), 700.0))) for sign in (-1, 1))
        x = np.where(u < 0, low + (high - low) * left, high - (high - low) * right)
        slope = (high - low) * left * right * np.pi * np.cosh(u)
        mass = density(x) * slope
        self.means = np.array([(mass * x**k).sum() for k in range(3)]) * (u[1] - u[0])
        self._spline = CubicSpline(u, mass).antiderivative()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logit = np.log(np.clip(x - self.low, 0.0, None)) - np.log(np.clip(self.high - x, 0.0, None))
        u = np.arcsinh(logit / np.pi)
        return self._spline(np.clip(u, -_END, _END))


class _Steps:
    """A smooth monotone cdf through the middles of the steps of a Gauss quadrature."""

    def __init__(self, nodes: np.ndarray, weights: np.ndarray):
        from scipy.interpolate import PchipInterpolator

        self.low, self.high = nodes[0] - (nodes[1] - nodes[0]) / 2, nodes[-1] + (nodes[-1] - nodes[-2]) / 2
        middles = np.cumsum(weights) - weights / 2
        self._cdf = PchipInterpolator([self.low, *nodes, self.high], [0.0, *middles, weights.sum()])
        self._slope = self._cdf.derivative()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._cdf(np.clip(x, self.low, self.high))

    def derivative(self, x: np.ndarray) -> np.ndarray:
        """Return the density."""
        return np.where((x > self.low) & (x < self.high), self._slope(np.clip(x, self.low, self.high)), 0.0)
