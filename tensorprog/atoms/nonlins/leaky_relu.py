"""leaky_relu(x, slope) = x for x > 0, slope*x for x < 0; slope 1/100 unless given."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import add, derivative, piece
from tensorprog.atoms.registry import Family, register
from tensorprog.atoms.special import heaviside
from tensorprog.errors import RecordError

ZERO, ONE = Fraction(0), Fraction(1)
SOURCES = ("maas2013rectifier",)


def leaky_relu(slope: Fraction) -> Nonlinearity:
    """Return the record; slopes that make it the identity, relu or abs are refused."""
    if slope in (-1, 0, 1):
        other = {-1: "abs", 0: "relu", 1: "identity"}[int(slope)]
        raise RecordError(f"leaky_relu({slope})", slope, f"this is {other}", f"write {other}(x)")
    low = float(slope)

    def values(x):
        return np.where(x > 0, x, x.dtype.type(low) * x)

    def step(x):
        return np.where(x > 0, x.dtype.type(1), x.dtype.type(low))

    def formula(x):
        import sympy

        return sympy.Max(x, 0) + sympy.Rational(slope.numerator, slope.denominator) * sympy.Min(x, 0)

    def step_formula(x):
        import sympy

        s = sympy.Rational(slope.numerator, slope.denominator)
        return s + (1 - s) * heaviside(x, 0)

    pieces = add(piece(0, 1 - slope, gates=[(0, 0)]), piece(0, slope))

    def derive() -> Nonlinearity:
        return Nonlinearity(
            name=f"d_leaky_relu({slope})", numpy=step, slope=None, derivative=None, sympy=step_formula, degree=ZERO,
            infinity=ZERO, kinks=(ZERO,), jumps=(ZERO,), sources=SOURCES, params=(slope,), pieces=derivative(pieces),
        )

    return Nonlinearity(
        name=f"leaky_relu({slope})", numpy=values, slope=step, derivative=derive, sympy=formula, degree=ONE,
        infinity=ONE, kinks=(ZERO,), sources=SOURCES, params=(slope,), pieces=pieces,
    )


LEAKY_RELU = register(Family("leaky_relu", leaky_relu, default=(Fraction(1, 100),),
                             examples=((Fraction(1, 100),), (Fraction(1, 5),), (Fraction(-1, 2),))))
