"""sqrt(x), with v = 1/sqrt(x): s' = v/2, v' = -v^3/2."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth

HALF = Fraction(1, 2)


def _sympy(x):
    import sympy

    return sympy.sqrt(x)


LETTERS = {
    "s": Generator(np.sqrt, {"v": HALF}, _sympy),
    "v": Generator(lambda x: 1 / np.sqrt(x), {"vvv": -HALF}, lambda x: 1 / _sympy(x)),
}

SQRT = register(smooth("sqrt", {"s": 1}, LETTERS, degree=HALF, infinity=HALF, domain="positive", sources=("dlmf",)))
