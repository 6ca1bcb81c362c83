"""Expectations over jointly Gaussian numbers by deterministic quadrature, with the error beside the value.

The forms are written in independent standard Gaussians (as many as the covariance has rank), which are integrated one
inside the other by adaptive Gauss-Kronrod panels, split where the integrand is not smooth; all panels of one
generation are evaluated in one call. From rank 4 on: scrambled Sobol points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import combinations, islice, product

import numpy as np

from tensorprog.errors import NoClosedFormError, NotCoveredError

#: The nodes in (0, 1] of the 21-point Kronrod rule, its weights, and those of the 10-point Gauss rule inside it.
_XK = (0.995657163025808080735527280689003, 0.973906528517171720077964012084452, 0.930157491355708226001207180059508,
       0.865063366688984510732096688423493, 0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
       0.562757134668604683339000099272694, 0.433395394129247190799265943165784, 0.294392862701460198131126603103866,
       0.148874338981631210884826001129720, 0.0)
_WK = (0.011694638867371874278064396062192, 0.032558162307964727478818972459390, 0.054755896574351996031381300244580,
       0.075039674810919952767043140916190, 0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
       0.123491976262065851077958109585166, 0.134709217311473325928054001771707, 0.142775938577060080797094273138717,
       0.147739104901338491374841515972068, 0.149445554002916905664936468389821)
_WG = (0.0, 0.066671344308688137593568809893332, 0.0, 0.149451349150580593145863396957658, 0.0,
       0.219086362515982043995534934228163, 0.0, 0.269266719309996355091226921569469, 0.0,
       0.295524224714752870173815619188769, 0.0)
NODES = np.array([-x for x in _XK] + list(_XK[-2::-1]))
KRONROD, GAUSS = (np.array([*w, *w[-2::-1]]) for w in (_WK, _WG))
EPS = float(np.finfo(float).eps)
#: Three nested integrals stop here, relative to E|f|; more would take minutes.
TRIPLE = 1e-8
#: Evaluations in one call (memory), and in all (time).
_CHUNK, _BUDGET, _DEPTH = 1 << 18, 60_000_000, 48
#: Standard Gaussians are looked at up to here, where their density is 1e-314; spacing of the look by rank.
_FAR, _SPACING, _WIDTH = 37.5, {1: 1.0, 2: 1.5, 3: 2.5}, {1: 1.5, 2: 2.0, 3: 3.0}
#: Sobol points of one scramble: from 2^10 to 2^17; independent scrambles.
_SOBOL, _SCRAMBLES = range(10, 18), 16


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, a bound on its error, and where they come from: "quadrature", or "qmc" (95% confidence).

    Example:
        >>> Estimate(0.25, 1e-15, "quadrature").value
        0.25
    """

    value: float
    error: float
    method: str


_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def within(seconds: float | None):
    """Let integrals begun in this block raise NoClosedFormError when the time is over; None: as long as they take.

    Example:
        >>> with within(0):
        ...     expect(np.tanh, [0], [[1]])
        Traceback (most recent call last):
        tensorprog.errors.NoClosedFormError: line E f(l): the integral takes too long (got 'out of time') ...
    """
    end = math.inf if seconds is None else time.monotonic() + seconds
    token = _DEADLINE.set(min(end, _DEADLINE.get()))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def in_time() -> None:
    """Raise NoClosedFormError if the time is over."""
    if time.monotonic() > _DEADLINE.get():
        raise NoClosedFormError("E f(l)", "out of time", "the integral takes too long",
                                "take the sampled limit, or give more time")


