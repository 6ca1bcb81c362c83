"""cos, of the same circle as sin."""

from tensorprog.atoms.nonlins.sin import CIRCLE
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import smooth

COS = register(smooth("cos", {"c": 1}, CIRCLE, parity="even", sources=("rahimi2007random",)))
