r"""Dual activations by quadrature, for records whose pieces give no closed form: tanh, sigmoid, silu, users' own.

Values at fixed variances come from Hermite series (smooth functions of moderate arguments) or from nested
Gauss-Legendre panels that end at kinks and shrink with the blur ``sqrt(1 - rho^2)`` around them. Matrices are read from
interpolants of such values: one function of the angle if all variances agree; else, if nothing bends away from 0,
Chebyshev polynomials in the logarithms of both variances and the angle, an octave at a time. What bends at other
points is integrated for every pair, slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev, legendre

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.kernels.closed import Formula, correlation
from tensorprog.kernels.lookup import Lookup, chebyshev_coefficients, chebyshev_nodes

#: Errors of interpolation, relative to sqrt(E phi^2 E psi^2): what is aimed at, and the last terms of a table in
#: variances and angles that are put up with. The promise is 1e-8.
TOLERANCE, LAST = 1e-10, 2.5e-9
#: Hermite coefficients, and the trapezoidal rules that find them (one is right where two agree halfway).
ORDER, STEPS, REACH, HALFWAY = 2048, (0.02, 0.01), 13.0, 1e-6
#: Chebyshev polynomials for some octaves of variances (tanh and its like are singular a half turn of the logarithm
#: away), and in the angle.
OCTAVES, LOGS, ANGLES = 2, 13, (32, 64, 128, 256)
#: Kinks that nested panels follow; values a panel; evaluations at once.
KINKS, POINTS, CHUNK = 128, 14, 1 << 21
#: Up to this many pairs nested panels are quicker than a table made by them, of what has kinks or variances like these.
FEW, LARGE = 512, 256.0
#: Pairs with variances of their own that are read from a table at once.
COLUMNS = 1024
#: Where panels end around a feature, in units of its width; also in its exponential tails if it is this narrow, since
#: else a panel of length 1 does for them.
GRADES, TAILS, NARROW = (-4.0, -1.5, -0.5, 0.0, 0.5, 1.5, 4.0), (-16.0, -8.0, 8.0, 16.0), 0.25
_X, _W = legendre.leggauss(POINTS)


@lru_cache(maxsize=len(STEPS))
def _hermite(step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points, and normalized Hermite polynomials at them times the density and the step, (points, ORDER)."""
    x = np.arange(-round(REACH / step), round(REACH / step) + 1) * step
    root = np.exp(-x * x / 4) / (2 * math.pi) ** 0.25
    h = np.empty((ORDER, len(x)))
    h[0], h[1] = root, x * root
    for k in range(1, ORDER - 1):
        h[k + 1] = (x * h[k] - math.sqrt(k) * h[k - 1]) / math.sqrt(k + 1)
    return x, (h * (root * step)).T


#: The constant 1, beside which a mean is the expectation of a product.
_ONE = Nonlinearity(name="one", numpy=np.ones_like, slope=None, derivative=None, parity="even", degree=Fraction(0),
                    infinity=Fraction(0), taylor=(True,) + (False,) * 6, sources=("dlmf",))


