"""The number behind an expectation: to double precision by arrays, to any number of digits by mpmath."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import Any

from tensorprog.atoms import custom
from tensorprog.errors import NotCoveredError
from tensorprog.gauss.expectation import _node
from tensorprog.gauss.quadrature import Estimate, factor, integrate

#: Precisions, in bits, at which values are computed and remembered; the first: floats, with sympy's guard bits.
_BITS = (57, 80, 120, 180, 270, 400)
#: Jumps of floor and its kin, and roots of other edges, are looked for this many standard deviations around the mean.
_REACH = 40
#: More thresholds than this are left to adaptive panels.
_MANY = 200


def digits(node, bits: int):
    """Return E as a sympy Float of this precision, None while a symbol has no value.

    Beyond two dependent Gaussians, or with numpy functions in the expression, digits after the 15th are not known.
    """
    import sympy

    if node.free_symbols:
        return None
    wanted = next((b for b in _BITS if bits <= b), bits)
    return sympy.Float(_value(node, wanted), precision=bits)


def estimate(node, tol: float = 1e-12) -> Estimate:
    """Return value, error and method in double precision.

    Raises:
        NotCoveredError: a symbol has no value, or the expectation diverges.
    """
    if node.free_symbols:
        raise NotCoveredError(str(node), str(sorted(map(str, node.free_symbols))), "these symbols have no value",
                              "substitute numbers")
    import mpmath

    with mpmath.workdps(25):
        forms, mean, cov, kinks, expr = _problem(node, 25)
        k = len(node.zs)
        fn = custom.compiled(tuple(node.zs), expr, str(node))
        root = factor(cov, [bool(t) for t in kinks], mpmath.mpf(10) ** -22)
        return integrate(lambda *forms: fn(*forms[:k]), [float(x) for x in mean],
                         [[float(x) for x in row] for row in root], kinks, tol)


@lru_cache(4096)
def _value(node, bits: int):
    import mpmath
    import sympy

    parts = _parts(node)
    if parts is not None:
        kind, nodes = parts
        with mpmath.workprec(bits + 10):
            values = [mpmath.mpf(x.evalf(n=math.ceil((bits + 10) * 0.30103))) for x in nodes]
            return mpmath.fsum(values) if kind is sympy.Add else mpmath.fprod(values)
    opaque = any(hasattr(f, "_imp_") for f in node.expr.atoms(sympy.Function))
    found = estimate(node, 1e-13)  # also what sees that an expectation diverges
    if opaque or len(node.zs) > 2 or bits <= _BITS[0] and found.error <= 1e-13 * abs(found.value):
        return mpmath.mpf(found.value)
    from tensorprog.gauss import multiprecision

    n = math.ceil(bits * 0.30103)
    with mpmath.workdps(n + 12):
        _, mean, cov, kinks, expr = _problem(node, n + 12)
        zs = list(node.zs)
        factors = []
        for f in sympy.Mul.make_args(expr):
            used = [i for i, z in enumerate(zs) if z in f.free_symbols]
            factors.append((used, sympy.lambdify([zs[i] for i in used], f, modules="mpmath")))
        value = multiprecision.expect(factors, mean, cov, kinks, n, name=str(node))
        if abs(value - found.value) > 1e3 * found.error:
            raise NotCoveredError(str(node), (found.value, float(value)), "two ways to evaluate this disagree",
                                  "check the integrand, or use estimate()")
        return value


def _parts(node):
    """Return (Add or Mul, nodes) if the expectation splits into ones over fewer Gaussians, else None."""
    import sympy

    make, zs = _node(), list(node.zs)
    if len(zs) == 1:
        return None
    if isinstance(node.expr, sympy.Add) and any(set(zs) - t.free_symbols for t in node.expr.args):
        return sympy.Add, [make(t, zs, node.mean, node.cov) for t in node.expr.args]
    groups: list[set] = [{z} for z in zs]
    ties = [f.free_symbols & set(zs) for f in sympy.Mul.make_args(node.expr)]
    ties += [{zs[i], zs[j]} for i, j in combinations(range(len(zs)), 2) if node.cov[i][j] != 0]
    for tie in ties:
        joined = [g for g in groups if g & tie]
        groups = [g for g in groups if not g & tie] + ([set().union(*joined)] if joined else [])
    if len(groups) == 1:
        return None
    factors = sympy.Mul.make_args(node.expr)
    return sympy.Mul, [make(sympy.Mul(*(f for f in factors if f.free_symbols & g)), zs, node.mean, node.cov)
                       for g in groups]


def _problem(node, dps: int):
    """Return forms, mean, covariance and kinks as mpmath numbers, and the expression with numbers for its constants.

    The forms are the Gaussians, then those combinations of them at which the expression has a kink of its own.
    """
    import mpmath
    import sympy

    make, zs = _node(), list(node.zs)

    def mpf(x):
        y = x.evalf(dps)
        if not y.is_Float and not y.is_Rational:
            raise NotCoveredError(str(node), str(x), "not a real number", "mean and covariance are real")
        return mpmath.mpf(y._to_mpmath(mpmath.mp.prec))

    mean = [mpf(x) for x in node.mean]
    cov = [[mpf(x) for x in row] for row in node.cov]
    expr = node.expr.xreplace({e: e.evalf(dps) for e in node.expr.atoms(make)})
    k = len(zs)
    forms = [tuple(mpmath.mpf(i == j) for j in range(k)) for i in range(k)]
    kinks: list[set[Any]] = [set() for _ in range(k)]
    for edge, whole in _edges(expr):
        used = [z for z in zs if z in edge.free_symbols]
        if not used:
            continue
        slopes = [edge.diff(z) for z in zs]
        if any(s.free_symbols for s in slopes):
            if len(used) == 1 and not whole:
                i = zs.index(used[0])
                kinks[i] |= set(_roots(edge, used[0], mean[i], cov[i][i], dps))
            continue
        row = tuple(mpf(s) for s in slopes)
        start = mpf(edge.xreplace(dict.fromkeys(zs, sympy.S.Zero)))
        scale = next(s for s in row if s != 0)
        row, start, gap = tuple(s / scale for s in row), start / scale, 1 / abs(scale)
        levels = [-start]
        if whole:
            centre = sum((r * m for r, m in zip(row, mean, strict=True)), mpmath.mpf(0))
            spread = sum(row[i] * cov[i][j] * row[j] for i in range(k) for j in range(k))
            first = int(mpmath.floor((centre + start) / gap))
            count = min(_MANY // 2, int(_REACH / 4 * mpmath.sqrt(abs(spread)) / gap) + 2)
            levels = [(first + i) * gap - start for i in range(-count, count + 1)]
        if row not in forms:
            forms.append(row)
            kinks.append(set())
        kinks[forms.index(row)] |= set(levels)
    means = [sum((r * m for r, m in zip(row, mean, strict=True)), mpmath.mpf(0)) for row in forms]
    covs = [[sum((p[i] * cov[i][j] * q[j] for i in range(k) for j in range(k)), mpmath.mpf(0)) for q in forms]
            for p in forms]
    return forms, means, covs, [tuple(sorted(t)) for t in kinks], expr


def _edges(expr):
    """Return (g, whole): the expression is not smooth where g is 0, or, if ``whole``, where g is an integer."""
    import sympy

    found = [(e.args[0], False) for e in expr.atoms(sympy.Abs, sympy.sign, sympy.Heaviside)]
    found += [(e.args[0], True) for e in expr.atoms(sympy.floor, sympy.ceiling, sympy.frac)]
    for e in expr.atoms(sympy.Max, sympy.Min):
        found += [(a - b, False) for a, b in combinations(custom._leaves(e), 2)]
    for e in expr.atoms(sympy.Piecewise):
        found += [(c.lhs - c.rhs, False) for _, cond in e.args for c in cond.atoms(sympy.core.relational.Relational)]
    return [(b, whole) for g, whole in dict.fromkeys(found) for b in custom._branches(g)]


def _roots(edge, z, mean, variance, dps: int):
    """Return the zeros of a function of one Gaussian that change its sign, near the mean."""
    import mpmath
    import numpy as np
    import sympy

    values = custom.compiled((z,), edge, str(edge))
    width = float(mpmath.sqrt(abs(variance)))
    x = float(mean) + width * np.linspace(-_REACH / 4, _REACH / 4, 8001)
    sign = np.sign(values(x))
    precise = sympy.lambdify([z], edge, modules="mpmath")
    at = np.flatnonzero(np.isfinite(sign[1:]) & np.isfinite(sign[:-1]) & (sign[1:] != sign[:-1]) & (sign[:-1] != 0))
    return [_root(precise, float(x[i]), float(x[i + 1]), dps) if sign[i + 1] else mpmath.mpf(x[i + 1])
            for i in at[:_MANY]]


def _root(fn, low: float, high: float, dps: int):
    """Return the zero between two points of different sign, multiple ones included."""
    import mpmath

    try:
        return mpmath.findroot(fn, (low, high), solver="anderson", tol=mpmath.mpf(10) ** (-2 * dps + 10))
    except ValueError:  # of a multiple root: halving finds it all the same
        a, b = mpmath.mpf(low), mpmath.mpf(high)
        below = fn(a) < 0
        for _ in range(4 * dps):
            middle = (a + b) / 2
            a, b = (middle, b) if (fn(middle) < 0) == below else (a, middle)
        return (a + b) / 2


