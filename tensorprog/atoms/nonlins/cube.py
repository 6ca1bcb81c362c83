"""cube(x) = x^3."""

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import X, smooth

CUBE = register(smooth("cube", {"xxx": 1}, {"x": X}, parity="odd", degree=3, infinity=3, sources=("chen2014fast",)))
