"""Functions of a program as formulas: sympy expressions, coefficients of polynomials, joints of piecewise ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Number, canonical


def expression_of(fn: Any, *args):
    """Return ``fn(args)`` as a sympy expression; of a function without formula, as an opaque one that evaluates."""
    try:
        return fn.expression(*args)
    except (NotCoveredError, AttributeError):
        return opaque(fn)(*args)


def opaque(fn: Any):
    """Return a sympy function that stands for a record without a formula, and evaluates by its numpy values."""
    import sympy

    if fn not in _OPAQUE:
        slope = fn.partial

        def fdiff(self, argindex=1):
            partial = slope(argindex - 1)
            return sympy.S.Zero if partial is None else expression_of(partial, *self.args)

        made = type(fn.name, (sympy.Function,), {"nargs": fn.arity, "fdiff": fdiff,
                                                 "_imp_": staticmethod(lambda *x: fn.evaluate({}, {}, *x))})
        _OPAQUE[fn] = made
    return _OPAQUE[fn]


_OPAQUE: dict = {}


def thresholds_of(fn: Any) -> tuple[Fraction, ...] | None:
    """Return where a piecewise polynomial has its joints; None for every other function."""
    pieces = getattr(fn, "pieces", None) if fn is not None and fn.arity == 1 else None
    if not pieces or not all(k == type(k)(gates=k.gates) and all(v == 0 for _, v in k.gates) for k in pieces):
        return None
    return tuple(sorted({t for k in pieces for t, _ in k.gates}))


def between(fn: Any, thresholds: Sequence[Fraction], i: int) -> list[Number]:
    """Return the coefficients of a piecewise polynomial between thresholds i - 1 and i."""
    total: list[Number] = [Fraction(0)]
    for kind, coefficients in fn.pieces.items():
        if all(i > thresholds.index(t) for t, _ in kind.gates):
            total += [Fraction(0)] * (len(coefficients) - len(total))
            for j, c in enumerate(coefficients):
                total[j] += c
    return total


def polynomial(fn: Any) -> list[Number] | None:
    """Return the coefficients of a function that is a polynomial in one argument, None if it is none."""
    if fn.arity != 1:
        return None
    if fn not in _POLYNOMIALS:
        _POLYNOMIALS[fn] = _coefficients(fn)
    return _POLYNOMIALS[fn]


def _coefficients(fn: Any) -> list[Number] | None:
    import sympy

    x = sympy.Symbol("x", real=True)
    try:
        expression = fn.expression(x) + sympy.Integer(0)
    except (NotCoveredError, AttributeError):
        return None
    if not expression.is_polynomial(x):
        return None
    return [canonical(c) for c in reversed(sympy.Poly(expression, x).all_coeffs())]


_POLYNOMIALS: dict = {}
