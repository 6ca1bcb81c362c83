"""Smooth functions with derivatives to any order: polynomials in a few functions that differentiate into each other.

tanh, for one: with t = tanh and q = sech^2, t' = q and q' = -2 t q, so that every derivative of tanh is a polynomial in
t and q with whole coefficients. Nothing cancels in the tails, no symbolic engine is loaded, and Taylor coefficients,
values and formulas all follow from two lines of text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.atoms import facts
from tensorprog.atoms import pieces as pc
from tensorprog.atoms.nonlinearity import Domain, Nonlinearity, Parity

ONE = Fraction(1)

#: A polynomial: a monomial is the sorted string of its one-letter factors, "" is 1, "qt" is q*t.
Terms = Mapping[str, Fraction | int]


@dataclass(frozen=True, slots=True)
class Generator:
    """A one-letter function of x: its values, its derivative as a polynomial in the letters, formula and pieces."""

    numpy: Callable[[np.ndarray], np.ndarray]
    derivative: Terms
    sympy: Callable[[Any], Any]
    pieces: pc.Pieces | None = None


X = Generator(lambda x: x, {"": 1}, lambda x: x, pc.piece(0, 1))


def constant(value: float, sympy: Callable[[], Any], pieces: pc.Pieces | None = None) -> Generator:
    """Return a letter for a number; ``sympy()`` is the exact number."""
    return Generator(lambda x: np.asarray(value, x.dtype), {}, lambda x: sympy(), pieces)


def differentiate(terms: Terms, slopes: Mapping[str, Terms]) -> dict[str, Fraction]:
    """Return the derivative of a polynomial in letters with these derivatives.

    >>> differentiate({"tt": 1}, {"t": {"q": 1}})
    {'qt': Fraction(2, 1)}
    """
    out: dict[str, Fraction] = {}
    for monomial, coef in terms.items():
        for letter, power in Counter(monomial).items():
            rest = monomial.replace(letter, "", 1)
            for factor, c in slopes[letter].items():
                key = "".join(sorted(rest + factor))
                out[key] = out.get(key, Fraction(0)) + Fraction(coef) * power * c
    return {m: c for m, c in out.items() if c}


def evaluate(terms: Terms, letters: Mapping[str, Generator], x: np.ndarray) -> np.ndarray:
    """Return the polynomial's value."""
    values = {letter: letters[letter].numpy(x) for letter in sorted(set("".join(terms)))}
    total = None
    for monomial, coef in terms.items():
        y = None
        for letter, power in Counter(monomial).items():
            for _ in range(power):
                y = values[letter] if y is None else y * values[letter]
        y = np.full_like(x, float(coef)) if y is None else y if coef == 1 else float(coef) * y
        total = y if total is None else total + y
    return np.zeros_like(x) if total is None else total


def formula(terms: Terms, letters: Mapping[str, Generator], x):
    """Return the polynomial as a sympy expression at x."""
    import sympy

    values = {letter: letters[letter].sympy(x) for letter in set("".join(terms))}
    return sympy.Add(*(sympy.Rational(Fraction(c).numerator, Fraction(c).denominator)
                       * sympy.Mul(*(values[letter] for letter in m)) for m, c in terms.items()))


def smooth(name: str, terms: Terms, letters: Mapping[str, Generator], *, sources: tuple[str, ...],
           parity: Parity = None, degree: Fraction | int | None = None, infinity: Fraction | int | None = None,
           domain: Domain = "real", params: tuple[Fraction, ...] = (), radius: float | None = None,
           scale: Fraction = ONE, sympy: Callable[[Any], Any] | None = None, taylor: tuple[bool, ...] | None = None,
           order: int = 0) -> Nonlinearity:
    """Return the record of a polynomial in ``letters``; derivatives to any order are records of the same kind.

    Args:
        terms: the function itself, a polynomial in the letters.
        letters: what the letters are; closed under differentiation.
        radius: beyond it every derivative is constant to machine precision (they are evaluated there, so that
            no power of x overflows before an exponential decay kills it).
        scale: the size of the arguments at which it is checked.
        sympy: a nicer formula than the polynomial's.
        taylor: which Taylor coefficients are nonzero, where deriving them from the letters takes long.
        order: the order of the derivative that this record is (of the function in ``name``).
    """
    exact = None if degree is None else Fraction(degree)
    slopes = {letter: g.derivative for letter, g in letters.items()}
    slope = differentiate(terms, slopes)

    def at(terms: Terms, order: int) -> Callable[[np.ndarray], np.ndarray]:
        if order and radius is not None:
            low, high = -radius, radius
            return lambda x: evaluate(terms, letters, np.clip(x, low, high))
        return lambda x: evaluate(terms, letters, x)

    values = at(terms, order)

    def derive() -> Nonlinearity:
        fn = facts.rescaled(at(slope, order + 1), float(scale))
        base = name.partition("_")[2] if order else name
        lower = None if exact is None else exact - 1
        return smooth(
            f"d{order + 1 if order else ''}_{base}", slope, letters, sources=sources, order=order + 1,
            parity=facts.find_parity(fn, domain), degree=facts.find_degree(fn, domain, lower),
            infinity=facts.find_infinity(fn, domain, lower), domain=domain, params=params, radius=radius,
            scale=scale,
        )

    return Nonlinearity(
        name=name, numpy=values, slope=at(slope, order + 1) if slope else None, derivative=derive if slope else None,
        parity=parity, degree=exact, taylor=taylor or taylor_of(terms, letters, domain), scale=scale,
        infinity=None if infinity is None else Fraction(infinity), domain=domain, sources=sources, params=params,
        sympy=sympy if sympy is not None else lambda x: formula(terms, letters, x), pieces=pieces_of(terms, letters),
    )


def pieces_of(terms: Terms, letters: Mapping[str, Generator]) -> pc.Pieces | None:
    """Return the polynomial's pieces; None if one of its letters has none."""
    out = []
    for monomial, coef in terms.items():
        product: pc.Pieces = pc.piece(Fraction(coef))
        for letter, power in Counter(monomial).items():
            found = letters[letter].pieces
            if found is None:
                return None
            for factor in [pc.piece(*[0] * power, 1)] if letter == "x" else [found] * power:
                product = pc.multiply(product, factor)
        out.append(product)
    return pc.add(*out)


def taylor_of(terms: Terms, letters: Mapping[str, Generator], domain: Domain) -> tuple[bool, ...] | None:
    """Return which derivatives at 0 are nonzero; None if the function is not smooth there."""
    if domain not in ("real", "nonnegative"):
        return None
    slopes = {letter: g.derivative for letter, g in letters.items()}
    with np.errstate(all="ignore"):
        at_zero = {letter: float(g.numpy(np.zeros(1)).item()) for letter, g in letters.items()}
    out = []
    for _ in range(facts.ORDERS):
        parts = [float(c) * math.prod(at_zero[letter] for letter in m) for m, c in terms.items()]
        if not all(map(math.isfinite, parts)):
            return None
        out.append(abs(math.fsum(parts)) > 1e-12 * math.fsum(map(abs, parts)))
        terms = differentiate(terms, slopes)
    return tuple(out)
