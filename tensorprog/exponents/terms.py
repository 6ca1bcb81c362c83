"""Vectors as sums of terms ``n^e`` with a parity: the max-plus algebra that the calculus computes in."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tensorprog.exponents.parity import NOTHING, Space, contains, extend, join, reduce

ZERO = Fraction(0)

#: Cosets of one exponent that are kept apart before they are merged into their affine hull. The hull can only
#: overestimate; without merging, the terms of a residual network multiply exponentially with depth.
MERGE_ABOVE = 4


class Term(NamedTuple):
    """A summand of order ``n^e``, odd under the flips ``o``, up to the mixed subspace ``space``."""

    e: Fraction
    o: int = 0
    space: Space = NOTHING


#: The terms of a vector, largest exponent first; no terms is the zero vector.
Terms = tuple[Term, ...]


def leading(x: Terms) -> Fraction | None:
    """Return the exponent of a vector; None for the zero vector."""
    return x[0].e if x else None


def numeric(e: Fraction | None) -> Terms:
    """Return a vector that is a number times a constant one (no parity)."""
    return () if e is None else (Term(e),)


def scaled(x: Terms, e: Fraction) -> Terms:
    """Return the terms times n^e."""
    return x if not e else tuple(Term(t.e + e, t.o, t.space) for t in x)


def matches(x: Term, y: Term) -> bool:
    """Return whether E[x y] can be nonzero: ``o_x + o_y`` lies in ``V_x + V_y`` (law of large numbers)."""
    o = reduce(y.space, reduce(x.space, x.o ^ y.o))
    if not o:
        return True
    # a flip that neither subspace touches stays
    return not o & ~(x.space.support | y.space.support) and reduce(join(x.space, y.space), o) == 0


def vanishing_mean(x: Term) -> bool:
    """Return whether E[x] vanishes by symmetry."""
    return x.o != 0 and reduce(x.space, x.o) != 0


def inside(x: Term, y: Term) -> bool:
    """Return whether the coset of x lies in that of y."""
    o = x.o ^ y.o
    return (not o or reduce(y.space, o) == 0) and contains(y.space, x.space)


def times(x: Term, y: Term) -> Term:
    """Return the product of two terms: exponents add, parities add, mixed subspaces join."""
    space = join(x.space, y.space)
    return Term(x.e + y.e, reduce(space, x.o ^ y.o), space)


def hull(terms: Sequence[Term]) -> tuple[int, Space]:
    """Return the affine hull of cosets: the parity of a generic odd function of them all."""
    o, space = terms[0].o, terms[0].space
    for t in terms[1:]:
        space = join(space, t.space)
    for t in terms[1:]:
        space = extend(space, t.o ^ o)
    return reduce(space, o), space


def even_hull(terms: Sequence[Term]) -> tuple[int, Space]:
    """Return the parity of a generic even function of the terms jointly."""
    return 0, hull(terms)[1] if terms else NOTHING


def full_hull(terms: Sequence[Term]) -> tuple[int, Space]:
    """Return the parity of a generic function of the terms: everything is mixed."""
    space = NOTHING
    for t in terms:
        space = join(space, t.space)
    for t in terms:
        space = extend(space, t.o)
    return 0, space


def prune(terms: Sequence[Term], growth: Fraction) -> Terms:
    """Return the terms that matter along an axis of this growth.

    Dropped: a term whose coset lies in that of a term no smaller; a term n^(growth/2) or more below the leading one
    (every contraction already has that much from the leader's central limit theorem). Along a fixed axis only the
    leading exponent is left, without parity: conditioned on, its coordinates are numbers.
    """
    if not terms:
        return ()
    if len(terms) == 1 and growth:
        return tuple(terms)
    ordered = sorted(dict.fromkeys(terms), key=_by_exponent, reverse=True)
    top = ordered[0].e
    if not growth:
        return (Term(top),)
    floor = top - growth / 2
    kept: list[Term] = []
    for t in ordered:
        if t.e <= floor and t.e != top:
            break
        if not any(inside(t, k) for k in kept):
            kept.append(t)
    if len(kept) > MERGE_ABOVE:
        kept = _merge(kept)
    return tuple(kept)


def _by_exponent(t: Term) -> Fraction:
    return t.e


def _merge(kept: list[Term]) -> list[Term]:
    out: list[Term] = []
    i = 0
    while i < len(kept):
        j = i
        while j < len(kept) and kept[j].e == kept[i].e:
            j += 1
        group = kept[i:j]
        merged = group if len(group) <= MERGE_ABOVE else [Term(group[0].e, *hull(group))]
        out += [t for t in merged if not any(inside(t, k) for k in out)]
        i = j
    return out


def product(x: Terms, y: Terms, growth: Fraction) -> Terms:
    """Return the coordinatewise product of two vectors."""
    if len(x) == 1 and len(y) == 1:
        return (times(x[0], y[0]),)
    if not x or not y:
        return ()
    floor = x[0].e + y[0].e - growth / 2
    return prune([times(s, t) for s in x for t in y if s.e + t.e > floor or s.e + t.e == x[0].e + y[0].e], growth)


def contract(x: Terms, y: Terms, growth: Fraction) -> tuple[Fraction | None, str]:
    """Return the exponent of ``sum_i x_i y_i`` over an axis of this growth, and the law that sets it.

    ``LLN``: the summands are correlated, n^growth of them add up; ``CLT``: not correlated, n^(growth/2).
    """
    if not x or not y:
        return None, "zero"
    best = x[0].e + y[0].e + growth / 2
    law = "CLT" if growth else "sum"
    for s in x:
        for t in y:
            e = s.e + t.e + growth
            if e > best and matches(s, t):
                best, law = e, "LLN"
    return best, law


def total(x: Terms, growth: Fraction) -> tuple[Fraction | None, str]:
    """Return the exponent of ``sum_i x_i`` and the law that sets it."""
    return contract(x, (Term(ZERO),), growth)
