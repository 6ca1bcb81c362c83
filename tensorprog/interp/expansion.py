"""The exponent calculus of functions: Taylor series around the leading terms.

A function states local facts only (parity, homogeneity, Taylor coefficients at 0, growth at infinity); the series is
written here once, for values ``phi(x)`` and for increments ``phi(x + dx) - phi(x)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement

from tensorprog.exponents.parity import Space
from tensorprog.exponents.terms import (
    ZERO,
    Term,
    Terms,
    even_hull,
    full_hull,
    hull,
    leading,
    numeric,
    product,
    prune,
    scaled,
    times,
)

#: Orders of the series in the small terms that are written out; what is smaller is bounded by one generic term.
ORDERS = 3


class Undefined:
    """A quantity about which the calculus says nothing, with the reason."""

    __slots__ = ("because",)

    def __init__(self, because: str):
        self.because = because

    def __repr__(self) -> str:
        return f"Undefined({self.because!r})"


def value(fn, args: Sequence[Terms], growth: Fraction) -> Terms | Undefined:
    """Return the terms of ``fn(*args)`` along an axis of this growth."""
    return _expand(fn, args, None, growth)


def increment(fn, args: Sequence[Terms], steps: Sequence[Terms], growth: Fraction) -> Terms | Undefined:
    """Return the terms of ``fn(args + steps) - fn(args)``: one order of the series lies in the steps."""
    if not any(steps):
        return ()
    if getattr(fn, "name", "") == "identity":
        return steps[0]
    return _expand(fn, args, steps, growth)


def _expand(fn, args, steps, growth):
    moved = tuple(args) if steps is None else (*args, *steps)
    sizes = [x[0].e for x in moved if x]
    if not sizes:
        return numeric(ZERO) if _nonzero_at_zero(fn) else ()
    top = max(sizes)
    degree = _degree(fn, top, steps, sizes)
    if isinstance(degree, Undefined):
        return degree
    if degree is None:
        return _at_zero(fn, args, steps, growth)
    flat = [t for x in moved for t in x]
    # With several arguments (or at Theta(1)) only terms of the leading size are inside the function.
    inside = [t for t in flat if t.e == top]
    small = _distinct([t for t in flat if t.e != top])
    if steps is None:
        return prune(_series(fn, degree * top, None, inside, small, top, growth), growth)
    out: list[Term] = []
    for t in _distinct([t for x in steps for t in x]):
        out += _series(fn, (degree - 1) * top, t, inside, small, top, growth)
    return prune(out, growth)


def _series(fn, e: Fraction, step: Term | None, inside, small, top: Fraction, growth: Fraction) -> list[Term]:
    """Return ``phi(leading)``, or ``phi'(leading) * step``, and its corrections by products of smaller terms."""
    order = 0 if step is None else 1
    unit = Term(ZERO) if step is None else step
    out = [times(Term(e, *_parity(fn, order, inside)), unit)]
    room = growth / 2
    near = [t for t in small if top - t.e < room]
    if not near:
        return out
    nearest = top - near[0].e
    for k in range(1, ORDERS + 1):
        if k * nearest >= room:
            return out
        corner = times(Term(e, *_parity(fn, order + k, inside)), unit)
        for combo in combinations_with_replacement(near, k):
            drop = sum((top - t.e for t in combo), ZERO)
            if drop < room:
                term = corner
                for t in combo:
                    term = times(term, Term(t.e - top, t.o, t.space))
                out.append(term)
    if (ORDERS + 1) * nearest < room:
        out.append(Term(out[0].e - (ORDERS + 1) * nearest, *full_hull([*inside, *near, unit])))
    return out


def _distinct(terms: Sequence[Term]) -> list[Term]:
    return sorted(dict.fromkeys(terms), key=lambda t: t.e, reverse=True)


