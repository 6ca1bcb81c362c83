r"""Dual activations written out: homogeneous functions of degree one, erf, gelu, sin, cos and exp.

Every formula takes a column q1, a row q2, a block c and two arrays to write ``E phi(g) phi(g')`` and
``E phi'(g) phi'(g')`` into (None: not wanted; the first may be c itself). At correlation 1 and -1 they are exact: no
angle is taken of a number that is 1 up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearity
from tensorprog.kernels.rows import scratch

#: A product of variances up to which an arcsine loses no digit: it is off by 1e-16 times its root.
FLAT = 1e4
Formula = Callable[..., None]


def correlation(q1: np.ndarray, q2: np.ndarray, c: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return c/sqrt(q1 q2) within [-1, 1]: 0 where a variance is, exactly 1 or -1 where it is that up to rounding.

    >>> correlation(np.array([[0.3], [0.0]]), np.array([[0.3, 0.1]]), np.array([[0.3, 0.1], [0.0, 0.0]]))[:, 0]
    array([1., 0.])
    """
    rho = outer(inverse_root(q1), inverse_root(q2), np.empty_like(c) if out is None else out)
    rho *= c
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


def outer(u: np.ndarray, v: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write u v (a column times a row, or two columns) into ``out``."""
    if out.size < 4096 or len(v) > 1:
        return np.multiply(u, v, out=out)
    # A product of matrices takes half the time of a broadcast one; of rank 2, since for rank 1 it does not.
    left, right = np.zeros((len(u), 2), u.dtype), np.zeros((2, v.shape[1]), v.dtype)
    left[:, :1], right[:1] = u, v
    return np.matmul(left, right, out=out)


def conjugate(a: np.ndarray, b: np.ndarray, c: np.ndarray, out: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Write ``sqrt(a b - c^2)``, for a >= q1 + 1/2 and b >= q2 + 1/2 at least 1/2, into ``out``; spoil ``square``."""
    outer(a, b, out)
    out -= np.multiply(c, c, out=square)
    if out.size and not out.min() >= 0.25:  # rounding, where variances are beyond 1e15
        np.maximum(out, 0.25, out=out)
    return np.sqrt(out, out=out)


def corner(up: float, down: float) -> Formula:
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

    def formula(q1, q2, c, out, dot):
        rho, sine, slope = scratch(3, c.shape, c.dtype)
        slope = slope if dot is None else dot
        correlation(q1, q2, c, rho)
        np.arccos(rho, out=slope)
        slope *= -odd
        slope += even
        if out is not None:
            # (1 - rho)(1 + rho) keeps its digits where 1 - rho^2 loses them; so the angle and its sine agree.
            np.subtract(1, rho, out=sine)
            rho += 1
            sine *= rho
            np.sqrt(sine, out=sine)
            sine *= outer(np.sqrt(q1) * q1.dtype.type(odd), np.sqrt(q2), rho)
            np.multiply(slope, c, out=out)
            out += sine

    return formula


def erf(q1, q2, c, out, dot):
    r"""The dual of erf: ``(2/pi) arctan(c/s)`` and ``2/(pi s)``, ``s^2 = (1/2 + q1)(1/2 + q2) - c^2``.

    >>> k = np.empty((1, 1))
    >>> erf(np.array([[0.5]]), np.array([[0.5]]), np.array([[0.5]]), k, None)
    >>> round(float(k[0, 0]), 12)
    0.333333333333

    Source: williams1997computing, eq. (11).
    """
    s, term = scratch(2, c.shape, c.dtype)
    a, b = q1 + 0.5, q2 + 0.5
    if not c.size or a.max() * b.max() < FLAT:
        outer(1 / np.sqrt(a), 1 / np.sqrt(b), s)
        np.multiply(s, c, out=term)
        if out is not None:
            np.arcsin(term, out=out)  # of c/sqrt(ab), the same angle
        if dot is not None:
            term *= term
            np.sqrt(np.subtract(1, term, out=term), out=term)
            np.divide(s, term, out=dot)
    else:
        conjugate(a, b, c, s, term)
        if out is not None:
            np.arctan(np.divide(c, s, out=out), out=out)
        if dot is not None:
            np.divide(1, s, out=dot)
    for array in (out, dot):
        if array is not None:
            array *= 2 / math.pi


def gelu(q1, q2, c, out, dot):
    r"""The dual of gelu, by two integrations by parts.

    With ``a = 1 + q1``, ``b = 1 + q2``, ``s^2 = ab - c^2`` and ``m = 1/4 + arctan(c/s)/(2 pi)``:
    ``E phi phi = c (m + c/(2 pi a b s)) + (q1/a)(q2/b) s/(2 pi)`` and, its derivative with respect to c,
    ``E phi' phi' = m + c/(2 pi s) (1/a + 1/b + 1/s^2)``. No terms cancel, however small the variances.

    >>> k = np.empty((1, 1))
    >>> gelu(np.array([[0.0]]), np.array([[1.0]]), np.array([[0.0]]), None, k)
    >>> k[0, 0]
    np.float64(0.25)

    Source: tsuchida2021avoiding.
    """
    s, m, ratio, term = scratch(4, c.shape, c.dtype)
    a, b = 1 + q1, 1 + q2
    conjugate(a, b, c, s, m)
    np.divide(c, s, out=ratio)
    np.arctan(ratio, out=m)
    m *= 1 / (2 * math.pi)
    m += 0.25
    ratio *= 1 / (2 * math.pi)
    if dot is not None:
        np.multiply(s, s, out=term)
        np.divide(1, term, out=dot)
        dot += np.add(1 / a, 1 / b, out=term)
        dot *= ratio
        dot += m
    if out is not None:
        ratio *= outer(1 / a, 1 / b, term)
        m += ratio
        np.multiply(m, c, out=out)
        s *= outer(q1 / a * (1 / (2 * math.pi)), q2 / b, term)
        out += s


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
        return lambda q1, q2, c, out, dot: parent(q1, q2, c, None, out), False
    return None
