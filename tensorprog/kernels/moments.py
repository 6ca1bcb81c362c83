r"""Dual activations in closed form, from the pieces of the records: polynomials, exponentials and gates.

One law of a Gaussian pair, held as arrays over all pairs, and three rules:

* a Gaussian weight on one of them gives another Gaussian law (a step's derivative is the weight of variance 0),
* an exponential moves the means,
* integration by parts, ``E (z - m) f = q1 E d_1 f + c E d_2 f``, lowers a power until only gates are left, whose
  expectation is the distribution function of two Gaussians: an angle if they are centred, else Owen's T function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import Kind, Pieces, piece
from tensorprog.atoms.special import cdf
from tensorprog.errors import NotCoveredError
from tensorprog.kernels.closed import Formula, correlation

Array = Any
Gate = tuple[float, float] | None
ONE = piece(1)


class Law(NamedTuple):
    """Means, variances, covariance and ``gap = q1 q2 - c^2`` of two Gaussians, entry by entry; 0.0 is a zero array."""

    m1: Array
    m2: Array
    q1: Array
    q2: Array
    c: Array
    gap: Array

    def swapped(self) -> Law:
        """Return the law of the two in the other order."""
        return Law(self.m2, self.m1, self.q2, self.q1, self.c, self.gap)

    def weighted(self, t: float, v: float) -> tuple[Array, Law]:
        """Return ``E w(z)`` and the law weighted by w, the density of N(t, v); v = 0 puts z at t.

        >>> mass, law = Law(0.0, 0.0, 1.0, 1.0, 0.5, 0.75).weighted(0.0, 0.0)
        >>> round(float(mass) * math.sqrt(2 * math.pi), 12), law.q1, float(law.q2)
        (1.0, 0.0, 0.75)
        """
        total = np.asarray(v + self.q1, float)
        # Where both variances are 0 the mass is infinite or 0; it only ever meets a factor that is 0 there.
        inverse = np.divide(1, total, out=np.zeros_like(total), where=total != 0)
        off = t - self.m1
        mass = np.sqrt(np.abs(inverse) / (2 * math.pi)) * np.exp(-off * off / 2 * inverse)
        away = not (isinstance(off, float) and off == 0)
        m1 = self.m1 + self.q1 * inverse * off if away else self.m1
        m2 = self.m2 + self.c * inverse * off if away else self.m2
        share = v * inverse
        law = Law(m1, m2, self.q1 * share, (self.q2 * v + self.gap) * inverse, self.c * share, self.gap * share)
        return mass, law if v else law._replace(q1=0.0, c=0.0, gap=0.0)

    def moved(self, a: complex, b: complex) -> tuple[Array, Law]:
        """Return ``E exp(a z + b z')`` and the law weighted by it."""
        p1, p2 = a * self.q1 + b * self.c, a * self.c + b * self.q2
        exponent = a * self.m1 + b * self.m2 + (a * p1 + b * p2) / 2
        return np.exp(exponent), self._replace(m1=self.m1 + p1, m2=self.m2 + p2)


def moment(law: Law, m: int, n: int, first: Gate, second: Gate) -> Array:
    """Return ``E z^m G(z) z'^n H(z')``, the gates G and H given by thresholds and variances.

    >>> pair = Law(0.0, 0.0, 1.0, 1.0, 0.5, 0.75)
    >>> moment(pair, 2, 2, None, None), round(float(moment(pair, 0, 0, (0.0, 0.0), (0.0, 0.0))), 12)
    (1.5, 0.333333333333)
    """
    if not m and not n:
        return _gates(law, first, second)
    if not m:
        return moment(law.swapped(), n, m, second, first)
    total: Array = 0.0
    if not (isinstance(law.m1, float) and law.m1 == 0):
        total = law.m1 * moment(law, m - 1, n, first, second)
    if m > 1:
        total = total + (m - 1) * law.q1 * moment(law, m - 2, n, first, second)
    if n:
        total = total + n * law.c * moment(law, m - 1, n - 1, first, second)
    if first and not (isinstance(law.q1, float) and law.q1 == 0):
        mass, other = law.weighted(*first)
        total = total + law.q1 * mass * moment(other, m - 1, n, None, second)
    if second and not (isinstance(law.c, float) and law.c == 0):
        mass, other = law.swapped().weighted(*second)
        total = total + law.c * mass * moment(other, n, m - 1, None, first)
    return total


def _gates(law: Law, first: Gate, second: Gate) -> Array:
    if not first and not second:
        return 1.0
    if not first or not second:
        mean, q, (t, v) = (law.m1, law.q1, first) if first else (law.m2, law.q2, second or (0.0, 0.0))
        h = mean - t
        if isinstance(h, float) and h == 0:
            return 0.5
        return cdf(_over(np.asarray(h), np.sqrt(v + q)))
    (t1, v1), (t2, v2) = first, second
    h, k = law.m1 - t1, law.m2 - t2
    rest = np.sqrt(v1 * v2 + v1 * law.q2 + v2 * law.q1 + law.gap)
    if all(isinstance(x, float) and x == 0 for x in (h, k)):
        return 0.25 + np.arctan2(law.c, rest) / (2 * math.pi)
    a, b = np.sqrt(v1 + law.q1), np.sqrt(v2 + law.q2)
    return both_below(_over(h, a), _over(k, b), np.sign(law.c), rest / (a * b))


def _over(x: Array, y: Array) -> Array:
    """Return x/y, with 0/0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(x, 0), 0.0, x / y)


def both_below(h: Array, k: Array, sign: Array, s: Array) -> Array:
    """Return the probability that two standard Gaussians are below h and k; their correlation is sign*sqrt(1 - s^2).

    >>> round(float(both_below(np.array(0.0), np.array(0.0), 1.0, math.sqrt(0.75))), 12)
    0.333333333333

    Source: owen1956tables.
    """
    from scipy.special import ndtr, owens_t

    h, k, sign, s = np.broadcast_arrays(h, k, sign, s)
    rho = sign * np.sqrt(np.maximum((1 - s) * (1 + s), 0))
    # k - rho h without cancellation where rho is near sign: 1 - |rho| = s^2/(1 + |rho|).
    small = s * s / (1 + np.abs(rho))
    unit = np.where(sign < 0, -1.0, 1.0)
    up, down = _over(k - unit * h + unit * h * small, h * s), _over(h - unit * k + unit * k * small, k * s)
    apart = (h * k < 0) | ((h * k == 0) & (h + k < 0))
    value = (ndtr(h) + ndtr(k) - apart) / 2 - owens_t(h, up) - owens_t(k, down)
    centred = (h == 0) & (k == 0)
    return np.where(centred, 0.25 + np.arctan2(rho, s) / (2 * math.pi), np.maximum(value, 0)) if centred.any() else \
        np.maximum(value, 0)


def is_closed(a: Pieces | None, b: Pieces | None) -> bool:
    """Return whether the expectation of a product is in reach: one gate each, and none beside waves.

    >>> step, wave = piece(1, gates=[(0, 0)]), piece(1, wave=1)
    >>> is_closed(step, step), is_closed(step, wave), is_closed(step, None)
    (True, False, False)
    """
    if a is None or b is None:
        return False
    kinds = [*a, *b]
    gated, waves = any(k.gates for k in kinds), any(k.wave for k in kinds)
    return all(len(k.gates) <= 1 for k in kinds) and not (gated and waves)


def expectation(a: Pieces, b: Pieces, law: Law, where: str) -> Array:
    """Return ``E a(z) b(z')`` for every pair; raises NotCoveredError where it is infinite."""
    total: Array = 0.0
    for k, coefficients in a.items():
        for m, others in b.items():
            total = total + np.real(_term(k, m, coefficients, others, law, where))
    return total


def _term(k: Kind, other: Kind, coefficients, others, law: Law, where: str) -> Array:
    factor: Array = 2 ** ((k.two + other.two) / 2) * math.pi ** ((k.pi + other.pi) / 2)
    if k.turn + other.turn:
        factor = factor * 1j ** (k.turn + other.turn)
    for quadratic, swap in ((k.quadratic, False), (other.quadratic, True)):
        if quadratic:
            v = float(-1 / (2 * quadratic))
            side = law.swapped() if swap else law
            if v < 0 and not np.all(v + side.q1 < 0):
                raise NotCoveredError(where, float(np.max(side.q1)), "the expectation is infinite at this variance",
                                      f"variances below {-v:g}")
            mass, side = side.weighted(0.0, v)
            law = side.swapped() if swap else side
            factor = factor * mass * math.sqrt(2 * math.pi * abs(v))
    a, b = (complex(float(x.linear), float(x.wave)) if x.wave else float(x.linear) for x in (k, other))
    if a or b:
        mass, law = law.moved(a, b)
        factor = factor * mass
    first, second = (((float(x.gates[0][0]), float(x.gates[0][1])) if x.gates else None) for x in (k, other))
    return factor * sum(float(p * q) * moment(law, m, n, first, second) for m, p in enumerate(coefficients) if p
                        for n, q in enumerate(others) if q)


def find(phi: Nonlinearity, psi: Nonlinearity) -> tuple[str, Formula]:
    """Return the method and the formula of a pair of records; quadrature if their pieces do not tell."""
    a, b = phi.pieces, psi.pieces
    if not is_closed(a, b):
        from tensorprog.kernels import numeric

        return "quadrature", numeric.find(phi, psi)
    assert a is not None and b is not None
    where = f"E {phi.name}(g) {psi.name}(g')"

    off_centre = any(g[0] or k.linear for k in (*a, *b) for g in k.gates) or (
        any(k.linear for k in (*a, *b)) and any(k.gates for k in (*a, *b)))

    def formula(q1, q2, c, out, dot):
        q1, q2, c = (x.astype(float, copy=False) for x in (q1, q2, c))
        rho = correlation(q1, q2, c)
        gap = (1 - rho) * (1 + rho)
        gap *= q1
        gap *= q2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            out[...] = expectation(a, b, Law(0.0, 0.0, q1, q2, c, gap), where)
        if off_centre and (same := np.abs(rho) == 1).any():
            # A threshold seen through a blur of width 0 is on one side by rounding only: one dimension is left.
            from tensorprog.kernels.numeric import line

            first, second = (np.broadcast_to(q, rho.shape)[same] for q in (q1, q2))
            out[same] = line(phi, psi, first, second, rho[same])

    bends = [sum(1 for k in f for g in k.gates if any(g)) for f in (a, b)]
    if off_centre and bends[0] * bends[1] > 1:
        from tensorprog.kernels import numeric

        return "closed form", numeric.flat(formula)
    return "closed form", formula


@cache
def mean_formula(phi: Nonlinearity) -> Callable[[np.ndarray], np.ndarray]:
    """Return ``q -> E phi(sqrt(q) Z)`` for arrays of variances."""
    a = phi.pieces
    if not is_closed(a, ONE):
        from tensorprog.kernels import numeric

        return numeric.mean(phi)
    assert a is not None

    def formula(q):
        own = np.asarray(q, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = expectation(a, ONE, Law(0.0, 0.0, own, 0.0, 0.0, 0.0), f"E {phi.name}(g)")
        value = np.broadcast_to(value, own.shape)
        return np.where(own == 0, phi(0.0), value)

    return formula
