"""silu(x) = x sigmoid(x), also called swish."""

from tensorprog.atoms.nonlins.sigmoid import LETTERS
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import X, smooth

SILU = register(smooth("silu", {"sx": 1}, LETTERS | {"x": X}, infinity=1, radius=1000,
                       sources=("elfwing2018sigmoid", "ramachandran2017searching")))
