"""identity(x) = x."""

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import X, smooth

IDENTITY = register(smooth("identity", {"x": 1}, {"x": X}, parity="odd", degree=1, infinity=1,
                           sources=("saxe2014exact",)))
