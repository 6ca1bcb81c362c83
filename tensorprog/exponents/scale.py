"""Exact coefficients ``number * n^p * m^q``: what stands in front of a term of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tensorprog.exponents.affine import Affine, Values

#: A Fraction, or an exact sympy number such as sqrt(2) or pi. sympy is imported only where one is made.
Number = Any


def number_text(x: Number) -> str:
    """Return an exact number as text that the text form reads back."""
    return str(x).replace("**", "^")


@dataclass(frozen=True, slots=True)
class Scale:
    """``number * prod(dim^power)``; ``powers`` sorted by the dimension's name, zero powers absent.

    >>> lr = Scale(Fraction(1, 2)) * Scale.power("n", -1)
    >>> str(lr), lr.exponent({"n": Fraction(1)}, {}), lr.at({"n": 64}, {})
    ('1/2*n^-1', Fraction(-1, 1), 0.0078125)
    """

    number: Number = Fraction(1)
    powers: tuple[tuple[str, Affine], ...] = ()

    @staticmethod
    def of(x) -> Scale:
        """Return an int, a Fraction, an exact sympy number or a Scale as a Scale; refuses floats."""
        if isinstance(x, Scale):
            return x
        if isinstance(x, bool | float):
            raise TypeError(f"coefficients are exact: write {Fraction(x).limit_denominator(10**6)!r}, not {x!r}")
        if isinstance(x, int | Fraction):
            return Scale(Fraction(x))
        if getattr(x, "is_Rational", False):
            return Scale(Fraction(int(x.p), int(x.q)))
        return Scale(x)

    @staticmethod
    def power(dim: str, exponent) -> Scale:
        """Return ``dim^exponent``."""
        e = Affine.of(exponent)
        return Scale(Fraction(1), () if e.is_zero else ((dim, e),))

    @property
    def is_zero(self) -> bool:
        """Whether it is exactly zero."""
        return self.number == 0

    @property
    def symbols(self) -> tuple[str, ...]:
        """The unknown exponents in it."""
        return tuple(dict.fromkeys(s for _, e in self.powers for s in e.symbols))

    def exponent(self, growths: Mapping[str, Fraction], values: Values) -> Fraction:
        """Return the power of n that it is, the dimension ``d`` growing like ``n^growths[d]``."""
        total = Fraction(0)
        for dim, e in self.powers:
            g = growths[dim]
            if g:
                total += g * e.value(values)
        return total

    def at(self, sizes: Mapping[str, int], values: Values) -> float:
        """Return the number that it is when the dimensions have these sizes."""
        x = float(self.number)
        for dim, e in self.powers:
            x *= float(sizes[dim]) ** float(e.value(values))
        return x

    def __mul__(self, other) -> Scale:
        if not _is_number(other):
            return NotImplemented
        other = Scale.of(other)
        sums = dict(self.powers)
        for d, e in other.powers:
            sums[d] = sums[d] + e if d in sums else e
        number = _multiply(self.number, other.number)
        return Scale(number, tuple(sorted(((d, e) for d, e in sums.items() if not e.is_zero), key=lambda p: p[0])))

    __rmul__ = __mul__

    def __neg__(self) -> Scale:
        return Scale(-self.number, self.powers)

    def __truediv__(self, other) -> Scale:
        return self * Scale.of(other) ** -1 if _is_number(other) else NotImplemented

    def __rtruediv__(self, other) -> Scale:
        return self**-1 * other

    def __pow__(self, k) -> Scale:
        k = Fraction(k)
        return Scale(_power(self.number, k), tuple((d, e * k) for d, e in self.powers) if k else ())

    def __str__(self) -> str:
        head = number_text(self.number)
        sign = self.powers and self.number == -1
        parts = [] if sign or (self.powers and self.number == 1) else [head]
        if self.powers and getattr(self.number, "is_Add", False):
            parts = [f"({head})"]
        for d, e in self.powers:
            text = str(e)
            simple = text.lstrip("-").replace(".", "").isalnum()
            parts.append(d if text == "1" else f"{d}^{text}" if simple else f"{d}^({text})")
        return "-" * bool(sign) + "*".join(parts)


ONE = Scale()


def _is_number(x) -> bool:
    return isinstance(x, Scale | int | float | Fraction) or hasattr(x, "is_number")


def _exact(x: Number):
    import sympy

    return sympy.Rational(x.numerator, x.denominator) if isinstance(x, Fraction) else x


def _canonical(x: Number) -> Number:
    return Fraction(int(x.p), int(x.q)) if getattr(x, "is_Rational", False) else x


def _multiply(x: Number, y: Number) -> Number:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x * y
    return _canonical(_exact(x) * _exact(y))


def _power(x: Number, k: Fraction) -> Number:
    if isinstance(x, Fraction) and k.denominator == 1:
        return x ** int(k)
    if isinstance(x, Fraction) and x == 1:
        return x
    return _canonical(_exact(x) ** _exact(k))


def add_numbers(x: Number, y: Number) -> Number:
    """Return the exact sum of two numbers."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x + y
    return _canonical(_exact(x) + _exact(y))
