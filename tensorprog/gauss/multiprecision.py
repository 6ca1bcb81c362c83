"""Expectations over one or two Gaussians to any number of digits.

Smooth integrals by the trapezoidal rule, which converges geometrically against a Gaussian; others by Gauss-Legendre
panels between the kinks. The rules are refined until two of them agree.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.quadrature import factor, in_time

#: A refinement takes this many times the points; a rule's error is the last difference to this power (less a margin).
_FINER, _POWER, _ROUNDS = 1.45, 1.35, {1: 15, 2: 8}
_LN10 = math.log(10)


def expect(factors, mean, cov, kinks, n: int, *, name: str = "E f(l)"):
    """Return E of a product of functions of jointly Gaussian forms to n digits, relative to E|f| / 10^5 at worst.

    Args:
        factors: pairs (indices of forms, function of these mpmath numbers).
        mean: one mpmath number for each form.
        cov: rows of mpmath numbers; of rank at most 2.
        kinks: for each form the values at which the product is not smooth in it.
        n: digits; the working precision of mpmath must exceed it by 10.
        name: for messages.

    Raises:
        NotCoveredError: the expectation diverges, the values are not numbers, or the digits are not reached.

    Example:
        >>> import mpmath
        >>> with mpmath.workdps(40):
        ...     v = expect([((0,), mpmath.cos)], [mpmath.mpf(0)], [[mpmath.mpf(2)]], [()], 30)
        ...     abs(v - mpmath.exp(-1)) < 1e-30
        True
    """
    import mpmath

    a = factor(cov, [bool(k) for k in kinks], mpmath.mpf(10) ** -(n + 4))
    rank = len(a[0])
    if rank > 2:
        raise NotCoveredError(name, rank, "more than two Gaussians are not integrated to many digits", "use estimate()")
    nested = _Rule(factors, mean, a, kinks, n, name)
    if rank == 0:
        return nested.product(mean, factors)
    rule = (_Grid.of(factors, mean, cov, kinks, n, name) if rank == 2 else None) or nested
    rule.box()
    before: Any = None
    for i in range(_ROUNDS[rank]):
        value, size = rule.outer(_FINER ** i)
        if size == 0:
            return value
        if before is not None:
            gap = abs(value - before) / size
            if size * gap ** _POWER <= mpmath.mpf(10) ** -n * max(abs(value), size / 10**5):
                return value
        before = value
    raise NotCoveredError(name, float(before), f"{n} digits are not reached", "ask for fewer digits, or use estimate()")


@lru_cache(64)
def legendre(m: int, bits: int):
    """Return nodes and weights of the m-point Gauss-Legendre rule on (-1, 1) at this precision.

    >>> [float(x) for x in legendre(2, 53)[0]], [float(w) for w in legendre(2, 53)[1]]
    ([-0.5773502691896..., 0.5773502691896...], [1.0, 1.0])
    """
    import mpmath

    with mpmath.workprec(bits + 10):
        half = []
        for i in range((m + 1) // 2):
            x = mpmath.mpf(-math.cos(math.pi * (i + 0.75) / (m + 0.5)))
            for _ in range(60):
                p, q = mpmath.mpf(1), x
                for k in range(2, m + 1):
                    p, q = q, ((2 * k - 1) * x * q - (k - 1) * p) / k
                slope = m * (x * q - p) / (x * x - 1)
                step = q / slope
                x -= step
                if abs(step) < mpmath.mpf(2) ** -(bits // 2 + 10):
                    break
            p, q = mpmath.mpf(1), x
            for k in range(2, m + 1):
                p, q = q, ((2 * k - 1) * x * q - (k - 1) * p) / k
            slope = m * (x * q - p) / (x * x - 1)
            half.append((x, 2 / ((1 - x * x) * slope * slope)))
    rest = [(-x, w) for x, w in reversed(half[:m // 2])]
    return tuple(x for x, _ in half + rest), tuple(w for _, w in half + rest)


def _step(n: int, unit: float) -> float:
    # The trapezoidal rule's first step: poles at a distance of 1.5 units leave exp(-2 pi 1.5 unit/h).
    return 2.1 * math.pi * min(unit * 1.5, 2.0) * _POWER / (n * _LN10)


def _pieces(lo, hi, cuts, n: int, fine: float, width: float = 3.0):
    """Return (first, step, count, weight): nodes in arithmetic progressions, one for each node of equal panels."""
    import mpmath

    edges = sorted({lo, hi, *(c for c in cuts if lo < c < hi)})
    rule = list(zip(*legendre(math.ceil((0.62 * n + 6) * fine / _POWER), mpmath.mp.prec), strict=True))
    found = []
    for left, right in zip(edges, edges[1:], strict=False):
        count = max(1, math.ceil((right - left) / width))
        half = (right - left) / (2 * count)
        found += [(left + half * (1 + y), 2 * half, count, v * half) for y, v in rule]
    return found


def _panels(lo, hi, cuts, n: int, fine: float, width: float = 3.0):
    return [(first + i * step, w) for first, step, count, w in _pieces(lo, hi, cuts, n, fine, width)
            for i in range(count)]


class _Grid:
    # E F(x) G(y) on a grid in x and y themselves (standardized, correlation r): F and G are evaluated on the axes only,
    # and on equidistant y the density is a power of one number, so the inner sum is a polynomial (Horner).
    def __init__(self, sides, r, kinks, units, n, name):
        import mpmath

        self.mp, self.sides, self.r, self.kinks, self.units, self.n, self.name = mpmath, sides, r, kinks, units, n, name
        self.rest = 1 - r * r

    @classmethod
    def of(cls, factors, mean, cov, kinks, n, name):
        """Return the rule if the product is of this kind, else None."""
        import mpmath

        groups: dict[int, list] = {}
        for used, f in factors:
            if len(used) != 1:
                return None
            groups.setdefault(used[0], []).append(f)
        if len(groups) != 2:
            return None
        i, j = sorted(groups, key=lambda k: -len(kinks[k]))
        roots = [mpmath.sqrt(cov[k][k]) for k in (i, j)]
        r, units = cov[i][j] / roots[0] / roots[1], [float(1 / s) for s in roots]
        if units[1] < 0.1 or abs(r) > (0.95 if kinks[j] else 0.999):
            return None

        def side(k, s):
            def value(x):
                total = mpmath.mpf(1)
                for f in groups[k]:
                    total *= f(mean[k] + s * x)
                return _real(total, name)
            return value

        at = [[(t - mean[k]) / s for t in kinks[k]] for k, s in zip((i, j), roots, strict=True)]
        return cls((side(i, roots[0]), side(j, roots[1])), r, at, units, n, name)

    def box(self):
        mp, needed = self.mp, self.n * _LN10 + 8
        inside = math.sqrt(2 * needed)
        axis, flat = _axis(inside, 1.0)
        sizes = []
        for f in self.sides:
            y = [f(mp.mpf(x)) for x in axis]
            sizes.append(np.array([float(mp.log(abs(v))) if v else -math.inf for v in y]))
        x, r, rest = np.array(axis), float(self.r), float(self.rest)
        density = -(x[:, None] ** 2 - 2 * r * x[:, None] * x + x**2) / (2 * rest) - math.log(2 * math.pi * rest**0.5)
        size = sizes[0][:, None] + sizes[1] + density
        top = max(float(size.max()), -needed)
        self.size = mp.exp(top) * float(np.exp(size - top)[flat][:, flat].sum())
        self.ends = []
        for seen in ((size > top - needed).any(axis=1), (size > top - needed).any(axis=0)):
            if seen[~flat].any():
                raise _diverges(self.name, top)
            near = x[seen] if seen.any() else np.zeros(1)
            self.ends.append((mp.mpf(min(-inside, near.min() - 1)), mp.mpf(max(inside, near.max() + 1))))

    def outer(self, fine):
        # The numbers of the inner loop are bare tuples, with which mpmath is twice as fast.
        from mpmath.libmp import fzero, mpf_add, mpf_mul

        mp, (lo, hi), (f, g) = self.mp, self.ends[1], self.sides
        sigma = float(mp.sqrt(self.rest))
        if self.kinks[1]:
            runs = _pieces(lo, hi, self.kinks[1], self.n, fine, 3 * sigma)
        else:
            steep = 2 * math.pi * sigma / math.sqrt(2 * self.n * _LN10)
            h = mp.mpf(min(_step(self.n, self.units[1]), steep) / fine)
            first, last = int(mp.floor(lo / h)), int(mp.ceil(hi / h))
            runs = [(first * h, h, last - first + 1, h)]
        columns = []
        for start, step, count, weight in runs:
            ys = [start + k * step for k in reversed(range(count))]
            columns.append((start, step, [(weight * g(y) * mp.exp(-y * y / (2 * self.rest)))._mpf_ for y in ys]))
        lo, hi = self.ends[0]
        if self.kinks[0] or self.units[0] < 0.1:
            unit = self.units[0]
            graded = [mp.mpf(s * 4.0**k * unit) for s in (-1, 1) for k in range(9) if unit < 0.3 and 4.0**k * unit < 1]
            xs = _panels(lo, hi, self.kinks[0] + graded, self.n, fine, 3 * (sigma if self.kinks[1] else 1))
        else:
            step = mp.mpf(_step(self.n, self.units[0]) / fine)
            xs = [(k * step, step) for k in range(int(mp.floor(lo / step)), int(mp.ceil(hi / step)) + 1)]
        total, bits = mp.mpf(0), mp.mp.prec
        for x, weight in xs:
            front = f(x)
            if not front:
                continue
            slope, line, before, t = self.r * x / self.rest, mp.mpf(0), None, fzero
            for start, step, column in columns:
                if step != before:
                    before, t = step, mp.exp(slope * step)._mpf_
                inner = fzero
                for b in column:
                    inner = mpf_add(mpf_mul(inner, t, bits), b, bits)
                line += mp.mp.make_mpf(inner) * mp.exp(slope * start)
            total += weight * front * line * mp.exp(-x * x / (2 * self.rest))
        return total / (2 * mp.pi * mp.sqrt(self.rest)), self.size


def _axis(inside: float, step: float):
    # Points that keep off round numbers, to three times the range of a bounded integrand; then some far away. The mask
    # tells those that may matter: not the ends, and none of the far ones.
    count = int((3 * inside + 10) / step)
    near = [0.137 + step * i for i in range(-count, count + 1)]
    axis = [-8 * near[-1], -1.3 * near[-1], *near, 1.3 * near[-1], 8 * near[-1]]
    flat = np.zeros(len(axis), bool)
    flat[4:-4] = True
    return axis, flat


def _real(x, name):
    import mpmath

    in_time()
    if isinstance(x, mpmath.mpc) or not mpmath.isfinite(x):
        raise NotCoveredError(name, str(x), "the integrand is not a real number there", "check its domain")
    return x


def _diverges(name, top) -> NotCoveredError:
    return NotCoveredError(name, top, "the expectation diverges", "smaller variances")


class _Rule:
    def __init__(self, factors, mean, a, kinks, n, name):
        import mpmath

        self.mp, self.m, self.a, self.kinks, self.n, self.name = mpmath, mean, a, kinks, n, name
        self.rank = len(a[0])
        self.tiny = mpmath.mpf(10) ** -(n + 2)
        self.deep = {i for i, row in enumerate(a)
                     if self.rank == 2 and abs(row[1]) > self.tiny * (abs(row[0]) + abs(row[1]))}
        self.front = [f for f in factors if not self.deep & set(f[0])]
        self.inside = [f for f in factors if self.deep & set(f[0])]

    def product(self, forms, factors):
        total = self.mp.mpf(1)
        try:
            for used, f in factors:
                total *= f(*(forms[i] for i in used))
        except ZeroDivisionError:
            total = self.mp.inf
        return _real(total, self.name)

    def forms(self, u):
        return [x + sum((c * v for c, v in zip(row, u, strict=True)), self.mp.mpf(0))
                for x, row in zip(self.m, self.a, strict=True)]

    def size(self, u) -> float:
        # The logarithm of |f| times the density, roughly; exponents of mpmath numbers are unbounded.
        f = self.product(self.forms(u), [*self.front, *self.inside])
        return float(self.mp.mag(f)) * math.log(2) - sum(float(x) ** 2 for x in u) / 2 if f else -math.inf

    def box(self):
        needed = self.n * _LN10 + 8
        inside = math.sqrt(2 * needed)
        far, step = 3 * inside + 10, (1.0, 2.5)[self.rank - 1]
        axis = [0.137 + step * i for i in range(-int(far / step), int(far / step) + 1)]
        mpf = self.mp.mpf
        points = [(x,) for x in axis] if self.rank == 1 else [(x, y) for x in axis for y in axis]
        sizes = [self.size([mpf(x) for x in u]) for u in points]
        top = max(*sizes, -needed)
        rays = [(1,), (-1,)] if self.rank == 1 else [(1, 0), (-1, 0), (0, 1), (0, -1), (.7, .7), (.7, -.7), (-.7, .7),
                                                     (-.7, -.7)]
        if any(self.size([mpf(t * far * x) for x in ray]) > top - needed for ray in rays for t in (1.3, 8)):
            raise _diverges(self.name, top)
        self.lo, self.hi = [], []
        for d in range(self.rank):
            seen = [u[d] for u, s in zip(points, sizes, strict=True) if s > top - needed] or [0.0]
            if min(seen) <= axis[1] or max(seen) >= axis[-2]:
                raise _diverges(self.name, top)
            self.lo.append(mpf(min(-inside, min(seen) - step)))
            self.hi.append(mpf(max(inside, max(seen) + step)))

    def nodes(self, d, cuts, unit, fine, moving):
        # Nodes and weights times the density. ``cuts``: kinks; ``unit``: the length on which the integrand varies.
        mp, lo, hi = self.mp, self.lo[d], self.hi[d]
        root = 1 / mp.sqrt(2 * mp.pi)
        if not cuts and not moving and unit > 0.3:
            h = mp.mpf(_step(self.n, unit) / fine)
            span = range(int(mp.floor(lo / h)), int(mp.ceil(hi / h)) + 1)
            return [(k * h, h * root * mp.exp(-(k * h) ** 2 / 2)) for k in span]
        return [(u, w * root * mp.exp(-u * u / 2)) for u, w in _panels(lo, hi, cuts, self.n, fine)]

    def cuts(self, d, u):
        # Kinks on the line of u_d, and graded points where a form varies fast or the inner Gaussian blurs a kink.
        found, unit, last = [], 1.0, d == self.rank - 1
        for i, (x, row) in enumerate(zip(self.m, self.a, strict=True)):
            if abs(row[d]) <= self.tiny * max(abs(c) for c in row) or (d == 1 and i not in self.deep):
                continue
            start = x + (row[0] * u[0] if d else 0)
            blur = 0.0 if last or i not in self.deep else float(abs(row[1] / row[0]))
            length = float(1 / abs(row[d]))
            if i < self.count_used():
                unit = min(unit, max(length, blur))
            for t in {self.mp.mpf(0), *self.kinks[i]}:
                known, centre = t in self.kinks[i], (t - start) / row[d]
                h = blur if known and blur else max(length, blur)
                if known and not blur or h < 0.3:
                    found.append(centre)
                while h < 0.3 and (not t or len(self.kinks[i]) < 9):
                    found += [centre - 2 * h, centre + 2 * h]
                    h *= 4
        if self.rank == 2 and d == 0:
            lines = [(self.a[i][0] / self.a[i][1], (t - self.m[i]) / self.a[i][1]) for i in sorted(self.deep)
                     for t in self.kinks[i]][:20]
            found += [(s - t) / (p - q) for j, (p, s) in enumerate(lines) for q, t in lines[:j]
                      if abs(p - q) > self.tiny * (abs(p) + abs(q))]
        return found, unit

    def count_used(self):
        return 1 + max(i for used, _ in [*self.front, *self.inside] for i in used)

    def outer(self, fine):
        mp = self.mp
        cuts, unit = self.cuts(0, None)
        total = size = mp.mpf(0)
        moving = any(self.kinks[i] for i in self.deep)
        fixed = None
        if self.rank == 2 and not moving:
            inner_cuts, inner_unit = self.cuts(1, [mp.mpf(0)])
            if not inner_cuts:
                fixed = self.nodes(1, [], inner_unit, fine, False)
        for x, weight in self.nodes(0, cuts, unit, fine, moving and len(self.deep) > 1 and not self.alone()):
            forms = [m + row[0] * x for m, row in zip(self.m, self.a, strict=True)]
            front = self.product(forms, self.front) * weight
            if self.rank == 2 and front:
                value, absolute = self.inner(forms, x, fine, fixed)
            else:
                value = absolute = mp.mpf(1)
            total += front * value
            size += abs(front) * absolute
        return total, size

    def alone(self):
        # Whether one form only has kinks inside: then the inner integral is a smooth function of the outer Gaussian.
        return sum(bool(self.kinks[i]) for i in self.deep) <= 1

    def inner(self, forms, x, fine, fixed):
        mp = self.mp
        if fixed is None:
            cuts, unit = self.cuts(1, [x])
            fixed = self.nodes(1, cuts, unit, fine, False)
        total = size = mp.mpf(0)
        moved = [(i, forms[i], self.a[i][1]) for i in sorted({i for used, _ in self.inside for i in used} & self.deep)]
        now = list(forms)
        for u, weight in fixed:
            for i, start, slope in moved:
                now[i] = start + slope * u
            f = weight * self.product(now, self.inside)
            total += f
            size += abs(f)
        return total, size
