"""squared: L = |f - y|^2 / 2, chi = f - y."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.loss import Loss, LossGradient
from tensorprog.atoms.losses import register

ONE = Fraction(1)

SQUARED = register(Loss(
    name="squared",
    value=lambda f, y: float(np.sum((f - y) ** 2)) / 2,
    gradient=LossGradient("squared", lambda f, y: f - y, (lambda f, y: 1 + 0 * (f - y), lambda f, y: -1 + 0 * (f - y)),
                          linear=(ONE, -ONE)),
    sources=("yang2021feature",),
))
