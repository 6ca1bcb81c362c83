"""gaussian(x) = exp(-x^2/2), g' = -x g."""

from tensorprog.atoms.pieces import HALF, piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, X, smooth
from tensorprog.atoms.special import gaussian


def _sympy(x):
    import sympy

    return sympy.exp(-(x**2) / 2)


G = Generator(gaussian, {"gx": -1}, _sympy, piece(1, quadratic=-HALF))

GAUSSIAN = register(smooth("gaussian", {"g": 1}, {"g": G, "x": X}, parity="even", radius=40,
                           sources=("williams1997computing",)))
