"""Adam: bias-corrected averages m of G and v of G^2; the direction is m / (sqrt(v) + eps), beta = 9/10 and 999/1000."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorprog.atoms.optimizers import register
from tensorprog.atoms.rule import Rule, over

BETAS = (0.9, 0.999)


def adam(gradients: Sequence[np.ndarray], eps: float) -> np.ndarray:
    """Return Adam's direction from all gradients so far."""
    m, v = (_average([g**k for g in gradients], beta) for k, beta in zip((1, 2), BETAS, strict=True))
    return over(m, np.sqrt(v) + eps)


def _average(xs: Sequence[np.ndarray], beta: float) -> np.ndarray:
    weights = [beta ** (len(xs) - 1 - s) for s in range(len(xs))]
    return sum(w * x for w, x in zip(weights, xs, strict=True)) / sum(weights)


ADAM = register(Rule(
    name="adam", degree=Fraction(0), direction_of=adam, has_eps=True, sources=("kingma2015adam",),
))
