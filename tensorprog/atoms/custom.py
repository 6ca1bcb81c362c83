"""A user's own nonlinearities: the facts of a record found from a formula, or from values alone."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np

from tensorprog.atoms import facts
from tensorprog.atoms.decompose import decompose
from tensorprog.atoms.nonlinearity import Domain, Nonlinearity
from tensorprog.errors import NotCoveredError, RecordError

#: Derivatives by differences are given up to this order; further ones would be noise.
MAX_ORDER = 3
#: Step of the first difference, doubled with every order, and half width of the stencils.
STEP, HALF_WIDTH = 0.005, 5
#: From here on a formula that overflows is continued by its growth.
FAR = 100.0


def from_sympy(formula, name: str, sources: tuple[str, ...] = ("user",), order: int = 0) -> Nonlinearity:
    """See ``Nonlinearity.from_sympy``; ``order`` is that of the derivative which this record is."""
    x, expr = one_symbol(formula, name)
    slope = derivative_of(expr, x)

    def derive() -> Nonlinearity:
        return from_sympy(slope if slope.free_symbols else lambda _: slope, _primed(name, order), sources, order + 1)

    flat, values, kinks = slope.is_zero, _far(compiled((x,), expr, name)), _kinks(expr, x)
    return _record(name, values, None if flat else _far(compiled((x,), slope, name)), None if flat else derive, kinks,
                   sources, sympy=lambda y: expr.subs(x, y), pieces=decompose(expr, x, kinks, values),
                   key=(from_sympy, expr if expr.free_symbols else formula, name, sources, order))


def from_callable(fn: Callable, name: str, derivative: Callable | None = None, kinks: tuple[Fraction, ...] = (),
                  sources: tuple[str, ...] = ("user",), order: int = 0) -> Nonlinearity:
    """See ``Nonlinearity.from_callable``; ``order`` differences of ``fn`` (or of ``derivative``) are taken."""
    root, taken = (fn, order) if derivative is None or order == 0 else (derivative, order - 1)
    values = differences(root, taken) if taken else root
    slope = derivative if derivative is not None and order == 0 else differences(root, taken + 1)

    def derive() -> Nonlinearity:
        if taken >= MAX_ORDER:
            raise NotCoveredError(name, order + 1, "differences of this order are noise",
                                  "give the derivative, or build it with Nonlinearity.from_sympy")
        return from_callable(fn, _primed(name, order), derivative, kinks, sources, order + 1)

    found = tuple(sorted({*map(Fraction, kinks), *find_kinks(values)}))
    x = facts.points(find_domain(values, name), found)
    flat = bool(np.max(np.abs(slope(x))) <= 1e-7 * np.max(np.abs(values(x))))
    return _record(name, values, None if flat else slope, None if flat else derive, found, sources, sympy=None,
                   key=(from_callable, fn, name, derivative, kinks, sources, order))


def _primed(name: str, order: int) -> str:
    return f"d{order + 1}_{name.partition('_')[2]}" if order else f"d_{name}"


def _record(name, fn, slope, derive, kinks, sources, *, sympy, key, pieces=None) -> Nonlinearity:
    domain = find_domain(fn, name)
    facts_of = {"parity": facts.find_parity(fn, domain), "degree": facts.find_degree(fn, domain),
                "infinity": facts.find_infinity(fn, domain)}
    jumps = tuple(k for k in kinks if facts.jumps_at(fn, k)) if domain == "real" else ()
    return Nonlinearity(
        name=name, numpy=fn, slope=slope, derivative=derive, **facts_of, domain=domain, kinks=kinks, jumps=jumps,
        taylor=facts.taylor_at(fn, domain, kinks), sources=sources, sympy=sympy, key=key, pieces=pieces,
    )


def find_domain(fn: Callable, name: str) -> Domain:
    """Return where the values are finite numbers; raises RecordError if not even at positive points."""
    with np.errstate(all="ignore"):
        right, left, middle = (bool(np.all(np.isfinite(fn(x)))) for x in (facts.POINTS, -facts.POINTS, np.zeros(1)))
        if not right:
            raise RecordError(f"nonlinearity {name!r}", fn(facts.POINTS), f"not finite at x = {facts.POINTS}",
                              "it must be a real function at least for x > 0")
        if left:
            return "real" if middle else "nonzero"
        return "nonnegative" if facts.taylor_at(fn, "nonnegative", ()) else "positive"


def find_kinks(fn: Callable) -> tuple[Fraction, ...]:
    """Return the multiples of 1/4 between -8 and 8 at which the slope or the value jumps."""
    c, h = np.arange(-32, 33) / 4, 1e-5
    with np.errstate(all="ignore"):
        left, middle, right = fn(c - h), fn(c), fn(c + h)
        slope, bend = np.abs(right - left) / h, np.abs(right - 2 * middle + left) / h
        bent, broken = bend > 1e-2 * (1 + np.abs(middle) + slope), slope > 1e3 * (1 + np.abs(middle))
    found = np.isfinite(bend) & (bent | broken)
    return tuple(Fraction(int(k), 4) for k in np.arange(-32, 33)[found])


@cache
def _stencil(order: int) -> np.ndarray:
    offsets = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    rhs = np.zeros(len(offsets))
    rhs[order] = factorial(order)
    return np.linalg.solve(np.vander(offsets, increasing=True).T.astype(float), rhs)


def differences(fn: Callable, order: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the derivative of this order by central differences on 11 points, evaluated in float64."""
    step = STEP * 2.0 ** (order - 1)
    with np.errstate(all="ignore"):
        bounded = not np.isfinite(fn(np.full(1, -STEP))[0])

    def values(x: np.ndarray) -> np.ndarray:
        z = np.asarray(x, float)
        h = step * np.minimum(1.0, np.abs(z)) if bounded else step
        total = np.zeros_like(z)
        for k, w in zip(range(-HALF_WIDTH, HALF_WIDTH + 1), _stencil(order), strict=True):
            total = total + w * fn(z + k * h)
        return (total / h**order).astype(x.dtype)

    return values


