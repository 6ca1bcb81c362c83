"""step(x) = 1 for x > 0, else 0: the derivative of relu."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.special import heaviside

STEP = register(Nonlinearity(
    name="step",
    numpy=lambda x: np.where(x > 0, x.dtype.type(1), x.dtype.type(0)),
    slope=None,
    derivative=None,
    sympy=lambda x: heaviside(x, 0),
    degree=Fraction(0), infinity=Fraction(0), kinks=(Fraction(0),), jumps=(Fraction(0),),
    pieces=piece(1, gates=[(0, 0)]),
    sources=("cho2009kernel",),
))
