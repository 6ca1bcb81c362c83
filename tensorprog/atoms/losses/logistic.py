"""logistic: L = sum_i log(1 + exp(-y_i f_i)) for labels -1 and 1, chi = -y sigmoid(-y f)."""

import numpy as np

from tensorprog.atoms.loss import Loss, LossGradient
from tensorprog.atoms.losses import register
from tensorprog.atoms.special import sigmoid, softplus


def _by_output(f, y):
    return y * y * sigmoid(y * f) * sigmoid(-y * f)


def _by_label(f, y):
    return sigmoid(-y * f) * (y * f * sigmoid(y * f) - 1)


LOGISTIC = register(Loss(
    name="logistic",
    value=lambda f, y: float(np.sum(softplus(-y * f))),
    gradient=LossGradient("logistic", lambda f, y: -y * sigmoid(-y * f), (_by_output, _by_label)),
    sources=("bishop2006pattern",),
))
