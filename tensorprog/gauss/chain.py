"""Chains of named quantities: exact numbers that are defined once, in order, and never multiplied out.

The limit of a deep program is a chain: each layer's covariance is a short formula in those of the layer below. A chain
keeps the formulas short, gives every quantity a name, and knows the value of each to any number of digits, by
which it also decides whether a number is zero.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tensorprog.errors import NotCoveredError

Number = Any  # a Fraction, or an exact sympy expression

#: Formulas of up to this many operations stay as they are.
_SMALL = 16
#: Below ``_DOUBT`` a number is computed again to more digits, and is zero if it is still below a tiny number; fewer
#: digits do where integrals without a closed form are in it, which cost more.
_DOUBT, _CLOSED, _OPEN = 1e-9, (40, 1e-30), (22, 1e-17)


class Chain:
    """Named quantities in the order of their definition.

    Example:
        >>> import sympy
        >>> chain = Chain()
        >>> s = chain.name(sum(sympy.sqrt(k) * sympy.sin(k) for k in range(2, 12)), "q")
        >>> s, round(float(chain.value(s)), 6), chain.is_zero(s - s), chain.sign(s)
        (q_1, -2.075914, True, -1)
        >>> chain.name(Fraction(1, 3)), chain.is_zero(sympy.sqrt(2) * sympy.sqrt(3) - sympy.sqrt(6))
        (Fraction(1, 3), True)
    """

    def __init__(self):
        self.definitions: dict[Any, Any] = {}
        self._names: dict[Any, Any] = {}
        self._values: dict[tuple[Any, int], Any] = {}
        self._counts: dict[str, int] = {}

    def name(self, x: Number, stem: str = "theta", *, small: int = _SMALL) -> Number:
        """Return ``x`` if its formula is short, else the symbol that stands for it from now on."""
        x = canonical(x)
        if isinstance(x, Fraction) or x.count_ops() <= small:
            return x
        if x in self._names:
            return self._names[x]
        import sympy

        self._counts[stem] = self._counts.get(stem, 0) + 1
        label = f"{stem}_{self._counts[stem]}"
        positive = not self.is_free(x) and self.value(x) > _DOUBT
        symbol = sympy.Symbol(label, positive=True) if positive else sympy.Symbol(label, real=True)
        self._names[x] = symbol
        self.definitions[symbol] = x
        return symbol

    def is_free(self, x: Number) -> bool:
        """Return whether a number depends on a symbol that has no definition, and so no value."""
        if isinstance(x, Fraction | int):
            return False
        return any(self.is_free(self.definitions[s]) if s in self.definitions else True for s in x.free_symbols)

    def value(self, x: Number, digits: int = 15):
        """Return the number to this many digits, an mpmath mpf (or mpc); named quantities are evaluated once.

        Raises:
            NotCoveredError: it depends on a symbol without a value.
        """
        import mpmath
        import sympy

        if isinstance(x, Fraction | int):
            with mpmath.workdps(digits + 5):
                return mpmath.mpf(Fraction(x).numerator) / Fraction(x).denominator
        known = {}
        for symbol in x.free_symbols:
            if symbol not in self.definitions:
                raise NotCoveredError(str(x)[:120], str(symbol), "this symbol has no value", "give it a number")
            key = (symbol, digits)
            if key not in self._values:
                self._values[key] = self.value(self.definitions[symbol], digits)
            known[symbol] = sympy.Float(self._values[key], digits + 5)
        found = x.xreplace(known) if known else x
        if digits <= 15 and has_integral(found):  # to more than double precision would be another computation
            found = found.xreplace({e: self._integral(e) for e in integrals(found)})
        found = found.evalf(digits + 5)
        with mpmath.workdps(digits + 5):
            real, imaginary = found.as_real_imag()
            if imaginary != 0:
                return mpmath.mpc(mpmath.mpf(real), mpmath.mpf(imaginary))
            return mpmath.mpf(real)

    def _integral(self, node):
        import sympy

        if (node, 0) not in self._values:
            self._values[node, 0] = sympy.Float(node.estimate(1e-13).value, 20)
        return self._values[node, 0]

    def is_zero(self, x: Number) -> bool:
        """Return whether a number is zero: by its value to 40 digits, or by algebra if it has free symbols."""
        if isinstance(x, Fraction | int):
            return x == 0
        if x.is_zero is not None:
            return bool(x.is_zero)
        if self.is_free(x):
            return bool(x.expand() == 0)
        if abs(self.value(x)) > _DOUBT:
            return False
        digits, tiny = _OPEN if self.has_integral(x) else _CLOSED
        return bool(abs(self.value(x, digits)) < tiny)

    def has_integral(self, x: Number) -> bool:
        """Return whether a number depends on an expectation that has no closed form."""
        return not isinstance(x, Fraction) and (has_integral(x) or any(
            self.has_integral(self.definitions[s]) for s in x.free_symbols if s in self.definitions))

    def sign(self, x: Number) -> int:
        """Return -1, 0 or 1.

        Raises:
            NotCoveredError: it depends on a symbol without a value, and its assumptions do not tell.
        """
        if isinstance(x, Fraction | int):
            return (x > 0) - (x < 0)
        if x.is_positive:
            return 1
        if x.is_negative:
            return -1
        if self.is_zero(x):
            return 0
        if self.is_free(x):
            raise NotCoveredError(str(x)[:120], str(x)[:120], "the sign of this is not known",
                                  "give the symbol a number")
        return 1 if self.value(x) > 0 else -1


def canonical(x) -> Number:
    """Return an exact number: rationals as Fractions, everything else as it is; refuses floats.

    >>> import sympy
    >>> canonical(sympy.Rational(1, 2)), canonical(3), canonical(sympy.sqrt(2))
    (Fraction(1, 2), Fraction(3, 1), sqrt(2))
    """
    if isinstance(x, Fraction):
        return x
    if isinstance(x, bool | float):
        raise TypeError(f"exact numbers only, not {x!r}")
    if isinstance(x, int):
        return Fraction(x)
    if x.is_Rational:
        return Fraction(int(x.p), int(x.q))
    return x


def integrals(x) -> set:
    """Return the expectations without a closed form in a sympy expression."""
    from tensorprog.gauss.expectation import Expect

    return x.atoms(Expect)


def has_integral(x) -> bool:
    """Return whether an expectation without a closed form stands in a sympy expression."""
    from tensorprog.gauss.expectation import Expect

    return bool(x.has(Expect))


def exact(x) -> Any:
    """Return a number as a sympy expression.

    >>> exact(Fraction(1, 2))
    1/2
    """
    import sympy

    return sympy.Rational(x.numerator, x.denominator) if isinstance(x, Fraction | int) else x


def add(x: Number, y: Number) -> Number:
    """Return the sum, a Fraction if both are."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x + y
    return canonical(exact(x) + exact(y))


def mul(x: Number, y: Number) -> Number:
    """Return the product, a Fraction if both are or it is."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x * y
    return canonical(exact(x) * exact(y))
