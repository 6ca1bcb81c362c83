"""Adam: bias-corrected averages m of G and v of G^2; the direction is m / (sqrt(v) + eps), beta = 9/10 and 999/1000."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorprog.atoms.optimizers import register
from tensorprog.atoms.rule import Rule, discounted, over

BETAS = (0.9, 0.999)


def adam(gradients: Sequence[np.ndarray], eps: float) -> np.ndarray:
    """Return Adam's direction from all gradients so far."""
    m, v = (discounted(gs, beta) * ((1 - beta) / (1 - beta ** len(gradients)))
            for gs, beta in zip((gradients, [g * g for g in gradients]), BETAS, strict=True))
    return over(m, np.sqrt(v) + eps)


ADAM = register(Rule(
    name="adam", degree=Fraction(0), direction_of=adam, has_eps=True, sources=("kingma2015adam",),
))
