"""Recurrent networks: programs by hand, plain recursions at finite width, published covariances of states."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import ParseError, TensorProgError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.program.program import spell

from .weights import drawn, with_variances

N = 7


def forward(net):
    return [spell(line) for line in net.lines if line.args]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ----------------------------------------------------------------------------------------------------- by hand


def test_two_times():
    assert forward(tp.nets.rnn(2, activation="relu")) == [
        "h1_t1 = U1 @ xi_t1", "s1_t1 = relu(h1_t1)", "u1_t2 = U1 @ xi_t2", "w1_t2 = W1 @ s1_t1",
        "h1_t2 = u1_t2 + w1_t2", "s1_t2 = relu(h1_t2)", "f = V @ s1_t2"]


def test_two_times_of_gates():
    assert forward(tp.nets.gru(2)) == [
        "hz1_t1 = Uz1 @ xi_t1", "z1_t1 = sigmoid(hz1_t1)", "h1_t1 = U1 @ xi_t1", "c1_t1 = tanh(h1_t1)",
        "s1_t1 = c1_t1 - c1_t1*z1_t1",
        "uz1_t2 = Uz1 @ xi_t2", "wz1_t2 = Wz1 @ s1_t1", "hz1_t2 = uz1_t2 + wz1_t2", "z1_t2 = sigmoid(hz1_t2)",
        "ur1_t2 = Ur1 @ xi_t2", "wr1_t2 = Wr1 @ s1_t1", "hr1_t2 = ur1_t2 + wr1_t2", "r1_t2 = sigmoid(hr1_t2)",
        "rs1_t2 = r1_t2*s1_t1", "u1_t2 = U1 @ xi_t2", "w1_t2 = W1 @ rs1_t2", "h1_t2 = u1_t2 + w1_t2",
        "c1_t2 = tanh(h1_t2)", "s1_t2 = z1_t2*s1_t1 + c1_t2 - z1_t2*c1_t2", "f = V @ s1_t2"]


@pytest.mark.parametrize("length", [1, 2, 30])
def test_weights_are_shared_over_time(length):
    names = [w.out for w in tp.nets.rnn(length, depth=2, bias=True).params]
    over = ["W1", "W2"] if length > 1 else []
    assert sorted(names) == sorted(["U1", "b1", "U2", "b2", "V", *over])
    roles = {w.out: w.param.role for w in tp.nets.gru(max(length, 2), bias=True, depth=2).params}
    assert roles == {f"{k}{g}{i}": "bias" if k == "b" else "hidden" if k == "W" or i == 2 else "input"
                     for k in "UWb" for g in ("z", "r", "") for i in (1, 2)} | {"V": "readout"}


@pytest.mark.parametrize("make", [tp.nets.rnn, tp.nets.gru])
def test_readouts(make):
    assert make(3, readout="all").outputs == ("f_t1", "f_t2", "f_t3")
    assert "y = 1/3*s1_t1 + 1/3*s1_t2 + 1/3*s1_t3" in forward(make(3, readout="average"))
    assert forward(make(3))[-1] == "f = V @ s1_t3"


# -------------------------------------------------------------------------------------------------- finite width


@pytest.mark.parametrize("readout", ["last", "average", "all"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_finite_width_is_the_recursion(kind, depth, readout):
    net = tp.nets.ARCHITECTURES[kind](4, depth=depth, readout=readout, d_in=2, d_out=2, bias=True)
    draws = Draws(N, 1)
    W = drawn(net, N, draws)
    xs = [draws.data(f"xi_t{t}", (2,)) for t in range(1, 5)]
    for k in range(1, depth + 1):
        s, states = np.zeros(N), []
        for x in xs:
            if kind == "rnn":
                s = np.tanh(W[f"U{k}"] @ x + W[f"W{k}"] @ s + W[f"b{k}"][:, 0])
            else:
                z, r = (sigmoid(W[f"U{g}{k}"] @ x + W[f"W{g}{k}"] @ s + W[f"b{g}{k}"][:, 0]) for g in "zr")
                s = z * s + (1 - z) * np.tanh(W[f"U{k}"] @ x + W[f"W{k}"] @ (r * s) + W[f"b{k}"][:, 0])
            states.append(s)
        xs = states
    found = run(with_variances(net, {}), N, 1, keep="all", draws=draws, method="dense")
    if readout == "all":
        for t, s in enumerate(xs, 1):
            np.testing.assert_allclose(found[f"f_t{t}"], W["V"] @ s, rtol=1e-12)
    else:
        np.testing.assert_allclose(found["f"], W["V"] @ (xs[-1] if readout == "last" else np.mean(xs, 0)), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- limits

#: B.rnn.erf: the covariances of s_1, s_2, s_3 of an erf network, variances 6/5 (W), 1/2 (U), 1/10 (b).
COVARIANCES = [0.3672859016761556, 0.04894932136120253, 0.2541240484816183, 0.4721281572009205, 0.23482091975905287,
               0.5587087186647488]
VARIANCES = {"W1": Fraction(6, 5), "U1": Fraction(1, 2), "b1": Fraction(1, 10)}
DATA = {"xi_t1": (1, 0), "xi_t2": (0, 1), "xi_t3": (1, 1)}


def states(variances):
    net = with_variances(tp.nets.rnn(3, activation="erf", d_in=2, bias=True, readout="all"), variances).copy()
    pairs = [(t, u) for t in (1, 2, 3) for u in range(t, 4)]
    return net, [net.let(f"K{t}{u}", net.mean(net[f"s1_t{t}"] * net[f"s1_t{u}"])).name for t, u in pairs]


def test_published_covariances_of_the_states():
    net, names = states(VARIANCES)
    found = net.limit(names, data=DATA)
    assert all(x.method == "exact" for x in found.values())
    assert [x.value for x in found.values()] == pytest.approx(COVARIANCES, abs=1e-9)
    wrong, names = states(VARIANCES | {"W1": Fraction(7, 5)})
    assert wrong.limit(names[3], data=DATA).value != pytest.approx(COVARIANCES[3], abs=1e-3)


def test_outputs_at_all_times_have_the_covariances_of_the_states():
    net, _ = states(VARIANCES)
    found = net.limit(["f_t1", "f_t2", "f_t3"], data=DATA)
    got = [found[f"f_t{t}"].covariance(found[f"f_t{u}"]) for t in (1, 2, 3) for u in range(t, 4)]
    chain = found["f_t1"].limits.chain
    assert [chain.value(x) for x in got] == pytest.approx(COVARIANCES, abs=1e-9)


def test_a_gated_state_in_the_limit_by_hand():
    """s_1 = (1 - z) c, z and c independent: E s_1^2 = E sigmoid(g)^2 E tanh(g')^2, both of variance 1."""
    net = with_variances(tp.nets.gru(1, d_in=1), {}).copy()
    net.let("K", net.mean(net["s1_t1"] * net["s1_t1"]))
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    want = (w @ sigmoid(-x) ** 2) * (w @ np.tanh(x) ** 2)
    assert net.limit("K", data={"xi_t1": (1,)}).value == pytest.approx(want, abs=1e-9)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("make", [tp.nets.rnn, tp.nets.gru])
@pytest.mark.parametrize("options, match", [
    ({"length": 0}, "at least 1"), ({"depth": 0}, "at least 1"), ({"length": 2.5}, "whole number"),
    ({"readout": "first"}, "last, average, all"), ({"activation": "tahn"}, "tanh"),
])
def test_wrong_options_are_refused(make, options, match):
    with pytest.raises(ParseError, match=match):
        make(**options)


@pytest.mark.parametrize("options", [{"d_in": 0}, {"d_out": 0}, {"loss": "l2"}])
def test_other_wrong_options_raise_our_own_errors(options):
    for make in (tp.nets.rnn, tp.nets.gru):
        with pytest.raises(TensorProgError):
            tp.derive(make(1, **options))