def expect(fn: Callable, mean, cov, kinks: Sequence[Sequence[float]] | None = None, tol: float = 1e-12, *,
           seed: int = 0) -> Estimate:
    r"""Return ``E fn(l_1, ..., l_K)`` for jointly Gaussian forms of this mean and covariance.

    Args:
        fn: K arrays of floats of one shape to an array of that shape, entry by entry.
        mean: shape (K,).
        cov: shape (K, K), positive semidefinite; may be degenerate.
        kinks: for each form the values at which the integrand is not smooth in it; unknown ones cost time, not truth.
        tol: the error asked for, relative to ``E |fn|``; rank 3 stops at 1e-8, higher ranks when the points run out.
        seed: of the scrambles, from rank 4 on.

    Returns:
        The value with its error: differences of a Gauss and a Kronrod rule, what lies outside the range that was
        integrated, and rounding; from rank 4 on half the 95% interval over 16 scrambles.

    Raises:
        NotCoveredError: the expectation diverges, overflows double precision, or meets values that are not
            numbers; or the covariance is not one.

    Example:
        >>> relu = lambda x: np.maximum(x, 0)
        >>> r = expect(lambda x, y: relu(x) * relu(y), [0, 0], [[1, 0.5], [0.5, 1]], [(0,), (0,)])
        >>> abs(r.value - (math.sqrt(0.75) + 0.5 * math.acos(-0.5)) / (2 * math.pi)) < 1e-14, r.error < 1e-11
        (True, True)
        >>> expect(lambda x: np.exp(x * x), [0], [[0.5]])
        Traceback (most recent call last):
        tensorprog.errors.NotCoveredError: line E f(l): the expectation diverges, or overflows double precision (...

    Source: piessens1983quadpack (the rule and its error).
    """
    c = np.asarray(cov, float).tolist()
    thresholds = kinks if kinks is not None else [()] * len(c)
    return integrate(fn, mean, factor(c, [bool(k) for k in thresholds], 64 * EPS), thresholds, tol, seed=seed)


def integrate(fn: Callable, mean, root, kinks: Sequence[Sequence[float]], tol: float = 1e-12, *,
              seed: int = 0) -> Estimate:
    """Return ``E fn(mean + root u)`` for independent standard Gaussians u; otherwise like ``expect``.

    A root that was computed to more digits than a covariance in doubles holds is not spoilt by rounding one.

    Example:
        >>> round(integrate(lambda x, y: x * y, [1, 0], [[1], [2]], [(), ()]).value, 12)
        2.0
    """
    m = np.asarray(mean, float)
    thresholds = [tuple(float(t) for t in k) for k in kinks]
    a = np.array(root, float).reshape(len(m), -1)
    a[np.abs(a) < 1e-13 * np.linalg.norm(a, axis=1, keepdims=True)] = 0.0
    rank = a.shape[1]
    with np.errstate(all="ignore"):
        if rank == 0:
            value = float(_values(fn, [np.full(1, x) for x in m])[0])
            return Estimate(_finite(value, value), 0.0, "quadrature")
        if rank > 3:
            return _sobol(fn, m, a, tol, seed)
        return _Nest(fn, m, a, thresholds, max(tol, TRIPLE if rank == 3 else 20 * EPS)).estimate()


def factor(cov: list[list], first: Sequence[bool], tiny) -> list[list]:
    """Return A with ``A A^T = cov``, as many columns as the rank; forms marked ``first`` are its first pivots.

    A form whose variance given the earlier pivots is below ``tiny`` times its own depends on them. Works for floats
    and for mpmath numbers.

    Raises:
        NotCoveredError: the matrix is not symmetric positive semidefinite (up to 1e-7, relatively).
    """
    k = len(cov)
    size = [abs(cov[i][i]) ** 0.5 for i in range(k)]
    if any(not abs(cov[i][j] - cov[j][i]) <= 1e-7 * size[i] * size[j] for i in range(k) for j in range(i)):
        raise _not_a_covariance(cov)
    rest, columns, left = [list(row) for row in cov], [], set(range(k))
    while live := [i for i in left if rest[i][i] > tiny * cov[i][i]]:
        p = max(live, key=lambda i: (bool(first[i]), rest[i][i] / cov[i][i], -i))
        root = rest[p][p] ** 0.5
        column = [rest[i][p] / root if i in left else 0 * root for i in range(k)]
        for i in left:
            for j in left:
                rest[i][j] = rest[i][j] - column[i] * column[j]
        left.remove(p)
        columns.append(column)
    if any(not abs(rest[i][j]) <= 1e-7 * size[i] * size[j] for i in left for j in left):
        raise _not_a_covariance(cov)
    return [[c[i] for c in columns] for i in range(k)]


