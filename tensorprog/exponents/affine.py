"""Exact exponents that may still hold unknowns: ``-a[W] - b[W] + 1/2``.

Exponents are rationals, never floats. An unknown (``a``, ``b``, ``c`` of a weight, a declared multiplier
exponent) stays a symbol until a parametrization gives it a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tensorprog.errors import NotCoveredError

Values = Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class Affine:
    """``const + sum(coef * symbol)`` with rational coefficients; symbols sorted, zero coefficients absent.

    >>> x = Affine.symbol("alpha")
    >>> 1 - 2 * x
    Affine('1 - 2*alpha')
    >>> (1 - 2 * x).value({"alpha": Fraction(1, 2)})
    Fraction(0, 1)
    """

    const: Fraction = Fraction(0)
    terms: tuple[tuple[str, Fraction], ...] = ()

    @staticmethod
    def symbol(name: str) -> Affine:
        """Return the exponent that is the unknown ``name`` itself."""
        return Affine(Fraction(0), ((name, Fraction(1)),))

    @staticmethod
    def of(x) -> Affine:
        """Return ``x`` (int, Fraction, string of a rational, Affine) as an Affine."""
        return x if isinstance(x, Affine) else Affine(Fraction(x))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The unknowns in it."""
        return tuple(s for s, _ in self.terms)

    @property
    def is_zero(self) -> bool:
        """Whether it is 0 whatever the unknowns are."""
        return not self.terms and self.const == 0

    def value(self, values: Values) -> Fraction:
        """Return the rational it is at ``values``; raises NotCoveredError if an unknown has no value."""
        if not self.terms:
            return self.const
        total = self.const
        for name, coef in self.terms:
            try:
                total += coef * values[name]
            except KeyError:
                raise NotCoveredError(
                    f"n^({self})", name, "this exponent is unknown", f"give {name} a value, or derive it"
                ) from None
        return total

    def __add__(self, other) -> Affine:
        other = Affine.of(other)
        sums = dict(self.terms)
        for s, c in other.terms:
            sums[s] = sums.get(s, Fraction(0)) + c
        return Affine(self.const + other.const, tuple(sorted((s, c) for s, c in sums.items() if c)))

    __radd__ = __add__

    def __neg__(self) -> Affine:
        return self * -1

    def __sub__(self, other) -> Affine:
        return self + -Affine.of(other)

    def __rsub__(self, other) -> Affine:
        return Affine.of(other) - self

    def __mul__(self, k) -> Affine:
        k = Fraction(k)
        return Affine(self.const * k, tuple((s, c * k) for s, c in self.terms) if k else ())

    __rmul__ = __mul__

    def __str__(self) -> str:
        out = [str(self.const)] if self.const or not self.terms else []
        for s, c in self.terms:
            sign = "-" if c < 0 else "+"
            body = s if abs(c) == 1 else f"{abs(c)}*{s}"
            out.append(f"{sign} {body}" if out else (f"-{body}" if c < 0 else body))
        return " ".join(out)

    def __repr__(self) -> str:
        return f"Affine({str(self)!r})"
