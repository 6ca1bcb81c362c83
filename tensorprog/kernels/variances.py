"""Moments of a nonlinearity of one or two Gaussians of equal variance, derivatives across jumps included.

The pair (u, v) has variance q and correlation c = 1 - e. Near c = 1 what matters is ``E (phi(u) - phi(v))^2 / 2``,
which is computed as such, not as a difference of two covariances.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.special import cdf
from tensorprog.errors import NotCoveredError
from tensorprog.gauss.quadrature import expect

#: Panels of the angle halve towards 0 this often; nodes of each.
_HALVINGS, _NODES = 34, 12
#: Standard Gaussians are integrated up to here; where the product of scales is larger panels are graded.
_FAR, _WIDE = 9.0, 8.0
#: Ends of graded panels in the function's unit of length: beyond some units it is near what it is far away.
_GRADES = np.array([0.75, 1.5, 2.5, 4, 6, 9, 13, 19, 28, 40, 80, 160, 320, 640, 1280])
#: More kinks than this are left to adaptive panels, too.
_MANY = 24
#: Entries of one block of a sum over pairs of jumps.
_BLOCK = 1 << 21


def named(phi: Nonlinearity | str) -> Nonlinearity:
    """Return the record, looked up if it is a name."""
    from tensorprog.atoms.registry import nonlinearity

    return nonlinearity(phi) if isinstance(phi, str) else phi


def is_step(phi: Nonlinearity) -> bool:
    """Return whether the function is constant between its jumps."""
    return phi.slope is None and bool(phi.jumps)


@lru_cache(1024)
def jumps(phi: Nonlinearity) -> tuple[np.ndarray, np.ndarray]:
    """Return where the function jumps, and by how much."""
    at, h = np.array([float(t) for t in phi.jumps]), 1e-7 * float(phi.scale)
    near, far = (phi.numpy(at + d) - phi.numpy(at - d) for d in (h, 2 * h))
    return at, 2 * near - far  # a slope on either side cancels


@lru_cache(1024)
def bends(phi: Nonlinearity) -> tuple[np.ndarray, np.ndarray]:
    """Return where the slope of the function jumps, and by how much.

    >>> [x.tolist() for x in bends(named("abs"))]
    [[0.0], [2.0]]
    """
    at, h = np.array([float(t) for t in phi.kinks if t not in phi.jumps]), 1e-5 * float(phi.scale)
    # second differences of the values: slopes may be differences themselves, blind to kinks
    near, far = ((phi.numpy(at + d) - 2 * phi.numpy(at) + phi.numpy(at - d)) / d for d in (h, 2 * h))
    by = 2 * near - far
    keep = np.abs(by) > 1e-6
    return at[keep], by[keep]


def _kinks(phi: Nonlinearity) -> list[list[float]]:
    return [[float(k) for k in phi.kinks]]


def density(x, variance: float):
    """Return the density of N(0, variance)."""
    return np.exp(-np.square(x) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def second(phi: Nonlinearity, q: float) -> float:
    """Return ``E phi(sqrt(q) Z)^2``.

    >>> round(second(named("relu"), 3.0), 12), round(second(named("quantizer(3)"), 1.0), 12)
    (1.5, 0.61707507745...)
    """
    if is_step(phi) and q > 0:
        at, _ = jumps(phi)
        ends = np.concatenate([[-np.inf], at, [np.inf]])
        inside = np.concatenate([[at[0] - 1], (at[1:] + at[:-1]) / 2, [at[-1] + 1]])
        below = np.where(np.isinf(ends), 0.5 + 0.5 * np.sign(ends), cdf(np.clip(ends, -1e300, 1e300) / math.sqrt(q)))
        return float(phi.numpy(inside) ** 2 @ np.diff(below))
    return expect(lambda x: phi(x) ** 2, [0], [[q]], _kinks(phi)).value


def mean(phi: Nonlinearity, q: float) -> float:
    """Return ``E phi(sqrt(q) Z)``; 0 for odd functions."""
    return 0.0 if phi.parity == "odd" else expect(phi, [0], [[q]], _kinks(phi)).value


def slopes(phi: Nonlinearity, q: float, c: float = 1.0) -> float:
    """Return ``E phi'(u) phi'(v)``, the derivative of ``E phi(u) phi(v)`` by the covariance.

    With jumps h_j at t_j the weak derivative is ``phi' + sum_j h_j delta(x - t_j)``; infinite at c = 1.

    >>> round(slopes(named("sign"), 1.0, 0.5), 12) == round(4 / (2 * math.pi * math.sqrt(0.75)), 12)
    True
    """
    at, by = jumps(phi) if phi.jumps else (np.zeros(0), np.zeros(0))
    if len(at) and abs(c) >= 1:
        return math.inf
    if q == 0:
        if len(at) or 0 in bends(phi)[0]:
            raise NotCoveredError(f"{phi.name}, variance 0", 0.0, "it has no slope at 0", "give a variance > 0")
        return float(np.asarray(phi.slope(np.zeros(1)))[0]) ** 2 if phi.slope is not None else 0.0
    total, slope = 0.0, phi.slope
    if c == 0:  # independent
        smooth = 0.0 if slope is None else expect(slope, [0], [[q]], _kinks(phi)).value
        return (smooth + float(by @ density(at, q))) ** 2
    if slope is not None:
        if c == 1:
            return expect(lambda x: slope(x) ** 2, [0], [[q]], _kinks(phi)).value
        total += _both(lambda u, v: slope(u) * slope(v), phi, q, 1 - c)
        for t, h in zip(at, by, strict=True):
            given = expect(slope, [c * t], [[q * (1 - c * c)]], _kinks(phi)).value
            total += 2 * h * float(density(t, q)) * given
    if len(at):
        total += _pairs(at / math.sqrt(q), by, math.acos(c)) / (2 * math.pi * q * math.sqrt(1 - c * c))
    return total


def curvature(phi: Nonlinearity, q: float) -> float:
    """Return ``E phi''(sqrt(q) Z)^2`` of a function without kinks."""
    slope = phi.partial(0)
    if slope is None or slope.slope is None:
        return 0.0
    bent = slope.slope
    return expect(lambda x: bent(x) ** 2, [0], [[q]], _kinks(phi)).value


def gap(phi: Nonlinearity, q: float, e: float) -> float:
    """Return ``E (phi(u) - phi(v))^2 / 2`` at correlation 1 - e, relatively exact for small e.

    >>> e = 1e-6
    >>> round(gap(named("relu"), 2.0, e) / e, 9), round(1 - 2 * math.sqrt(2) / (3 * math.pi) * math.sqrt(e), 9)
    (0.999699895, 0.999699895)
    """
    if is_step(phi):
        return _step_gap(phi, q, 2 * math.asin(math.sqrt(e / 2)))
    return _both(lambda u, v: (phi(u) - phi(v)) ** 2, phi, q, e) / 2


def _both(fn, phi: Nonlinearity, q: float, e: float) -> float:
    """Return ``E fn(u, v)``; what two rules of fixed nodes do not agree on is left to adaptive ones."""
    if phi.growth == "polynomial":
        wide = q * math.sqrt(e / 2 * (1 - e / 2)) > _WIDE * float(phi.scale) ** 2
        rule = _cut if phi.kinks else _graded if wide else _plane
        coarse, fine = (rule(fn, phi, q, e, n) for n in (_NODES, _NODES + 4))
        # the second term: what rounding leaves of phi(u) - phi(v)
        if abs(coarse - fine) <= (1e-10 + 1e-15 / math.sqrt(e)) * abs(fine):
            return fine
    return expect(fn, [0, 0], [[q, q * (1 - e)], [q * (1 - e), q]], 2 * _kinks(phi)).value


def _plane(fn, phi: Nonlinearity, q: float, e: float, nodes: int) -> float:
    # Panels as wide as the function's unit of length, in the sum and the difference of u and v: they are independent.
    a, b, unit = math.sqrt(q * (1 - e / 2)), math.sqrt(q * e / 2), float(phi.scale)
    (x, w), (y, v) = (_panels(1.5 if s < unit else max(1.5 * unit / s, 0.002), nodes) for s in (a, b))
    return float(w @ fn(a * x[:, None] + b * y, a * x[:, None] - b * y) @ v)


def _cut(fn, phi: Nonlinearity, q: float, e: float, nodes: int) -> float:
    # u first, then v given u, both cut at the kinks; the latter leaves a blur as wide as its spread around them
    s, size = math.sqrt(e * (2 - e)), math.sqrt(q)
    if len(phi.kinks) > _MANY or s == 0:
        return math.nan
    kinks = np.array([float(k) for k in phi.kinks]) / size
    near = s * 2.0 ** np.arange(-1, max(1, math.ceil(math.log2(1 / s))) + 1)
    return _nested(fn, size, e, np.concatenate([kinks, *(k + sign * near for k in kinks for sign in (-1, 1))]), kinks,
                   nodes)


def _graded(fn, phi: Nonlinearity, q: float, e: float, nodes: int) -> float:
    # The same for a function that is only curved around 0.
    size = math.sqrt(q)
    marks = np.concatenate([-_GRADES[::-1], [0.0], _GRADES]) * (float(phi.scale) / size)
    return _nested(fn, size, e, marks, marks, nodes)


def _nested(fn, size: float, e: float, outer: np.ndarray, inner: np.ndarray, nodes: int) -> float:
    # Over x = u/size, then over y of v/size = c x + s y; panels end where x is in ``outer`` and v/size in ``inner``.
    c, s = 1 - e, math.sqrt(e * (2 - e))
    z, weight = np.polynomial.legendre.leggauss(nodes)
    plain = np.linspace(-_FAR, _FAR, 13)
    edges = np.unique(np.clip(np.concatenate([plain, outer]), -_FAR, _FAR))
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + half * (1 + z)).ravel()
    w = (half * weight).ravel() * density(x, 1.0)
    cuts = np.sort(np.concatenate([np.broadcast_to(plain, (len(x), 13)),
                                   np.clip((inner - c * x[:, None]) / s, -_FAR, _FAR)], axis=1), axis=1)
    row, panel = np.nonzero(np.diff(cuts) > 0)
    low, half = cuts[row, panel, None], (cuts[row, panel + 1] - cuts[row, panel])[:, None] / 2
    y = low + half * (1 + z)
    v = (half * weight) * density(y, 1.0)
    u = np.broadcast_to(size * x[row, None], y.shape)
    return float(np.sum(fn(u, u + size * (s * y - e * x[row, None])) * v, axis=1) @ w[row])


@lru_cache(64)
def _panels(width: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(-_FAR, _FAR, math.ceil(2 * _FAR / width) + 1)
    x, w = np.polynomial.legendre.leggauss(nodes)
    half = (edges[1] - edges[0]) / 2
    z = ((edges[1:] + edges[:-1])[:, None] / 2 + half * x).ravel()
    return z, np.tile(half * w, len(edges) - 1) * density(z, 1.0)


def _pairs(x: np.ndarray, h: np.ndarray, angle: float) -> float:
    # sum_jk h_j h_k exp(-(x_j^2 - 2 c x_j x_k + x_k^2) / 2 s^2), c and s the angle's cosine and sine
    c, s2, total = math.cos(angle), math.sin(angle) ** 2, 0.0
    rows = max(1, _BLOCK // len(x))
    for i in range(0, len(x), rows):
        y = x[i:i + rows, None]
        # (x - y)^2 + 2 (1 - c) x y: no cancellation at small angles
        power = np.square(y - x) / (2 * s2) + y * x / (1 + c)
        total += float(h[i:i + rows] @ np.exp(-power) @ h)
    return total


@lru_cache(4096)
def _step_gap(phi: Nonlinearity, q: float, angle: float) -> float:
    # d/dc E phi(u) phi(v) is a sum of densities at pairs of jumps; dc = -sin(a) da takes away its singularity at c = 1
    at, by = jumps(phi)
    x, w = np.polynomial.legendre.leggauss(_NODES)
    ends = [angle * 2.0**-k for k in range(_HALVINGS)] + [0.0]
    total = 0.0
    for hi, lo in zip(ends, ends[1:], strict=False):
        middle, half = (hi + lo) / 2, (hi - lo) / 2
        total += half * sum(float(b) * _pairs(at / math.sqrt(q), by, middle + half * float(a))
                            for a, b in zip(x, w, strict=True))
    return total / (2 * math.pi)
