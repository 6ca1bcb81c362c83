"""gelu(x) = x P(x), P the standard Gaussian's distribution function, p its density: P' = p, p' = -x p."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.pieces import density, piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, X, smooth
from tensorprog.atoms.special import cdf, gaussian


def _cdf(x):
    import sympy

    return (1 + sympy.erf(x / sympy.sqrt(2))) / 2


def _density(x):
    import sympy

    return sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)


LETTERS = {
    "P": Generator(cdf, {"p": 1}, _cdf, piece(1, gates=[(0, 1)])),
    "p": Generator(lambda x: gaussian(x) * float(1 / np.sqrt(2 * np.pi)), {"px": -1}, _density,
                   density(Fraction(0), Fraction(1))),
    "x": X,
}

GELU = register(smooth("gelu", {"Px": 1}, LETTERS, infinity=1, radius=40, sources=("hendrycks2016gelu",)))
