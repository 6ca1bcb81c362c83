"""hard_tanh(x) = x clipped to [-1, 1]; its derivative is the indicator of |x| < 1."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import add, derivative, piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.special import heaviside

EDGES = (Fraction(-1), Fraction(1))
SOURCES = ("collobert2004large",)
PIECES = add(piece(-1), piece(1, 1, gates=[(-1, 0)]), piece(1, -1, gates=[(1, 0)]))


def _sympy(x):
    import sympy

    return sympy.Min(sympy.Max(x, -1), 1)


def _inside(x):
    return (np.abs(x) < 1) * 1.0


def _inside_sympy(x):
    return heaviside(x + 1, 0) - heaviside(x - 1, 1)


def _derivative() -> Nonlinearity:
    return Nonlinearity(
        name="d_hard_tanh", numpy=_inside, slope=None, derivative=None, sympy=_inside_sympy, parity="even",
        taylor=(True,) + (False,) * 6, kinks=EDGES, jumps=EDGES, sources=SOURCES,
        pieces=derivative(PIECES),
    )


HARD_TANH = register(Nonlinearity(
    name="hard_tanh",
    numpy=lambda x: np.clip(x, -1, 1),
    slope=_inside,
    derivative=_derivative,
    sympy=_sympy,
    parity="odd", taylor=(False, True) + (False,) * 5, infinity=Fraction(0), kinks=EDGES,
    sources=SOURCES, pieces=PIECES,
))
