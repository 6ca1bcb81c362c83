"""Training has one law, whether the matrices are formed or only what they do to vectors is drawn."""

import numpy as np
import pytest
from scipy import stats

from tensorprog.finite import numpy_backend
from tensorprog.finite.matrix_free import LazyGaussian
from tensorprog.finite.numpy_backend import run

from .standins import mlp, mup

PROGRAM, VALUES, NAMES = mlp(depth=2, batch=2, steps=2), mup(2), ("f[1,0]", "f[2,0]", "f[2,1]")


def pvalue(n, seeds):
    """Return the smallest p-value of Kolmogorov-Smirnov tests of the outputs of two steps of SGD, by either method."""
    outputs = [
        {name: np.array([r[name][0] for r in runs]) for name in NAMES}
        for method, first in (("dense", 0), ("matrix-free", seeds))
        for runs in [[run(PROGRAM, n, first + s, values=VALUES, method=method) for s in range(seeds)]]
    ]
    return min(stats.ks_2samp(outputs[0][name], outputs[1][name]).pvalue for name in NAMES)


class Forgetful(LazyGaussian):
    """Draws what the transpose does to gradients as if it were another matrix."""

    def _draw(self, side, back, known, transposed):
        keys = [(*self._key, 2 + transposed, use) for use in range(known, side.count)]
        return np.stack([self._draws.fresh((side.other,), key) for key in keys])


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 8])
def test_two_steps_of_training_have_one_law(n):
    assert pvalue(n, 2000) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 8])
def test_a_matrix_that_forgets_its_transpose_is_seen(n, monkeypatch):
    monkeypatch.setattr(numpy_backend, "LazyGaussian", Forgetful)
    assert pvalue(n, 2000) < 1e-6
