"""square(x) = x^2."""

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import X, smooth

SQUARE = register(smooth("square", {"xx": 1}, {"x": X}, parity="even", degree=2, infinity=2, sources=("du2018power",)))
