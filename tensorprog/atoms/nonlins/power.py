"""power(x, p) = x^p for x > 0 and a rational p, with u = 1/x, y = x^p: y' = p u y, u' = -u^2."""

from fractions import Fraction

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.nonlins.reciprocal import LETTERS
from tensorprog.atoms.registry import Family, register
from tensorprog.atoms.smooth import Generator, smooth
from tensorprog.errors import RecordError


def power(p: Fraction) -> Nonlinearity:
    """Return the record of x^p on x > 0, p not 0."""
    if p == 0 or abs(p) > 12:
        raise RecordError(f"power({p})", p, "the power is a rational other than 0, at most 12", "write power(x, 1/3)")

    def formula(x):
        import sympy

        return x ** sympy.Rational(p.numerator, p.denominator)

    y = Generator(lambda x: x ** float(p), {"uy": p}, formula)
    return smooth(f"power({p})", {"y": 1}, LETTERS | {"y": y}, degree=p, infinity=p, domain="positive",
                  sources=("dlmf",), params=(p,))


POWER = register(Family("power", power, examples=((Fraction(1, 3),), (Fraction(-3, 2),), (2,), (Fraction(7, 13),))))
