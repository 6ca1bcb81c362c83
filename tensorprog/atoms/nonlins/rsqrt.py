"""rsqrt(x, eps) = 1/sqrt(x + eps) for x >= 0 (x > 0 if eps = 0, which is the default): what layer norms divide by."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import Family, register
from tensorprog.atoms.smooth import Generator, smooth
from tensorprog.errors import RecordError

HALF, ONE = Fraction(1, 2), Fraction(1)


def rsqrt(eps: Fraction) -> Nonlinearity:
    """Return the record; homogeneous of degree -1/2 only without eps."""
    if eps < 0:
        raise RecordError(f"rsqrt({eps})", eps, "eps is not negative", "write 1/100000")

    def formula(x):
        import sympy

        return 1 / sympy.sqrt(x + sympy.Rational(eps.numerator, eps.denominator))

    v = Generator(lambda x: 1 / np.sqrt(x + x.dtype.type(float(eps))), {"vvv": -HALF}, formula)
    return smooth(f"rsqrt({eps})", {"v": 1}, {"v": v}, degree=None if eps else -HALF, infinity=-HALF,
                  domain="nonnegative" if eps else "positive", sources=("ba2016layer",), params=(eps,),
                  scale=eps or ONE)


RSQRT = register(Family("rsqrt", rsqrt, examples=((0,), (Fraction(1, 100_000),), (1,)), default=(0,)))