class Rule:
    """``E phi(s1 X) psi(s2 (X sin t + Y cos t))`` for all combinations of some s1, s2 and t.

    >>> from tensorprog.atoms.registry import nonlinearity
    >>> erf = nonlinearity("erf")
    >>> value = Rule(erf, erf).values(np.array([1.0]), np.array([1.0]), np.array([math.pi / 6]))
    >>> abs(value[0, 0, 0] - 2 / math.pi * math.asin(1 / 3)) < 1e-14
    np.True_
    """

    def __init__(self, phi: Nonlinearity, psi: Nonlinearity):
        self.phi, self.psi = phi, psi
        self.kinks = tuple(sorted({float(k) for f in (phi, psi) for k in (*f.kinks, *f.jumps)}))
        #: Whether rescaling moves no kink.
        self.central = not any(self.kinks)

    def values(self, s1: np.ndarray, s2: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return the values, shape (len(s1), len(s2), len(t))."""
        out, rest = np.empty((len(s1), len(s2), len(t))), np.ones(len(t), bool)
        a, b = (None, None) if self.kinks else (self.coefficients(self.phi, s1), self.coefficients(self.psi, s2))
        if a is not None and b is not None:
            # Coefficients beyond ORDER are small, or their powers of rho are.
            rest = np.abs(np.sin(t)) ** ORDER > (math.inf if a[1] and b[1] else TOLERANCE / 4)
            product = (a[0][:, None] * b[0][None]).reshape(-1, ORDER)
            large = np.abs(product) > 1e-3 * TOLERANCE / ORDER * np.abs(product).max()
            product = product[:, :np.flatnonzero(large.any(0))[-1] + 1]
            powers = np.sin(t[~rest]) ** np.arange(product.shape[1])[:, None]
            out[..., ~rest] = (product @ powers).reshape(len(s1), len(s2), -1)
        if rest.any():
            out[..., rest] = self._values(s1, s2, t[rest])
        return out

    def _values(self, s1: np.ndarray, s2: np.ndarray, t: np.ndarray) -> np.ndarray:
        j, k = (x.ravel() for x in np.meshgrid(np.arange(len(s2)), np.arange(len(t)), indexing="ij"))
        if self.central:
            seen = self.nested(np.broadcast_to(s1, (len(j), len(s1))), s2[j], np.sin(t[k]), np.cos(t[k]))
        else:
            seen = np.stack([self.nested(np.full((len(j), 1), s), s2[j], np.sin(t[k]), np.cos(t[k]))[:, 0]
                             for s in s1], axis=-1)
        return seen.T.reshape(len(s1), len(s2), len(t))

    @staticmethod
    def coefficients(phi: Nonlinearity, s: np.ndarray) -> tuple[np.ndarray, bool] | None:
        """Return the Hermite coefficients of x -> phi(s x), (len(s), ORDER), and whether they say everything.

        None if the trapezoidal rule does not find them.
        """
        for step in STEPS:
            x, weights = _hermite(step)
            seen = np.asarray(phi(s[:, None] * x))
            a = seen @ weights
            size = seen * seen @ (np.exp(-x * x / 2) * (step / math.sqrt(2 * math.pi)))
            off = np.abs(2 * seen[:, ::2] @ weights[::2, :64] - a[:, :64])
            if np.all(off < HALFWAY * np.sqrt(size)[:, None]):  # errors are squared by each halving
                return a, bool(np.all(np.abs(size - (a * a).sum(-1)) < TOLERANCE / 4 * size))  # Parseval, and Cauchy
        return None

    def nested(self, s1: np.ndarray, s2: np.ndarray, rho: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Return values for entries e: s1 (E, A); s2, rho and s = sqrt(1 - rho^2) (E,); shape (E, A).

        With several s1 an entry, they are of one size and nothing bends away from 0.
        """
        step = max(1, CHUNK // 100_000)
        return np.concatenate([self._nested(s1[e], s2[e, None], rho[e, None], np.maximum(s[e, None], 1e-300))
                               for e in (slice(i, i + step) for i in range(0, len(s2), step))])

    def _nested(self, s1, s2, rho, s):
        growths, scale = {self.phi.growth, self.psi.growth}, (float(self.phi.scale), float(self.psi.scale))
        far = 10 + (2 * max(s1.max(), s2.max()) if growths != {"polynomial"} else 0)
        steep, top = np.where(rho < 0, -1, 1) * np.maximum(np.abs(rho), 0.05), s1.max(1, keepdims=True)
        outer, inner = [], []
        for t in {0.0, *self.kinks}:
            at = t / (s2 * steep)
            outer += [(t / top, scale[0] / top), (at, s / steep), (at, scale[1] / (s2 * steep))]
        x, w = _panels([(a[:, 0], b[:, 0]) for a, b in outer], len(s2), far)
        for t in {0.0, *self.kinks}:
            inner.append(((t / s2 - rho * x) / s, scale[1] / (s2 * s)))
        cut = _cuts(inner, x.shape, far).reshape(x.size, -1)
        row, panel = np.nonzero(np.diff(cut))  # many features are out of reach: no panel is left of them
        y, v = _nodes(cut[row, panel, None], cut[row, panel + 1, None])
        centre, width = (np.broadcast_to(z, x.shape).ravel()[row, None] for z in (s2 * rho * x, s2 * s))
        smooth = np.bincount(row, np.sum(self.psi(centre + width * y) * v, -1), x.size).reshape(x.shape)
        return np.einsum("eax,ex->ea", self.phi(s1[..., None] * x[:, None]), smooth * w)


def _cuts(features, shape: tuple[int, ...], far: float) -> np.ndarray:
    # Ends of panels on [-far, far], graded around each (centre, width).
    edges = [np.broadcast_to(x, shape) for x in np.linspace(-far, far, math.ceil(far) + 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b in features:
            edges += [np.broadcast_to(np.nan_to_num(a + b * o), shape) for o in GRADES]
            edges += [np.broadcast_to(np.nan_to_num(a + np.where(np.abs(b) < NARROW, b * o, 0)), shape) for o in TAILS]
    return np.sort(np.clip(np.stack(edges, -1), -far, far), -1)


def _nodes(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Nodes and weights of the standard Gaussian on panels, along a last axis.
    half = (high - low) / 2
    x = low + half * (1 + _X)
    return x, half * _W * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _panels(features, size: int, far: float) -> tuple[np.ndarray, np.ndarray]:
    cut = _cuts(features, (size,), far)
    x, w = _nodes(cut[:, :-1, None], cut[:, 1:, None])
    return x.reshape(size, -1), w.reshape(size, -1)


class Interpolant:
    """The dual activation of two records on whole blocks, from tables of a ``Rule`` that are made when needed."""

    def __init__(self, phi: Nonlinearity, psi: Nonlinearity):
        self.rule, self.where = Rule(phi, psi), f"E {phi.name}(g) {psi.name}(g')"
        self.curve, self.octaves = lru_cache(maxsize=64)(self._curve), lru_cache(maxsize=1024)(self._octaves)

    def __call__(self, q1, q2, c, out, dot):
        """Write the values into ``out``; q1 is a column, q2 a row, or all are columns."""
        q1, q2, c = (x.astype(float, copy=False) for x in (q1, q2, c))
        t = np.arcsin(correlation(q1, q2, c))
        few = c.size <= FEW and (bool(self.rule.kinks) or max(q1.max(initial=0), q2.max(initial=0)) > LARGE)
        if agree(q1) and agree(q2) and not few:
            out[...] = self.curve(_mean(q1), _mean(q2))(t / math.pi + 0.5)
        elif self.rule.central and not few:
            self.by_octaves(q1, q2, t, out)
        else:
            s1, s2, angle = np.broadcast_arrays(np.sqrt(q1), np.sqrt(q2), t)
            angle = angle.ravel()
            out[...] = self.rule.nested(s1.reshape(-1, 1), s2.ravel(), np.sin(angle), np.cos(angle)).reshape(out.shape)

    def _curve(self, q1: float, q2: float) -> Lookup:
        s1, s2 = np.sqrt([[q1], [q2]])
        return Lookup.fit(lambda x: self.rule.values(s1, s2, (x - 0.5) * math.pi)[0, 0], TOLERANCE)

    def by_octaves(self, q1, q2, t, out):
        """Write values from Chebyshev polynomials in the variances' logarithms and the angle."""
        if q2.shape != (1, t.shape[1]):  # pairs one by one, all of them columns
            for part in range(0, len(q1), COLUMNS):
                self.one_by_one(*(x[part:part + COLUMNS, 0] for x in (q1, q2, t, out)))
            return
        (level1, place1), (level2, place2) = (_octave(q.ravel()) for q in (q1, q2))
        basis1, basis2 = (chebyshev.chebvander(x, LOGS - 1) for x in (place1, place2))
        angle = t * (2 / math.pi)
        for i in np.unique(level1):
            rows = np.flatnonzero(level1 == i)
            for j in np.unique(level2):
                columns = np.flatnonzero(level2 == j)
                tensor = self.octaves(int(i), int(j))
                n1, n2, n3 = tensor.shape
                own = np.tensordot(basis1[rows, :n1], tensor, 1)
                cut = np.ix_(rows, columns)
                seen = chebyshev.chebvander(angle[cut], n3 - 1) @ own.transpose(0, 2, 1)
                out[cut] = np.einsum("rcn,cn->rc", seen, basis2[columns, :n2])

    def one_by_one(self, q1, q2, t, out):
        """Do the same for pairs with variances of their own, all of shape (pairs,)."""
        (level1, place1), (level2, place2) = _octave(q1), _octave(q2)
        basis1, basis2 = (chebyshev.chebvander(x, LOGS - 1) for x in (place1, place2))
        for i, j in np.unique(np.stack([level1, level2], 1), axis=0):
            here = np.flatnonzero((level1 == i) & (level2 == j))
            tensor = self.octaves(int(i), int(j))
            n1, n2, n3 = tensor.shape
            own = np.matmul(basis2[here, None, :n2], np.tensordot(basis1[here, :n1], tensor, 1))[:, 0]
            out[here] = np.einsum("nc,nc->n", own, chebyshev.chebvander(t[here] * (2 / math.pi), n3 - 1))

    def _octaves(self, i: int, j: int) -> np.ndarray:
        # Chebyshev coefficients for log2 q1 from OCTAVES i to OCTAVES (i + 1), q2 likewise; (LOGS, LOGS, angles).
        if i > j and self.rule.phi == self.rule.psi:
            return self.octaves(j, i).transpose(1, 0, 2)
        s1, s2 = (2 ** (OCTAVES / 2 * (k + (1 + chebyshev_nodes(LOGS)) / 2)) for k in (i, j))
        tensor, size, worst = np.zeros(0), 0.0, 1.0
        for n in ANGLES:
            a = chebyshev_coefficients(self.rule.values(s1, s2, chebyshev_nodes(n) * (math.pi / 2)))
            tensor = chebyshev_coefficients(chebyshev_coefficients(a.transpose(2, 1, 0)).transpose(0, 2, 1))
            tensor, size = tensor.transpose(1, 2, 0), np.abs(a).max()
            angles = np.abs(tensor[..., -2:]).max() / size
            worst = max(angles, np.abs(tensor[-1:]).max() / size, np.abs(tensor[:, -1:]).max() / size)
            if angles < TOLERANCE:  # more of them would not help
                break
        if not worst < LAST:
            raise NotCoveredError(self.where, worst, "variances and angles are not resolved by a table",
                                  "smaller variances, or a formula with kinks that are named")
        a, b, c = (np.flatnonzero(np.abs(tensor).max(axis) > 0.1 * TOLERANCE * size)[-1] + 1
                   for axis in ((1, 2), (0, 2), (0, 1)))
        return np.ascontiguousarray(tensor[:a, :b, :c])


def agree(q: np.ndarray) -> bool:
    """Return whether all variances are one number, up to rounding."""
    return bool(q.size) and float(np.ptp(q)) <= 1e-14 * float(np.max(q))


def _mean(q: np.ndarray) -> float:
    return float(q.flat[0])


def _octave(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the stretch of octaves that variances are in, and the places in them from -1 to 1."""
    log = np.log2(np.where(q > 0, q, 1)) / OCTAVES
    level = np.floor(log)
    return level.astype(int), 2 * (log - level) - 1


def find(phi: Nonlinearity, psi: Nonlinearity) -> Formula:
    """Return the formula of a pair of records; raises NotCoveredError where quadrature does not help."""
    for f in (phi, psi):
        if f.growth == "faster":
            raise NotCoveredError(f"E {f.name}(g)^2", f.growth, "the expectation is infinite at some variance",
                                  "a nonlinearity that grows at most exponentially")
        if len(f.kinks) > KINKS:
            raise NotCoveredError(f"E {f.name}(g)^2", len(f.kinks), "too many kinks for quadrature",
                                  f"at most {KINKS} of them")
    return _nothing if {phi.parity, psi.parity} == {"even", "odd"} else Interpolant(phi, psi)


def _nothing(q1, q2, c, out, dot) -> None:
    """Write the expectation of an even function times an odd one."""
    out[...] = 0


def flat(formula: Formula) -> Formula:
    """Return a slow formula that reads large blocks of equal variances from a table of itself."""
    @lru_cache(maxsize=64)
    def curve(q1: float, q2: float) -> Lookup:
        def values(x):
            rho = np.sin((x - 0.5) * math.pi)[:, None]
            out = np.empty_like(rho)
            formula(np.full_like(rho, q1), np.full_like(rho, q2), rho * math.sqrt(q1 * q2), out, None)
            return out[:, 0]

        return Lookup.fit(values, TOLERANCE)

    def fast(q1, q2, c, out, dot):
        if c.size >= 4096 and agree(q1) and agree(q2):
            angle = np.arcsin(correlation(*(x.astype(float, copy=False) for x in (q1, q2, c))))
            out[...] = curve(_mean(q1), _mean(q2))(angle / math.pi + 0.5)
        else:
            formula(q1, q2, c, out, dot)

    return fast


def line(phi: Nonlinearity, psi: Nonlinearity, q1: np.ndarray, q2: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return ``E phi(sqrt(q1) Z) psi(sign sqrt(q2) Z)`` for arrays of one dimension: correlations 1 and -1.

    >>> from tensorprog.atoms.registry import nonlinearity
    >>> step = nonlinearity("step")
    >>> one = np.ones(2)
    >>> line(step, step, one, one, np.array([1.0, -1.0])).round(12)
    array([0.5, 0. ])
    """
    a, b = np.sqrt(np.maximum(q1, 1e-300)), sign * np.sqrt(np.maximum(q2, 1e-300))
    far = 10 + (2 * np.max(np.abs([a, b])) if {phi.growth, psi.growth} != {"polynomial"} else 0)
    features = [(float(t) / s, float(f.scale) / np.abs(s)) for f, s in ((phi, a), (psi, b)) for t in {0, *f.kinks}]
    found, rows = [], max(1, CHUNK // (20 * POINTS * len(features)))
    for i in range(0, len(a), rows):
        e = slice(i, i + rows)
        x, w = _panels([(centre[e], width[e]) for centre, width in features], len(a[e]), far)
        found.append(np.sum(phi(a[e, None] * x) * psi(b[e, None] * x) * w, -1))
    return np.concatenate(found) if found else np.zeros(0)


def mean(phi: Nonlinearity) -> Callable[[np.ndarray], np.ndarray]:
    """Return ``q -> E phi(sqrt(q) Z)`` for arrays of variances.

    >>> from tensorprog.atoms.registry import nonlinearity
    >>> mean(nonlinearity("sigmoid"))(np.array([2.0])).round(12)
    array([0.5])
    """
    def formula(q):
        flat = np.asarray(q, float).ravel()
        found = line(phi, _ONE, flat, np.ones_like(flat), np.ones_like(flat))
        return np.where(flat == 0, phi(0.0), found).reshape(np.shape(q))

    return formula
