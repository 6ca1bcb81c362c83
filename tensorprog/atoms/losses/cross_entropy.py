"""cross_entropy: L = log sum_i exp(f_i) - sum_i y_i f_i for labels on the simplex, chi = softmax(f) - y."""

import numpy as np

from tensorprog.atoms.loss import Loss, LossGradient
from tensorprog.atoms.losses import register


def softmax(f):
    """Return softmax along the last axis."""
    e = np.exp(f - f.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _value(f, y) -> float:
    top = float(np.max(f))
    return top + float(np.log(np.sum(np.exp(f - top)))) - float(np.sum(y * f))


CROSS_ENTROPY = register(Loss(
    name="cross_entropy",
    value=_value,
    gradient=LossGradient("cross_entropy", lambda f, y: softmax(f) - y),
    sources=("bishop2006pattern",),
))
