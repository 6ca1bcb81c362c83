"""Polynomials with exact coefficients: sums, products and linear combinations of a program's variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorprog.atoms.function import Function
from tensorprog.exponents.affine import Values
from tensorprog.exponents.scale import ONE, Scale, add_numbers

Monomial = tuple[Scale, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Poly(Function):
    """``sum_k coef_k * prod_i arg_i^power_ki`` with nonnegative whole powers.

    Args:
        arity: the number of arguments.
        terms: monomials ``(coefficient, powers)``, one power an argument; equal monomials are collected.

    Example:
        >>> from fractions import Fraction
        >>> Poly.linear([1, Fraction(-1, 2)]).spelled("x", "y")
        'x - 1/2*y'
        >>> Poly.product(2).evaluate({}, {}, 3.0, 4.0)
        12.0
    """

    arity: int
    terms: tuple[Monomial, ...]

    def __post_init__(self):
        collected: dict = {}
        for coef, powers in self.terms:
            key = (coef.powers, tuple(powers))
            old = collected.get(key)
            collected[key] = coef if old is None else Scale(add_numbers(old.number, coef.number), coef.powers)
        terms = tuple((c, key[1]) for key, c in collected.items() if not c.is_zero)
        object.__setattr__(self, "terms", terms)

    @staticmethod
    def linear(coefs: Sequence) -> Poly:
        """Return ``sum_i coefs[i] * arg_i``."""
        k = len(coefs)
        return Poly(k, tuple((Scale.of(c), _unit(i, k)) for i, c in enumerate(coefs)))

    @staticmethod
    def product(k: int, coef=ONE) -> Poly:
        """Return ``coef * arg_0 * ... * arg_{k-1}``."""
        return Poly(k, ((Scale.of(coef), (1,) * k),))

    @property
    def name(self) -> str:
        """A name for tables."""
        return "poly"

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the polynomial's value; coefficients that depend on dimensions use ``sizes`` and ``values``."""
        total = None
        for coef, powers in self.terms:
            c = coef.at(sizes, values)
            x = None
            for arg, p in zip(args, powers, strict=True):
                for _ in range(p):
                    x = arg if x is None else x * arg
            x = c if x is None else x if c == 1.0 else c * x
            total = x if total is None else total + x
        return 0.0 if total is None else total

    def partial(self, i: int) -> Poly | None:
        """Return the derivative by argument ``i``; None if it does not occur."""
        terms = tuple(
            (c * p[i], tuple(q - (j == i) for j, q in enumerate(p))) for c, p in self.terms if p[i]
        )
        return Poly(self.arity, terms) if terms else None

    def spelled(self, *args: str) -> str:
        """Return the polynomial in the text form."""
        if not self.terms:
            return "0"
        out = ""
        for coef, powers in self.terms:
            text = _monomial(coef, powers, args)
            if out:
                out += f" - {text[1:]}" if text.startswith("-") else f" + {text}"
            else:
                out = text
        return out


def _unit(i: int, k: int) -> tuple[int, ...]:
    return tuple(int(j == i) for j in range(k))


def _monomial(coef: Scale, powers: tuple[int, ...], args: Sequence[str]) -> str:
    factors = [a if p == 1 else f"{a}^{p}" for a, p in zip(args, powers, strict=True) if p]
    head = str(coef)
    if not factors:
        return head
    if not coef.powers and getattr(coef.number, "is_Add", False):
        head = f"({head})"
    if head in ("1", "-1"):
        return head[:-1] + "*".join(factors)
    return "*".join([head, *factors])