def _degree(fn, top: Fraction, steps, sizes) -> Fraction | None | Undefined:
    """Return the degree of homogeneity that holds at this size, None if the series is taken at 0."""
    degree = getattr(fn, "degree", None)
    if degree is not None:
        return Fraction(degree)
    if top == 0:
        return ZERO if steps is None else Fraction(1)
    if top < 0:
        return None
    infinity = getattr(fn, "infinity", None)
    if infinity is None:
        return Undefined(f"{fn.name} at an argument that grows like n^({top})")
    if steps is not None and infinity == 0 and max((x[0].e for x in steps if x), default=top) < top:
        return Undefined(f"the change of {fn.name} where it is saturated")
    return Fraction(infinity)


def _parity(fn, order: int, inside: Sequence[Term]) -> tuple[int, Space]:
    """Return the parity of the order-th derivative as a function of the leading terms."""
    if not inside:
        return full_hull(())
    parity = getattr(fn, "parity", None)
    if parity is None:
        return full_hull(inside)
    odd = (parity == "odd") ^ (order % 2 == 1)
    return hull(inside) if odd else even_hull(inside)


def _nonzero_at_zero(fn) -> bool:
    return bool(getattr(fn, "value_at_zero_nonzero", True))


def _at_zero(fn, args, steps, growth) -> Terms | Undefined:
    """Return the Taylor series at 0, for arguments that vanish."""
    if len(args) > 1:
        return _generic_at_zero(fn, args, steps, growth)
    taylor = getattr(fn, "taylor", None)
    if taylor is None:
        return Undefined(f"{fn.name} at an argument that vanishes, where it has no Taylor series")
    x = args[0]
    orders = [k for k, present in enumerate(taylor) if present]
    out: list[Term] = []
    if steps is None:
        power: Terms = numeric(ZERO)
        for k in range(orders[-1] + 1 if orders else 0):
            if k in orders:
                out += power
            power = product(power, x, growth)
    else:
        moved, power = prune([*x, *steps[0]], growth), steps[0]
        for k in range(1, orders[-1] + 1 if orders else 0):
            if k in orders:
                out += power
            power = product(power, moved, growth)
    if not out:
        return Undefined(f"{fn.name} at an argument that vanishes: its Taylor series is flat")
    return prune(out, growth)


def _generic_at_zero(fn, args, steps, growth) -> Terms:
    flat = _distinct([t for x in args for t in x])
    if steps is not None:
        return prune(_distinct([t for x in steps for t in x]), growth)
    head = [Term(ZERO)] if _nonzero_at_zero(fn) else []
    seconds = [times(s, t) for s in flat for t in flat]
    return prune([*head, *flat, *seconds], growth)


# ------------------------------------------------------------------------------------------------- scalars


def scalar_value(fn, sizes: Sequence[Fraction | None]) -> Fraction | None | Undefined:
    """Return the exponent of a function of scalars."""
    out = value(fn, [numeric(e) for e in sizes], ZERO)
    return out if isinstance(out, Undefined) else leading(out)


def scalar_increment(fn, sizes, steps) -> Fraction | None | Undefined:
    """Return the exponent of the increment of a function of scalars."""
    out = increment(fn, [numeric(e) for e in sizes], [numeric(e) for e in steps], ZERO)
    return out if isinstance(out, Undefined) else leading(out)


# ---------------------------------------------------------------------------------------------- polynomials


def polynomial(fn, args: Sequence[Terms], coefficient: Callable, growth: Fraction) -> Terms:
    """Return the terms of a polynomial; ``coefficient(Scale)`` is the exponent of a coefficient."""
    out: list[Term] = []
    for scale, powers in fn.terms:
        term: Terms = numeric(ZERO)
        for x, p in zip(args, powers, strict=True):
            for _ in range(p):
                term = product(term, x, growth) if len(term) != 1 or term[0] != Term(ZERO) else x
        out += scaled(term, coefficient(scale))
    return prune(out, growth)