def _not_a_covariance(cov) -> NotCoveredError:
    return NotCoveredError("E f(l)", [[float(x) for x in row] for row in cov],
                           "this matrix is not symmetric positive semidefinite", "give a covariance")


def _finite(x, value) -> float:
    if not np.all(np.isfinite(x)):
        raise NotCoveredError("E f(l)", value, "the expectation diverges, or overflows double precision",
                              "smaller variances, or an integrand that is a number everywhere")
    return x


def _values(fn, forms) -> np.ndarray:
    in_time()
    y = np.asarray(fn(*forms))
    if np.iscomplexobj(y):
        raise NotCoveredError("E f(l)", y.dtype.name, "the integrand is not real", "take its real part")
    return np.broadcast_to(y.astype(float, copy=False), forms[0].shape)


def probe(fn, m: np.ndarray, a: np.ndarray) -> None:
    """Raise NotCoveredError if ``log |f|`` outgrows ``|u|^2/2`` along a ray, as far as doubles show it."""
    rank = a.shape[1]
    rays = np.array(list(islice(product((0, 1, -1), repeat=min(rank, 3)), 1, None)), float)
    rays = np.pad(rays, ((0, 0), (0, rank - rays.shape[1]))) if rank > 3 else rays
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    t = 2.0 ** (np.arange(-8, 81) / 4)
    u = rays[:, None, :] * t[:, None]
    f = _values(fn, [x + u @ row for x, row in zip(m, a, strict=True)])
    for size, ray in zip(np.log(np.abs(f)), f, strict=True):
        bad = np.flatnonzero(~np.isfinite(ray))
        end = bad[0] - 1 if len(bad) else -1
        if end < 4 or size[end] < 200:
            continue
        power = math.log2(size[end] / max(size[end - 4], 1.0))
        if power > 2.02 or power > 1.98 and size[end] >= t[end] ** 2 / 2:
            _finite(math.inf, float(ray[end]))


