r"""Dual activations written out: homogeneous functions of degree one, erf, gelu, sin, cos and exp.

Every formula takes a column q1, a row q2, a block c and two arrays to write ``E phi(g) phi(g')`` and
``E phi'(g) phi'(g')`` into (None: not wanted; the first may be c itself). At correlation 1 and -1 they are exact: no
angle is taken of a number that is 1 up to rounding.

What depends on one variance only is worked out beforehand, for whole rows and columns, and as much as can be is a
product of matrices of rank 2 (which takes half the time of a broadcast product); the rest are few, long loops in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearity
from tensorprog.kernels.rows import product, scratch

Formula = Callable[..., None]


class Closed:
    """A formula in two parts: ``sides`` makes features of variances, ``pairs`` the results of features and covariances.

    Args:
        sides: variances (N,) to two lists of 2k numbers or arrays (N,), the features of rows and of columns.
        pairs: writes the results; arguments (left, right, c, out, dot, far), far the variances if they are large.
        limit: a product of variances from which on they are large: then rounding is kept small at some cost.
    """

    def __init__(self, sides: Callable[[np.ndarray], tuple[list, list]], pairs: Formula, limit: float = math.inf):
        self.sides, self.pairs, self.limit = sides, pairs, limit

    def features(self, q: np.ndarray) -> list[np.ndarray]:
        """Return the features of rows and of columns, (N, 2k) each."""
        out = []
        for side in self.sides(q):
            out.append(np.empty((len(q), len(side)), q.dtype))
            for k, x in enumerate(side):
                out[-1][:, k] = x
        return out

    def __call__(self, q1, q2, c, out, dot):
        far = (q1, q2) if q1.size and q2.size and q1.max() * q2.max() >= self.limit else None
        first = self.features(q1.ravel())
        second = first if q1 is q2 else self.features(q2.ravel())
        self.pairs(first[0], second[1], c, out, dot, far)


def outer(left: np.ndarray, right: np.ndarray, k: int, out: np.ndarray) -> np.ndarray:
    """Write the sum of two products of features, from the k-th on, into ``out``: of rows and columns, or one by one."""
    if len(right) == out.shape[1]:
        return product(left[:, k:k + 2], right[:, k:k + 2], out)
    out[:, 0] = np.einsum("nk,nk->n", left[:, k:k + 2], right[:, k:k + 2])
    return out


def correlation(q1: np.ndarray, q2: np.ndarray, c: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return c/sqrt(q1 q2) within [-1, 1]: 0 where a variance is, exactly 1 or -1 where it is that up to rounding.

    >>> correlation(np.array([[0.3], [0.0]]), np.array([[0.3, 0.1]]), np.array([[0.3, 0.1], [0.0, 0.0]]))[:, 0]
    array([1., 0.])
    """
    rho = np.multiply(c, inverse_root(q1), out=out)
    rho *= inverse_root(q2)
    if rho.size:
        near = 1 - 4 * np.finfo(rho.dtype).eps  # two roots, two quotients and two products: 3 eps at most
        if rho.max() > near:
            rho[rho > near] = 1
        if rho.min() < -near:
            rho[rho < -near] = -1
    return rho


def inverse_root(q: np.ndarray) -> np.ndarray:
    """Return 1/sqrt(q), and 0 for q = 0."""
    return np.divide(1, np.sqrt(q), out=np.zeros_like(q), where=q > 0)


