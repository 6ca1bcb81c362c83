"""abs(x) = |x|; its derivative is sign."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import add, piece
from tensorprog.atoms.registry import register


def _sympy(x):
    import sympy

    return sympy.Abs(x)


ABS = register(Nonlinearity(
    name="abs",
    numpy=np.abs,
    slope=np.sign,
    derivative="sign",
    sympy=_sympy,
    parity="even", degree=Fraction(1), infinity=Fraction(1), kinks=(Fraction(0),),
    pieces=add(piece(0, 2, gates=[(0, 0)]), piece(0, -1)),
    sources=("cho2009kernel",),
))
