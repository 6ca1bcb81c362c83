"""Sums of monomials in named variables: what the operators of ``build`` collect before a polynomial becomes a line."""

from __future__ import annotations

from collections.abc import Iterable

from tensorprog.errors import ProgramError
from tensorprog.exponents.scale import Scale, add_numbers
from tensorprog.program.numbers import settled

#: The largest power of a variable.
MAX_POWER = 64

Monomial = tuple[tuple[str, int], ...]
Term = tuple[Scale, Monomial]


def join(p: Monomial, q: Monomial) -> Monomial:
    """Return the product of two monomials, variables in the order of their first appearance."""
    powers = dict(p)
    for name, k in q:
        powers[name] = powers.get(name, 0) + k
    if any(k > MAX_POWER for k in powers.values()):
        raise ProgramError(
            "*".join(powers), str(max(powers.values())), f"powers go up to {MAX_POWER}", "use a smaller power"
        )
    return tuple(powers.items())


def collected(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms with equal monomials added up, in order of first appearance, zeros left out."""
    sums: dict = {}
    for coef, powers in terms:
        key = coef.powers, frozenset(powers)
        if key in sums:
            old, first = sums[key]
            sums[key] = Scale(add_numbers(old.number, coef.number), coef.powers), first
        else:
            sums[key] = coef, powers
    settle = ((settled(coef), powers) for coef, powers in sums.values())
    return tuple((coef, powers) for coef, powers in settle if not coef.is_zero)
