"""Kernels of neural-tangents 0.6.5, which knows fewer networks, and of ours: the same numbers from two formulas."""

import json
import math
import os
import re
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.atoms.multivariate import Softmax
from tensorprog.atoms.registry import nonlinearity
from tensorprog.kernels import Regression, nngp, ntk
from tensorprog.nets.layers import total
from tensorprog.program.build import apply

HERE = Path(__file__).parent
#: Relative to the largest entry. The peer's float64 is good to this, off the diagonal of a tangent kernel with a kink.
TOL = 1e-10


class Peer:
    """A process of the other interpreter."""

    def __init__(self, python, folder):
        self.folder = folder
        self.process = subprocess.Popen([python, HERE / "server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.version = self.read()

    def read(self):
        line = self.process.stdout.readline()
        assert line, f"TENSORPROG_PEER={self.process.args[0]} does not run neural-tangents: see requirements.txt"
        return json.loads(line)

    def kernels(self, network, X, Y, **training):
        """Return K(X, X) and K(X, Y) of both kinds; with targets and times also what training makes of them."""
        np.savez(self.folder / "inputs.npz", X=X, Y=Y, **training)
        out = str(self.folder / "kernels.npz")
        ask = {"network": network, "inputs": str(self.folder / "inputs.npz"), "out": out}
        self.process.stdin.write(json.dumps(ask) + "\n")
        self.process.stdin.flush()
        error = self.read()
        assert error is None, error
        return dict(np.load(out))


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    found = Peer(os.environ["TENSORPROG_PEER"], tmp_path_factory.mktemp("peer"))
    yield found
    found.process.communicate(timeout=30)


@dataclass(frozen=True)
class Case:
    """A network in both languages.

    Attributes:
        ours: a program; ``options``: its constants.
        theirs: layers, see server.py.
        shape: of an input, as the peer has it; ours has its positions on one axis.
        exact: the kinds of which the peer has the diagonal to all digits; not the tangent kernel where slopes jump.
    """

    ours: Any
    theirs: list
    options: dict = field(default_factory=dict)
    shape: tuple[int, ...] = (4,)
    exact: tuple[str, ...] = ("nngp", "ntk")
    tol: float = TOL

    def inputs(self, count, seed):
        return np.random.default_rng(seed).standard_normal((count, *self.shape))


def flat(X):
    """Return arrays of positions along one axis, as ours takes them."""
    return X if X.ndim == 2 else X.reshape(len(X), -1, X.shape[-1])


def dense(W=1.0, b=None, **more):
    return ["Dense", {"out_dim": 8, "W_std": W, "b_std": b} | more]


def exact(name):
    """Return ``Case.exact`` of a nonlinearity."""
    return ("nngp",) if name in ("relu", "abs", "leaky_relu(1/5)") else ("nngp", "ntk")


#: Ours, and what the peer calls it.
ACTIVATIONS = {
    "relu": ["Relu", {}], "abs": ["Abs", {}], "leaky_relu(1/5)": ["LeakyRelu", {"alpha": 0.2}], "erf": ["Erf", {}],
    "gelu": ["Gelu", {}], "sin": ["Sin", {}], "cos": ["Cos", {}], "exp": ["Exp", {"b": 1}],
    "gaussian": ["Gaussian", {"b": -0.5}], "identity": ["Identity", {}], "square": ["Monomial", {"degree": 2}],
    "cube": ["Monomial", {"degree": 3}], "monomial(4)": ["Monomial", {"degree": 4}],
}


def record(name):
    """Return ``leaky_relu`` with its slope for "leaky_relu(1/5)"."""
    name, _, given = name.rstrip(")").partition("(")
    return nonlinearity(name, *(Fraction(given),) if given else ())


def mlp(name, depth=2, b=None, W=1.3, d=4, tol=TOL):
    """Return a perceptron whose weights have the standard deviation W over the root of their fan-in."""
    options: dict = {"multipliers": {"input": W / math.sqrt(d), "hidden": W, "readout": 0.9}}
    if b is not None:
        options["multipliers"]["bias"], options["variances"] = b, {"bias": 1}
    layers = [x for _ in range(depth) for x in (dense(W, b), ACTIVATIONS[name])]
    return Case(tp.nets.mlp(depth, activation=record(name), d_in=d, bias=b is not None), [*layers, dense(0.9)], options,
                (d,), exact(name), tol)


def standard(name, base=24, d=4):
    """Return a perceptron in the peer's standard parametrization: widths ``base`` times s, multipliers s^-1/2."""
    W, b = 1.2, 0.3
    layers = [["Dense", {"out_dim": base, "W_std": W, "b_std": b, "parameterization": "standard"}], ACTIVATIONS[name]]
    last = ["Dense", {"out_dim": base, "W_std": W, "parameterization": "standard"}]
    options = {"multipliers": {"hidden": math.sqrt(base), "readout": math.sqrt(base)},
               "variances": {"input": W * W / d, "hidden": W * W / base, "readout": W * W / base, "bias": b * b}}
    return Case(tp.nets.mlp(2, activation=record(name), d_in=d, bias=True), [*layers, *layers, last], options, (d,),
                exact(name))


def resnet(name, depth=2, normalize="none", block=1, W=0.8, d=4):
    """Return a residual network; the peer's LayerNorm has neither gain nor bias, ours then does not train them."""
    act, norm = ACTIVATIONS[name], [["LayerNorm", {"eps": 1e-5}]] if normalize != "none" else []
    branch = [*norm, *([dense(W)] if block == 2 else []), act, dense(W)]
    layers = [["FanOut", {"num": 2}], ["parallel", [[["Identity", {}]], branch]], ["FanInSum", {}]] * depth
    net = tp.nets.resnet(depth, activation=record(name), block=block, normalize=normalize, d_in=d)
    options = {"multipliers": {"input": 1.5 / math.sqrt(d), "hidden": W}}
    if norm:
        options["rates"] = {"gain": 0, "bias": 0} if normalize == "layernorm" else {"gain": 0}
    return Case(net, [dense(1.5), *layers, *norm, dense(1.0)], options, (d,), exact(name))


def cnn(name, size, kernel, *, depth=2, stride=1, padding="same", pool=1, readout="average", b=None, W=1.4, d=3):
    """Return a convolutional network. Of a stride s the peer's "same" padding is ours where s divides size - 1."""
    sizes, filters, strides, window = (x if isinstance(x, tuple) else (x,) * np.size(size)
                                       for x in (size, kernel, stride, pool))
    entries = math.prod(filters)
    options: dict = {"multipliers": {"input": W / math.sqrt(entries * d), "hidden": W / math.sqrt(entries)}}
    if b is not None:
        options["multipliers"]["bias"], options["variances"] = b, {"bias": 1}
    conv = ["Conv", {"out_chan": 8, "filter_shape": filters, "strides": strides, "padding": padding.upper(),
                     "W_std": W, "b_std": b}]
    pooled = [["AvgPool", {"window_shape": window, "strides": window}]] if math.prod(window) > 1 else []
    last = ["GlobalAvgPool", {}] if readout == "average" else ["Flatten", {}]
    net = tp.nets.cnn(depth, size=sizes, kernel=filters, stride=strides, padding=padding, pool=window, readout=readout,
                      activation=record(name), d_in=d, bias=b is not None)
    if readout == "flatten":
        places = sum(w.param.role == "readout" for w in net.params)
        options["multipliers"]["readout"] = 1 / math.sqrt(places)
    return Case(net, [*[conv, ACTIVATIONS[name], *pooled] * depth, last, dense(1.0)], options, (*sizes, d),
                exact(name))


def attention(mechanism, tokens=3, d=4):
    """Return attention whose queries are its keys, with logits over the width, between relu and erf."""
    p = tp.Program(loss="squared")
    n = p.dim("n")
    xs = [p.data(f"xi_t{t}", p.dim("d", d)) for t in range(tokens)]
    first, (Q, V, out) = p.param("E", n, xs[0].type.dim, role="input"), (p.param(k, n, n) for k in ("Q", "V", "O"))
    xs = [tp.relu(first @ x) for x in xs]
    qs, vs = [Q @ x for x in xs], [V @ x for x in xs]
    ys = []
    for q in qs:
        logits = [p.mean(q * k) for k in qs]
        if mechanism == "SOFTMAX":
            logits = [apply(Softmax(tokens, s), *logits) for s in range(tokens)]
        ys.append(tp.erf(out @ total([w * v for w, v in zip(logits, vs, strict=True)])))
    p.output(p.let("f", p.param("F", p.dim("one", 1), n, role="readout") @ (total(ys) / tokens)))
    options = {"multipliers": {"input": 1.2 / math.sqrt(d), "Q": math.sqrt(0.8 * 1.1), "V": 0.7, "O": 1.3}}
    mixed = ["GlobalSelfAttention", {
        "n_chan_out": 8, "n_chan_key": 8, "n_chan_val": 8, "n_heads": 8, "W_key_std": 0.8, "W_query_std": 1.1,
        "W_value_std": 0.7, "W_out_std": 1.3, "attention_mechanism": mechanism}]
    return Case(p.freeze(), [dense(1.2), ["Relu", {}], mixed, ["Erf", {}], ["GlobalAvgPool", {}], dense(1.0)], options,
                (tokens, d), exact=("nngp",))


def gated(name="erf", d=4):
    """Return products of a gate and a linear part, ``phi(A x) * (B x)``, twice."""
    p = tp.Program(loss="squared")
    n = p.dim("n")
    x = p.data("xi", p.dim("d", d))
    for layer in (1, 2):
        A, B = (p.param(f"{k}{layer}", n, x.type.dim, role="input" if layer == 1 else "hidden") for k in "AB")
        x = p.let(f"y{layer}", apply(record(name), A @ x) * (B @ x))
    p.output(p.let("f", p.param("V", p.dim("one", 1), n, role="readout") @ x))
    layers = [["FanOut", {"num": 2}], ["parallel", [[dense(1.1), ACTIVATIONS[name]], [dense(1.1)]]], ["FanInProd", {}]]
    return Case(p.freeze(), [*layers, *layers, dense(1.0)],
                {"multipliers": {"input": 1.1 / math.sqrt(d), "hidden": 1.1}}, (d,), exact(name))


def rectified(power, d=4):
    """Return one layer of ``max(x, 0)^power``, made from its formula; the peer has no numbers on its diagonal."""
    import sympy

    x = sympy.Symbol("x", real=True)
    phi = tp.from_sympy(sympy.Max(x, 0) ** power, name=f"relu^{power}")
    options = {"multipliers": {"input": 0.9 / math.sqrt(d)}}
    layers = [dense(0.9), ["RectifiedMonomial", {"degree": power}], dense(1.0)]
    return Case(tp.nets.mlp(1, activation=phi, d_in=d), layers, options, (d,), ())


CASES = {
    **{name: lambda name=name: mlp(name, W=0.7 if name in ("exp", "cube", "monomial(4)") else 1.3)
       for name in ACTIVATIONS},
    **{f"{name} with biases": lambda name=name: mlp(name, 3, b=0.4, W=0.7 if name == "exp" else 1.3)
       for name in ("relu", "abs", "erf", "gelu", "sin", "cos")},
    **{f"{name}, variances of {w * w}": lambda name=name, w=w: mlp(name, W=w)
       for name in ("erf", "gelu", "sin", "gaussian") for w in (10.0, 0.1)},
    **{f"relu to the {power}": lambda power=power: rectified(power) for power in (1, 2, 3)},
    "gated erf": gated,
    "gated relu": lambda: gated("relu"),
    "relu, depth 30": lambda: mlp("relu", 30, W=math.sqrt(2)),
    "relu with biases, depth 30": lambda: mlp("relu", 30, b=0.1, W=math.sqrt(2)),
    "gelu with biases, depth 10": lambda: mlp("gelu", 10, b=0.1, W=1.5),
    **{f"standard {name}": lambda name=name: standard(name) for name in ("relu", "erf", "gelu")},
    "resnet": lambda: resnet("relu"),
    "resnet, two weights a block": lambda: resnet("erf", 3, block=2),
    "resnet layernorm": lambda: resnet("relu", 3, "layernorm"),
    "resnet layernorm, two weights a block": lambda: resnet("gelu", 2, "layernorm", 2),
    "resnet rmsnorm": lambda: resnet("erf", 2, "rmsnorm"),
    "cnn": lambda: cnn("relu", 5, 3),
    "cnn, depth 3, biases": lambda: cnn("erf", 6, 3, depth=3, b=0.3),
    "cnn flattened": lambda: cnn("gelu", 6, 3, readout="flatten"),
    "cnn flattened, even filter": lambda: cnn("relu", 6, 2, depth=3, readout="flatten"),
    "cnn valid": lambda: cnn("erf", 8, 3, padding="valid"),
    "cnn valid, strides": lambda: cnn("relu", 11, 3, padding="valid", stride=2, readout="flatten"),
    "cnn same, strides": lambda: cnn("relu", 9, 3, stride=2),
    "cnn circular": lambda: cnn("relu", 5, 3, padding="circular"),
    "cnn circular, even filter": lambda: cnn("erf", 4, 2, padding="circular", readout="flatten"),
    "cnn pooled": lambda: cnn("relu", 8, 3, pool=2, b=0.2),
    "cnn pooled, flattened": lambda: cnn("erf", 8, 3, pool=2, padding="circular", readout="flatten"),
    "cnn 2d": lambda: cnn("relu", (3, 4), 3),
    "cnn 2d flattened, biases": lambda: cnn("erf", (4, 3), (3, 2), readout="flatten", b=0.2),
    "cnn 2d valid": lambda: cnn("gelu", (5, 4), (3, 2), padding="valid"),
    "cnn 2d strides": lambda: cnn("relu", (5, 4), (3, 3), stride=(2, 1), readout="flatten"),
    "cnn 2d circular, pooled": lambda: cnn("relu", (4, 4), (3, 3), padding="circular", pool=2, depth=2),
    "cnn 2d pooled along one axis": lambda: cnn("erf", (4, 2), (2, 1), pool=(2, 1), padding="valid", depth=1),
    "linear attention": lambda: attention("IDENTITY"),
    "softmax over the width": lambda: attention("SOFTMAX"),
}


def largest(a, b, *, diagonal=True):
    """Return the largest difference, relative to the largest entry of b."""
    if not diagonal:
        a, b = (x[~np.eye(len(x), dtype=bool)] for x in (a, b))
    return np.abs(a - b).max() / np.abs(b).max()


def assert_equal_kernels(peer, case):
    X, Y = case.inputs(5, 0), case.inputs(3, 1)
    X[1], X[2] = 0.1 * X[1] - 0.8 * X[0], 1e-3 * X[2] + X[0]  # nearly opposite, nearly equal
    found = peer.kernels(case.theirs, X, Y)
    for kind, make in (("nngp", nngp), ("ntk", ntk)):
        k = make(case.ours, **case.options)
        own, cross = k(flat(X)), k(flat(X), flat(Y))
        assert largest(cross, found[f"{kind} XY"]) < case.tol, kind
        assert largest(own, found[f"{kind} XX"], diagonal=kind in case.exact) < case.tol, kind
        assert not case.exact or largest(own, found[f"{kind} XX"]) < 1e-6, kind


def test_the_peer_is_the_pinned_one(peer):
    pinned = re.search(r"^neural-tangents==(.*)$", (HERE / "requirements.txt").read_text(), re.M)
    assert pinned and pinned.group(1) == peer.version


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_the_peers(peer, name):
    assert_equal_kernels(peer, CASES[name]())


@pytest.mark.parametrize("name", ["erf with biases", "resnet layernorm", "cnn 2d strides", "linear attention"])
def test_another_network_is_told_apart(peer, name):
    case = CASES[name]()
    wrong = Case(case.ours, case.theirs, case.options | {"multipliers": case.options["multipliers"] | {"input": 0.7}},
                 case.shape, case.exact)
    with pytest.raises(AssertionError):
        assert_equal_kernels(peer, wrong)


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_the_relu_diagonal_is_exact_here_and_not_there(peer, depth):
    """At correlation 1 every layer adds one. The peer takes the angle of rounded numbers: half of its digits."""
    W = math.sqrt(2)
    case = mlp("relu", depth, W=W)
    X = case.inputs(40, depth)
    x = np.sum(X * X, axis=1) / X.shape[1]
    exact = (0.81 / 2) * 2 * (depth + 1) * x  # weights of variance 2, a readout of variance 0.81
    ours = ntk(case.ours, **case.options)
    theirs = peer.kernels(case.theirs, X, X[:2])["ntk XX"].diagonal()
    for found in (ours(X).diagonal(), ours.diagonal(X)):
        assert np.abs(found / exact - 1).max() < 1e-13
    off = np.abs(theirs / exact - 1).max()
    assert 1e-10 < off < 1e-6, off


@pytest.mark.parametrize("name", ["tanh", "silu", "sigmoid", "softplus"])
def test_functions_without_a_closed_form(peer, name):
    """By the peer's Gauss-Hermite quadrature in two variables, ours to 1e-8."""
    ACTIVATIONS[name] = ["ElementwiseNumerical", {"fn": name, "deg": 120}]
    try:
        assert_equal_kernels(peer, mlp(name, 2, b=0.3, W=0.9, tol=1e-8))
    finally:
        del ACTIVATIONS[name]


def test_training_is_the_peers(peer):
    """Mean and covariance over initializations at several times, and at the end; the peer's loss is a mean."""
    case = mlp("erf", 2, b=0.3)
    X, Y = case.inputs(6, 0), case.inputs(4, 1)
    y, times = np.random.default_rng(2).standard_normal((6, 2)), np.array([0.0, 1.0, 20.0])
    found = peer.kernels(case.theirs, X, Y, targets=y, times=times)
    Theta, K = ntk(case.ours, **case.options), nngp(case.ours, **case.options)
    ours = Regression(Theta, X, y, prior=K)
    assert largest(ours.predict(Y, t=times / y.size), found["mean"]) < 1e-9
    for t, covariance in zip(times, found["covariance"], strict=True):
        assert largest(ours.covariance(Y, t=t / y.size), covariance) < 1e-9
    assert largest(ours.predict(Y), found["ntk mean"]) < 1e-8
    assert largest(ours.covariance(Y), found["ntk covariance"]) < 1e-8
    posterior = ours.posterior(Y)
    assert largest(posterior.mean, found["nngp mean"]) < 1e-8
    assert largest(posterior.covariance, found["nngp covariance"]) < 1e-8
    assert largest(Regression(K, X, y, prior=K).predict(Y, t=times / y.size), found["mean"]) > 1e-2
