"""Architectures: what they compute against plain numpy, their weights, and their refusals."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ParseError, TensorProgError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.program.instructions import Input, MatMul
from tensorprog.program.text import parse, to_text

from .weights import values

N = 8
EVERY = {
    "mlp": {"depth": 3, "bias": True},
    "resnet": {"depth": 2, "block": 2, "normalize": "layernorm", "bias": True},
    "transformer": {"depth": 1, "tokens": 3, "bias": True},
    "cnn": {"size": "4x3", "kernel": "3x2", "stride": 2, "pool": "1x2", "depth": 1, "bias": True, "readout": "flatten"},
    "rnn": {"depth": 2, "bias": True, "readout": "all"},
    "batchnorm": {"affine": True, "batch": 2},
    "gru": {"depth": 2, "bias": True, "readout": "average"},
}


@pytest.mark.parametrize("name", tp.nets.ARCHITECTURES)
def test_every_architecture_is_a_frozen_program_of_weights_that_are_all_used(name):
    net = tp.nets.ARCHITECTURES[name](**EVERY.get(name, {}))
    assert net.is_frozen and net.outputs and net.params
    used = {x.matrix for x in net.lines if isinstance(x, MatMul)}
    assert {p.out for p in net.params} <= used
    assert all(p.param.role for p in net.params), "a role for tables"
    assert all((p.param.a, p.param.b, p.param.c) == (None,) * 3 for p in net.params)
    seen = {a for x in net.lines for a in x.args}
    # the first token attends to itself only: its logit decides nothing
    idle = {x.out for x in net.lines if x.out.endswith("t1s1")}
    assert {x.out for x in net.lines if not isinstance(x, Input)} - idle <= seen | set(net.outputs), "no dead line"
    assert parse(to_text(net)) == net


@pytest.mark.parametrize("depth, bias, count", [(1, False, 2), (3, False, 4), (3, True, 7)])
def test_mlp_weights(depth, bias, count):
    net = tp.nets.mlp(depth, bias=bias, d_in=4, d_out=2)
    assert len(net.params) == count
    assert net.sizes(N) == {"n": N, "d_in": 4, "d_out": 2} | ({"unit": 1} if bias else {})


def test_mlp_is_the_formula():
    net, draws = tp.nets.mlp(2, activation="tanh"), Draws(N, 0)
    r = run(net, N, 0, values=values(net), draws=draws, keep="all", method="dense")
    W = {k: draws.normal(k, s) for k, s in {"W1": (N, 3), "W2": (N, N), "V": (1, N)}.items()}
    x = np.tanh(W["W2"] @ np.tanh(W["W1"] @ draws.data("xi", (3,))) / np.sqrt(N))
    np.testing.assert_allclose(r["f"], W["V"] @ x / np.sqrt(N))


def test_normalizations_are_the_formulas():
    for kind in ("layernorm", "rmsnorm"):
        net = tp.nets.resnet(1, normalize=kind)
        r = run(net, N, 0, values=values(net), keep="all", method="dense")
        x = r["x0"]
        c = x - x.mean() if kind == "layernorm" else x
        np.testing.assert_allclose(r["y1"], c / np.sqrt(np.mean(c * c) + 1e-5))


def test_attention_is_causal():
    """An output depends on its token and those before it, on none that comes later."""
    net = tp.nets.transformer(1, tokens=3)
    for t in (1, 2):
        later = {f"{data}{s}" for data in ("tok", "pos") for s in range(t + 1, 4)}
        todo, seen = [f"f_t{t}"], set()
        while todo:
            line = net.line_of(todo.pop())
            todo += [a for a in line.args if a not in seen]
            seen |= set(line.args)
        assert not seen & later and {f"tok{t}", "tok1"} <= seen


@pytest.mark.parametrize("regime, growths", [
    (None, (0, 1)), ({"heads": 0, "d_head": 1}, (0, 1)), ({"heads": 1, "d_head": 0}, (1, 0)), ({"heads": 1}, (1, 0)),
    ({"d_head": "1/2"}, None), ({"heads": "1/2", "d_head": 0}, (Fraction(1, 2), 0)),
])
def test_regimes_of_the_heads(regime, growths):
    if growths is None:
        with pytest.raises(NotCoveredError, match="two growing axes"):
            tp.nets.transformer(1, regime=regime)
        return
    dims = tp.nets.transformer(1, regime=regime).dims
    assert (dims["heads"].growth, dims["d_head"].growth) == growths


@pytest.mark.parametrize("make, match", [
    (lambda: tp.nets.mlp(0), "at least 1"),
    (lambda: tp.nets.mlp(1.5), "whole number"),
    (lambda: tp.nets.mlp(True), "whole number"),
    (lambda: tp.nets.mlp(1, activation="rellu"), "relu"),
    (lambda: tp.nets.resnet(1, block=3), "block=2"),
    (lambda: tp.nets.resnet(1, normalize="batchnorm"), "rmsnorm"),
    (lambda: tp.nets.transformer(1, tokens=0), "at least 1"),
    (lambda: tp.nets.transformer(1, regime={"head": 1}), "no such axis"),
])
def test_wrong_options_are_refused(make, match):
    with pytest.raises(ParseError, match=match):
        make()


@pytest.mark.parametrize("regime", [{"heads": 0, "d_head": 0}])
def test_attention_that_does_not_grow_is_refused(regime):
    with pytest.raises(NotCoveredError):
        tp.nets.transformer(1, regime=regime)


@pytest.mark.parametrize("make", [
    lambda: tp.nets.mlp(1, d_in=0), lambda: tp.nets.mlp(1, d_out=-1), lambda: tp.nets.transformer(1, heads=0),
    lambda: tp.nets.transformer(1, vocab=0), lambda: tp.nets.transformer(1, ffn=0), lambda: tp.nets.mlp(1, loss="l2"),
    lambda: tp.nets.transformer(1, regime={"heads": "x"}), lambda: tp.nets.transformer(1, regime={"d_head": "1/0"}),
])
def test_other_wrong_options_raise_our_own_errors(make):
    with pytest.raises(TensorProgError):
        tp.derive(make())