class _Nest:
    # Integrals one inside the other over independent standard Gaussians u_0, ..., u_{r-1}; forms m + A u.
    def __init__(self, fn, m, a, kinks, tol):
        self.fn, self.m, self.a, self.kinks, self.rank, self.tol = fn, m, a, kinks, a.shape[1], tol
        self.count = 0
        self.lo, self.hi, self.tail = self.box()

    def estimate(self) -> Estimate:
        # A kink between the end of a panel and the nearest node is seen by neither rule: two meshes do not both miss
        # it, and when they differ a third one decides.
        runs = [self.run(0.0), self.run(0.382)]
        if abs(runs[0][0] - runs[1][0]) > runs[0][1] + runs[1][1] + 8 * EPS * runs[0][2]:
            runs.append(self.run(0.171))
        (v, e, s), (w, f, _) = min(combinations(runs, 2), key=lambda pair: abs(pair[0][0] - pair[1][0]))
        value, error, scale = (v + w) / 2, max(e, f) + abs(v - w), s
        if error > 1e-3 * scale:
            raise NoClosedFormError("E f(l)", value, f"the integrals do not settle (error {error:.1e}): it may diverge",
                                    "name the kinks, or check the integrand")
        return Estimate(value, error + self.tail + 8 * EPS * scale, "quadrature")

    def run(self, shift: float) -> tuple[float, ...]:
        self.base = []
        for lo, hi in zip(self.lo, self.hi, strict=True):
            edges = np.linspace(lo, hi, math.ceil((hi - lo) / _WIDTH[self.rank]) + 1)
            self.base.append(np.unique([lo, hi, *(edges[:-1] + shift * (edges[1] - edges[0]))]))
        self.points = [self._points(d, shift) for d in range(self.rank)]
        value, error, scale = (float(x[0]) for x in self.integral(0, np.zeros((1, 0))))
        return _finite(value + error, value) - error, error, scale

    def box(self):
        # Where |f| times the density is not negligible, seen on a coarse grid that keeps off round numbers.
        probe(self.fn, self.m, self.a)
        step = _SPACING[self.rank]
        axis = np.arange(-_FAR, _FAR, step) + 0.137
        u = np.stack(np.meshgrid(*[axis] * self.rank, indexing="ij"), -1)
        f = _values(self.fn, [x + u @ row for x, row in zip(self.m, self.a, strict=True)])
        size = np.where(np.isfinite(f), np.log(np.abs(f)), -np.inf) - (u * u).sum(-1) / 2
        inside, needed = math.sqrt(-2 * math.log(self.tol)) + 0.6, size > size.max() + math.log(self.tol) - 3
        lo, hi = np.full(self.rank, -inside), np.full(self.rank, inside)
        far = np.zeros_like(needed)
        for d in range(self.rank):
            seen = np.flatnonzero(needed.any(axis=tuple(e for e in range(self.rank) if e != d)))
            if np.isfinite(size.max()) and len(seen):
                if seen[0] == 0 or seen[-1] == len(axis) - 1:
                    _finite(math.inf, float(size.max()))
                lo[d], hi[d] = min(lo[d], axis[seen[0]] - step), max(hi[d], axis[seen[-1]] + step)
            far |= (u[..., d] < lo[d]) | (u[..., d] > hi[d])
        cell = (step / math.sqrt(2 * math.pi)) ** self.rank
        tail = np.exp(np.where(far, size, -np.inf)).sum() * cell
        for d in range(self.rank):
            # Just beyond each face: |f| as on the grid around it (8: a margin for so coarse a look), and the density.
            profile = np.log(np.exp(size).sum(axis=tuple(e for e in range(self.rank) if e != d))) + axis**2 / 2
            for edge in (lo[d], hi[d]):
                i = int(np.clip(np.searchsorted(axis, edge), 1, len(axis) - 1))
                near = profile[i - 1:i + 1]
                level = np.interp(edge, axis[i - 1:i + 1], near) if np.isfinite(near).all() else near.max()
                tail += 8 * np.exp(level - edge**2 / 2) * cell / step / max(abs(edge), 1.0)
        return lo, hi, float(tail)

    def _points(self, d, shift):
        # Points c - q.u (u: the outer Gaussians) that split level d: where a form is at a kink, or at 0 if its own unit
        # of length is short there; panels grow by 6 from that unit, or from the width over which deeper Gaussians blur.
        constant, slopes = [], []

        def add(row, value, offsets):
            for offset in offsets:
                constant.append(value / row[d] + offset)
                slopes.append(row[:d] / row[d])

        for x, row, ks in zip(self.m, self.a, self.kinks, strict=True):
            if row[d] == 0:
                continue
            unit, blur = 1 / abs(row[d]), float(np.linalg.norm(row[d + 1:]) / abs(row[d]))
            for t in {0.0, *ks}:
                known = t in ks
                h = (blur if blur and known else max(unit, blur)) * (1 + shift)
                graded = _graded(h) if not t or len(ks) <= 8 else []
                if graded or (known and not blur):
                    add(row, t - x, [0.0 if known else shift * h, *graded])
        if d == self.rank - 2:
            lines = [(row / row[-1], (t - x) / row[-1]) for x, row, ks in zip(self.m, self.a, self.kinks, strict=True)
                     if row[-1] != 0 for t in ks]
            for (p, s), (q, t) in islice(combinations(lines, 2), 256):
                if abs((p - q)[d]) > 1e-12 * (abs(p[d]) + abs(q[d])):
                    add(p - q, s - t, [0.0])
        return np.array(constant), np.array(slopes).reshape(len(constant), d)

    def integral(self, d: int, u: np.ndarray):
        """Return value, error and integral of |f| over u_d, u_{d+1}, ... for each row of outer Gaussians."""
        base, (constant, slopes) = self.base[d], self.points[d]
        rows = max(1, _CHUNK // (21 * (len(base) + len(constant))))
        if len(u) > rows:
            parts = [self.integral(d, u[i:i + rows]) for i in range(0, len(u), rows)]
            return tuple(np.concatenate(x) for x in zip(*parts, strict=True))
        moving = np.clip(constant - u @ slopes.T, base[0], base[-1])
        edges = np.sort(np.concatenate([np.broadcast_to(base, (len(u), len(base))), moving], axis=1), axis=1)
        own, column = np.nonzero(edges[:, 1:] - edges[:, :-1] > 1e-15)
        left, right = edges[own, column], edges[own, column + 1]
        value, error, scale, parents = (np.zeros(len(u)) for _ in range(4))
        share = self.tol / 10 ** d / 8
        for depth in range(_DEPTH + 1):
            middle, half = (left + right) / 2, (right - left) / 2
            x = middle[:, None] + half[:, None] * NODES
            f, inner, size = self.integrand(d, u, own, x)
            density = np.exp(-x * x / 2) * (half / math.sqrt(2 * math.pi))[:, None]
            f, size = f * density, size * density
            whole, absolute = f @ KRONROD, size @ KRONROD
            spread = np.abs(f - whole[:, None] / 2) @ KRONROD
            off = np.abs(whole - f @ GAUSS)
            off = np.where(off > 0, spread * np.minimum(1, (200 * off / np.where(off > 0, spread, 1)) ** 1.5), 0)
            scale += np.bincount(own, absolute, len(u)) - parents
            done = off <= np.maximum(share * scale[own], 50 * EPS * absolute)
            if depth == _DEPTH or self.count > _BUDGET:
                done[:] = True
            value += np.bincount(own[done], whole[done], len(u))
            error += np.bincount(own[done], off[done] + (0 if inner is None else (inner * density)[done] @ KRONROD),
                                 len(u))
            if done.all():
                break
            own, left, middle, right = (y[~done] for y in (own, left, middle, right))
            parents = np.bincount(own, absolute[~done], len(u))
            own, left, right = np.tile(own, 2), np.concatenate([left, middle]), np.concatenate([middle, right])
        return value, error, scale

    def integrand(self, d, u, own, x):
        if d < self.rank - 1:
            inner = np.concatenate([np.repeat(u[own], x.shape[1], axis=0), x.reshape(-1, 1)], axis=1)
            return (y.reshape(x.shape) for y in self.integral(d + 1, inner))
        start = self.m + u @ self.a[:, :d].T
        forms = [start[own, i, None] + row[d] * x for i, row in enumerate(self.a)]
        self.count += x.size
        f = _values(self.fn, forms)
        if not np.isfinite(f).all():
            where = np.unravel_index(int(np.argmin(np.isfinite(f))), f.shape)
            _finite(f, [float(y[where]) for y in forms])
        return f, None, np.abs(f)


def _graded(h: float) -> list[float]:
    offsets = []
    while h < 0.5:
        offsets += [2 * h, -2 * h]
        h *= 6
    return offsets


def _sobol(fn, m, a, tol, seed) -> Estimate:
    from scipy.special import ndtri
    from scipy.stats import qmc, t

    probe(fn, m, a)
    means: np.ndarray = np.zeros(_SCRAMBLES)
    scale, done = 0.0, 0
    streams = np.random.SeedSequence(seed).spawn(_SCRAMBLES)
    engines = [qmc.Sobol(a.shape[1], scramble=True, rng=np.random.default_rng(s)) for s in streams]
    error = math.inf
    for power in _SOBOL:
        new = 2 ** power - done
        for i, engine in enumerate(engines):
            u = ndtri(np.clip(engine.random(new), EPS / 2, 1 - EPS / 2))
            f = _values(fn, list(m[:, None] + a @ u.T))
            _finite(f, "a value that is not finite")
            means[i] += (f.mean() - means[i]) * new / (done + new)
            scale = max(scale, float(np.abs(f).mean()))
        done += new
        error = float(t.ppf(0.975, _SCRAMBLES - 1) * means.std(ddof=1) / math.sqrt(_SCRAMBLES))
        if error <= tol * scale:
            break
    return Estimate(float(means.mean()), error + 8 * EPS * scale, "qmc")
