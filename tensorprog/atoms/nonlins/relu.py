"""relu(x) = max(x, 0)."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import piece
from tensorprog.atoms.registry import register


def _sympy(x):
    import sympy

    return sympy.Max(x, 0)


RELU = register(Nonlinearity(
    name="relu",
    numpy=lambda x: np.maximum(x, 0),
    slope=lambda x: (x > 0) * 1.0,
    derivative="step",
    sympy=_sympy,
    degree=Fraction(1), infinity=Fraction(1), kinks=(Fraction(0),), pieces=piece(0, 1, gates=[(0, 0)]),
    sources=("nair2010rectified", "cho2009kernel"),
))