def determinant(q1: np.ndarray, q2: np.ndarray, c: np.ndarray, out: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Write q1 q2 - c^2, never negative, into ``out`` and c^2 into ``square``."""
    np.multiply(q1, q2, out=out)
    out -= np.square(c, out=square)
    return np.maximum(out, 0, out=out)


def corner(up: float, down: float) -> Closed:
    r"""Return the dual of ``up*max(x, 0) + down*max(-x, 0)``.

    With t the angle, ``E phi' phi' = (up^2 + down^2)/2 - (up + down)^2 t/(2 pi)``, and
    ``E phi phi = c E phi' phi' + (up + down)^2 sqrt(q1 q2) sin(t)/(2 pi)``.

    Example:
        >>> k = np.empty((1, 1))
        >>> corner(1.0, 0.0)(np.array([[2.0]]), np.array([[2.0]]), np.array([[2.0]]), k, None)
        >>> k
        array([[1.]])

    Source: cho2009kernel, eqs. (5) and (6).
    """
    even, odd = (up * up + down * down) / 2, (up + down) ** 2 / (2 * math.pi)

    def sides(q):
        scaled, size = inverse_root(q), np.sqrt(q)
        return [scaled, 0, odd * size, 0], [scaled, 0, size, 0]

    def pairs(left, right, c, out, dot, far):
        rho, sine, slope = scratch(3, c.shape, c.dtype)
        slope = slope if dot is None else dot
        outer(left, right, 0, rho)
        rho *= c
        # (1 - rho)(1 + rho) keeps its digits where 1 - rho^2 loses them; so the angle and its sine agree.
        np.subtract(1, rho, out=sine)
        sine *= np.add(rho, 1, out=slope)
        flat, tiny = sine.reshape(-1), 8 * np.finfo(c.dtype).eps  # as in ``correlation``
        if flat.size and np.minimum.reduce(flat) < tiny:
            near = np.flatnonzero(flat < tiny)
            flat[near], rho.reshape(-1)[near] = 0, np.copysign(1, rho.reshape(-1)[near])
        np.arccos(rho, out=slope)
        slope *= -odd
        slope += even
        if out is not None:
            np.sqrt(sine, out=sine)
            sine *= outer(left, right, 2, rho)
            np.multiply(slope, c, out=out)
            out += sine

    return Closed(sides, pairs)


def _erf(left, right, c, out, dot, far):
    s, term = scratch(2, c.shape, c.dtype)
    if far is None:
        outer(left, right, 0, s)
        np.multiply(s, c, out=term)
        if out is not None:
            np.arcsin(term, out=out)  # of c/sqrt(ab), the same angle
        if dot is not None:
            np.square(term, out=term)
            np.subtract(1, term, out=term)
            np.divide(s, np.sqrt(term, out=term), out=dot)
    else:
        determinant(far[0], far[1], c, s, term)
        s += far[0] / 2 + 0.25
        s += far[1] / 2
        np.sqrt(s, out=s)
        if out is not None:
            np.arctan(np.divide(c, s, out=out), out=out)
        if dot is not None:
            np.divide(1, s, out=dot)
    for array in (out, dot):
        if array is not None:
            array *= 2 / math.pi


def _erf_sides(q):
    root = 1 / np.sqrt(q + 0.5)
    return [root, 0], [root, 0]


#: The dual of erf: ``(2/pi) arctan(c/s)`` and ``2/(pi s)``, ``s^2 = ab - c^2``, ``a = 1/2 + q1``, ``b = 1/2 + q2``.
#: An arcsine is as exact away from 1: it is off by 1e-16 sqrt(q). Source: williams1997computing, eq. (11).
erf = Closed(_erf_sides, _erf, 1e4)


def _gelu(left, right, c, out, dot, far):
    s, m, ratio, term = scratch(4, c.shape, c.dtype)
    if far is None:
        outer(left, right, 0, s)
        s -= np.square(c, out=m)
    else:
        determinant(far[0], far[1], c, s, m)
        s += 1 + far[0]
        s += far[1]
    np.sqrt(s, out=s)
    np.divide(1, s, out=ratio)
    if dot is not None:
        np.square(ratio, out=dot)
    ratio *= c
    np.arctan(ratio, out=m)
    m *= 1 / (2 * math.pi)
    m += 0.25
    ratio *= 1 / (2 * math.pi)
    if dot is not None:
        dot += outer(left, right, 2, term)
        dot *= ratio
        dot += m
    if out is not None:
        ratio *= outer(left, right, 4, term)
        m += ratio
        np.multiply(m, c, out=out)
        s *= outer(left, right, 6, term)
        out += s


def _gelu_sides(q):
    a = 1 + q
    return ([a, 0, 1 / a, 1, 1 / a, 0, q / a * (1 / (2 * math.pi)), 0], [a, 0, 1, 1 / a, 1 / a, 0, q / a, 0])


#: The dual of gelu, by two integrations by parts. With ``a = 1 + q1``, ``b = 1 + q2``, ``s^2 = ab - c^2`` and
#: ``m = 1/4 + arctan(c/s)/(2 pi)``, ``E phi phi = c (m + c/(2 pi a b s)) + (q1/a)(q2/b) s/(2 pi)`` and, its derivative
#: by c, ``E phi' phi' = m + c/(2 pi s) (1/a + 1/b + 1/s^2)``. No terms cancel, however small the variances.
#: Source: tsuchida2021avoiding.
gelu = Closed(_gelu_sides, _gelu, 1e8)


def exp(q1, q2, c, out, dot):
    """The dual of exp, ``exp((q1 + q2)/2 + c)``, and that of its derivative, the same.

    Source: daniely2016toward.
    """
    value = np.exp(c)
    value *= np.exp(q1 / 2)
    value *= np.exp(q2 / 2)
    for array in (out, dot):
        if array is not None:
            array[...] = value


def wave(odd: bool) -> Formula:
    """Return the dual of sin (odd) or cos: ``exp(-(q1 + q2)/2)`` times sinh(c) or cosh(c), and the other for the slope.

    Differences of exponentials of ``-(q1 + q2)/2 +- c``, which overflow nowhere; sinh is taken where c is small.

    Source: rahimi2007random.
    """
    def formula(q1, q2, c, out, dot):
        centre = -(q1 + q2) / 2
        plus, minus = np.exp(centre + c), np.exp(centre - c)
        even = (plus + minus) / 2
        sine = np.where(np.abs(c) < 1, np.sinh(np.clip(c, -1, 1)) * np.exp(centre), (plus - minus) / 2)
        for array, value in ((out, sine if odd else even), (dot, even if odd else sine)):
            if array is not None:
                array[...] = value

    return formula


def line(q1, q2, c, out, dot):
    """The dual of the identity: c, and 1."""
    if out is not None:
        out[...] = c
    if dot is not None:
        dot[...] = 1


#: By name; homogeneous functions of degree one come by their values at 1 and -1.
NAMED: dict[str, Formula] = {"erf": erf, "gelu": gelu, "exp": exp, "sin": wave(True), "cos": wave(False)}


def find(phi: Nonlinearity) -> tuple[Formula, bool] | None:
    """Return the formula that is written out for this record and whether it gives slopes, None if there is none.

    >>> from tensorprog.atoms.registry import nonlinearity
    >>> [find(nonlinearity(name)) is not None for name in ("relu", "leaky_relu", "erf", "tanh", "step")]
    [True, True, True, False, False]
    >>> find(nonlinearity("gelu").partial())[1]
    False
    """
    if phi.key is None and phi.name in NAMED:
        return NAMED[phi.name], True
    if phi.degree == 1 and phi.domain == "real":
        up, down = (float(phi(x)) for x in (1.0, -1.0))
        return line if up == 1 and up == -down else corner(up, down), True
    parent = NAMED.get(phi.name.removeprefix("d_"))
    if parent and phi.key is None and nonlinearity(phi.name.removeprefix("d_")).partial() == phi:
        return (lambda q1, q2, c, out, dot: parent(q1, q2, c, None, out)), False
    return None
