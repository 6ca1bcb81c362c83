"""Networks with batch normalization: what they compute against plain numpy, gradients' scalings, and refusals."""

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import ParseError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run

from .weights import values

N = 8


@pytest.mark.parametrize("affine", [False, True])
def test_outputs_are_the_formula(affine):
    net, draws = tp.nets.batchnorm(2, batch=3, affine=affine, d_in=2), Draws(N, 0)
    r = run(net, N, 0, values=values(net), draws=draws, keep="all", method="dense")
    W = {k: draws.normal(k, s) for k, s in {"W1": (N, 2), "W2": (N, N), "V": (1, N)}.items()}
    x = np.array([draws.data(f"xi_{b}", (2,)) for b in (1, 2, 3)])
    for layer, scale in ((1, 1), (2, N**-0.5)):
        h = scale * x @ W[f"W{layer}"].T
        x = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)  # gain 1, bias 0
    np.testing.assert_allclose([r[f"f_{b}"] for b in (1, 2, 3)], x @ W["V"].T / np.sqrt(N))


def test_a_batch_learns_by_the_published_scaling():
    derived = tp.derive(tp.nets.batchnorm(2, batch=2), "adam").in_form("table8")
    assert {(w.role, w.a, w.b, w.c) for w in derived.weights.values()} == {
        (w.role, w.a, w.b, w.c) for w in tp.derive(tp.nets.mlp(2), "adam").in_form("table8").weights.values()}


@pytest.mark.parametrize("option, match", [({"depth": 0}, "at least 1"), ({"batch": 1}, "at least 2")])
def test_wrong_options_are_refused(option, match):
    with pytest.raises(ParseError, match=match):
        tp.nets.batchnorm(**option)