# ------------------------------------------------------------------------------------------------ formulas


def one_symbol(formula, name: str):
    """Return a real symbol and the expression in it; raises RecordError unless there is just one symbol."""
    import sympy

    x = sympy.Symbol("x", real=True)
    expr = formula(x) if callable(formula) and not isinstance(formula, sympy.Basic) else formula
    if not isinstance(expr, sympy.Expr):
        raise RecordError(f"nonlinearity {name!r}", formula, "not a sympy expression",
                          "give one, or a function of a symbol")
    if expr is formula and len(expr.free_symbols) != 1 or expr.free_symbols - {x} and expr is not formula:
        raise RecordError(f"nonlinearity {name!r}", formula, f"its symbols are {sorted(map(str, expr.free_symbols))}",
                          "a nonlinearity is a formula in one symbol")
    return x, expr.subs(dict.fromkeys(expr.free_symbols, x))


def derivative_of(expr, x):
    """Return the derivative almost everywhere: without the delta functions that jumps leave."""
    import sympy

    return expr.diff(x).replace(lambda e: isinstance(e, sympy.DiracDelta), lambda e: sympy.Integer(0))


def compiled(symbols: tuple, expr, name: str) -> Callable:
    """Return the expression as a function of arrays of floats; raises RecordError if numpy cannot evaluate it."""
    import sympy

    try:
        # lambdify writes code for an expression that is a sympy object already; no user's text comes near it.
        fn = sympy.lambdify(symbols, expr, modules=["scipy", "numpy"])
        with np.errstate(all="ignore"):
            fn(*(np.full(1, 0.5) for _ in symbols))
    except (NameError, TypeError, KeyError, NotImplementedError) as e:
        raise RecordError(f"nonlinearity {name!r}", expr, f"numpy cannot evaluate it ({e})",
                          "use functions that sympy.lambdify knows, or from_callable") from None
    return _Compiled(fn)


class _Compiled:
    # A constant comes out of lambdify as a number: give it its argument's shape. Computed in float64: formulas
    # overflow early in float32.
    def __init__(self, fn):
        self.fn = fn

    def __call__(self, *args: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            out = np.asarray(self.fn(*(np.asarray(a, float) for a in args)))
        shape, dtype = np.broadcast_shapes(*(np.shape(a) for a in args)), np.result_type(*args)
        return np.broadcast_to(np.full(out.shape, np.nan, dtype) if np.iscomplexobj(out) else out.astype(dtype), shape)


def _far(fn: Callable) -> Callable:
    """Return ``fn`` continued where its formula overflows: by its power at infinity, or by 0 if it has died out."""
    edge = np.array([-FAR, FAR])
    if np.all(np.isfinite(fn(1e6 * edge))) or not np.any(np.isfinite(fn(edge))):
        return fn
    domain = "real" if np.isfinite(fn(edge)[0]) else "positive"
    growth, died = facts.find_infinity(fn, domain), np.nanmax(np.abs(fn(edge))) < 1e-12
    if growth is None and not died:
        return fn

    def values(x: np.ndarray) -> np.ndarray:
        y = fn(x)
        far = ~np.isfinite(y) & (np.abs(x) > FAR)
        if far.any():
            end = fn(FAR * np.sign(x))
            power = 0.0 if growth is None else (np.abs(x) / FAR) ** float(growth)
            y = np.where(far, end * power, y).astype(y.dtype)
        return y

    return values


def _leaves(e) -> list:
    import sympy

    return [leaf for a in e.args for leaf in _leaves(a)] if isinstance(e, sympy.Max | sympy.Min) else [e]


def _branches(e) -> list:
    import sympy

    inner = e.atoms(sympy.Max, sympy.Min)
    if not inner:
        return [e]
    largest = max(inner, key=lambda a: a.count_ops())
    return [b for leaf in _leaves(largest) for b in _branches(e.xreplace({largest: leaf}))]


def _kinks(expr, x) -> tuple[Fraction, ...]:
    import sympy

    edges = [e.args[0] for e in expr.atoms(sympy.Abs, sympy.sign, sympy.Heaviside)]
    for e in expr.atoms(sympy.Max, sympy.Min):
        edges += [a - b for a, b in combinations(_leaves(e), 2)]
    for e in expr.atoms(sympy.Piecewise):
        edges += [c.lhs - c.rhs for _, cond in e.args for c in cond.atoms(sympy.core.relational.Relational)]
    found = set()
    for edge in (b for e in edges for b in _branches(e)):
        poly = edge.as_poly(x)
        roots: Any = sympy.real_roots(poly) if poly is not None and poly.degree() > 0 else ()
        for root in roots:
            found.add(Fraction(int(root.p), int(root.q)) if root.is_Rational else Fraction(float(root)))
    return tuple(sorted(found))
