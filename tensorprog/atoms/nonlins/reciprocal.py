"""reciprocal(x) = 1/x, u' = -u^2."""

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth

LETTERS = {"u": Generator(lambda x: 1 / x, {"uu": -1}, lambda x: 1 / x)}

RECIPROCAL = register(smooth("reciprocal", {"u": 1}, LETTERS, parity="odd", degree=-1, infinity=-1, domain="nonzero",
                             sources=("dlmf",)))
