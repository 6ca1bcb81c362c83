"""The pieces of a formula: polynomials, exponentials, sines, error functions, and whatever bends at rational points."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.atoms import facts
from tensorprog.atoms import pieces as pc

HALF = Fraction(1, 2)
#: A kink with a larger denominator is a rounded irrational one.
EXACT = 10**6
#: Powers of sums up to this one are multiplied out.
POWER = 16


class _OtherError(Exception):
    """Inside: the formula is not of this kind."""


def decompose(expr, x, kinks: tuple[Fraction, ...], fn: Callable) -> pc.Pieces | None:
    """Return the pieces of a sympy expression in the real symbol x, None if it has none; ``fn`` are its values.

    Between two kinks each Max, Abs, sign, Heaviside and Piecewise is one of its branches; steps join them.

    Example:
        >>> import sympy
        >>> x = sympy.Symbol("x", real=True)
        >>> found = decompose(sympy.Max(x, 0), x, (Fraction(0),), lambda x: np.maximum(x, 0))
        >>> found == pc.piece(0, 1, gates=[(0, 0)])
        True
    """
    if any(k.denominator > EXACT for k in kinks):
        return None
    middles = [a + (b - a) / 2 for a, b in zip(kinks, kinks[1:], strict=False)]
    inside = [kinks[0] - 1, *middles, kinks[-1] + 1] if kinks else [Fraction(0)]
    try:
        branches = [_smooth(_branch(expr, x, at), x) for at in inside]
        steps = [pc.multiply(pc.add(right, pc.multiply(left, pc.piece(-1))), pc.piece(1, gates=[(k, 0)]))
                 for k, left, right in zip(kinks, branches, branches[1:], strict=False)]
        found = pc.add(branches[0], *steps)
    except _OtherError:
        return None
    at = facts.points("real", kinks)
    with np.errstate(all="ignore"):
        told, seen = pc.values(found, at), fn(at)
    return found if np.allclose(told, seen, rtol=1e-9, atol=1e-10 * float(np.max(np.abs(seen)))) else None


def _branch(expr, x, at: Fraction):
    """Return the expression with every bent function replaced by its branch at a point."""
    import sympy

    if not expr.args or not expr.has(x):
        return expr
    point = sympy.Rational(at.numerator, at.denominator)
    if isinstance(expr, sympy.Piecewise):
        branches: Any = expr.args
        for value, condition in branches:
            holds = condition.subs(x, point)
            if holds == True:  # noqa: E712 (sympy's truth)
                return _branch(value, x, at)
            if holds != False:  # noqa: E712
                raise _OtherError
        raise _OtherError
    args = [_branch(a, x, at) for a in expr.args]
    if isinstance(expr, sympy.Max | sympy.Min):
        return (max if isinstance(expr, sympy.Max) else min)(args, key=lambda a: a.subs(x, point).evalf())
    if isinstance(expr, sympy.Abs | sympy.sign | sympy.Heaviside):
        value = args[0].subs(x, point).evalf()
        if not value.is_number or not value.is_real or value == 0:
            raise _OtherError
        high, low = {"Abs": (args[0], -args[0]), "sign": (1, -1)}.get(type(expr).__name__, (1, 0))
        return sympy.Integer(0) + (high if value > 0 else low)
    return expr.func(*args)


def _smooth(e, x) -> pc.Pieces:
    """Return the pieces of a formula without kinks."""
    import sympy

    if not e.has(x):
        return _constant(e)
    if e == x:
        return pc.piece(0, 1)
    if e.is_Add:
        return pc.add(*(_smooth(a, x) for a in e.args))
    if e.is_Mul:
        return _product([_smooth(a, x) for a in e.args])
    if e.is_Pow and e.exp.is_Integer and 0 < e.exp <= POWER:
        return pc.piece(*[0] * int(e.exp), 1) if e.base == x else _product([_smooth(e.base, x)] * int(e.exp))
    if isinstance(e, sympy.exp):
        c, b, a = _polynomial(e.args[0], x, 2)
        if c == 0:
            return pc.piece(1, linear=_rational(b), quadratic=_rational(a))
    if isinstance(e, sympy.sin | sympy.cos | sympy.sinh | sympy.cosh | sympy.erf | sympy.erfc):
        c, b, _ = _polynomial(e.args[0], x, 1)
        if c == 0 and b != 0:
            return _odd_or_even(e, b)
    raise _OtherError


def _odd_or_even(e, b) -> pc.Pieces:
    import sympy

    if isinstance(e, sympy.erf | sympy.erfc):
        # erf(s x) = 2 P(N(0, 1/(2 s^2)) < x) - 1 for s > 0.
        sign = 1 if b > 0 else -1
        erf = pc.add(pc.piece(2 * sign, gates=[(0, 1 / (2 * _rational(b * b)))]), pc.piece(-sign))
        return erf if isinstance(e, sympy.erf) else pc.add(pc.piece(1), pc.multiply(erf, pc.piece(-1)))
    k = _rational(b)
    if isinstance(e, sympy.sin):
        return pc.add(pc.piece(-HALF, turn=1, wave=k), pc.piece(HALF, turn=1, wave=-k))
    if isinstance(e, sympy.cos):
        return pc.add(pc.piece(HALF, wave=k), pc.piece(HALF, wave=-k))
    return pc.add(pc.piece(HALF, linear=k), pc.piece(HALF if isinstance(e, sympy.cosh) else -HALF, linear=-k))


def _product(factors: list[pc.Pieces]) -> pc.Pieces:
    out: pc.Pieces = pc.piece(1)
    for f in factors:
        out = pc.multiply(out, f)
    return out


def _polynomial(e, x, degree: int) -> list:
    """Return the coefficients of x^0, x^1, x^2."""
    poly = e.as_poly(x)
    if poly is None or poly.degree() > degree:
        raise _OtherError
    return [poly.coeff_monomial(x**k) for k in range(3)]


def _rational(e) -> Fraction:
    if not e.is_Rational:
        raise _OtherError
    return Fraction(int(e.p), int(e.q))


def _constant(e) -> pc.Pieces:
    """Return a rational times half-integer powers of 2 and pi."""
    import sympy

    for two in (0, 1):
        for pi in (0, 1):
            rest = e / (sympy.sqrt(2) ** two * sympy.sqrt(sympy.pi) ** pi)
            c, p = rest.as_coeff_Mul()
            b, k = p.as_base_exp()
            if p == 1:
                return pc.piece(_rational(c), two=two, pi=pi)
            if b == sympy.pi and k.is_Integer and c.is_Rational:
                return pc.piece(_rational(c), two=two, pi=pi + 2 * int(k))
    raise _OtherError
