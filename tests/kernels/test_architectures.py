"""Kernels of convolutional and recurrent networks: recursions in plain numpy, the limit engine, finite networks."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
from tensorprog.atoms.multivariate import Softmax
from tensorprog.atoms.optimizers import optimizer
from tensorprog.atoms.parametrizations import parametrization as named
from tensorprog.kernels import nngp, ntk
from tensorprog.nets.layers import total
from tensorprog.program.build import apply
from tensorprog.scaling.assign import assign

from . import oracle, tape
from .networks import arrays, inputs

RNG = np.random.default_rng(7)


def moments(K, q):
    """Return E relu(u) relu(v) and E step(u) step(v) for covariances K of Gaussians with variances q (u), q' (v)."""
    size = np.sqrt(np.multiply.outer(q[0], q[1]))
    c = np.clip(K / size, -1, 1)
    S = (np.pi - np.arccos(c)) / (2 * np.pi)
    return size * (np.sqrt(1 - c * c) / (2 * np.pi) + S * c), S


# ----------------------------------------------------------------------------------------- recursions by hand


def slide(K, offsets, wrap):
    """Return the sum over offsets k of K(p + k, q + k), for positions p of one input and q of the other."""
    total = np.zeros_like(K)
    size = len(K)
    for k in offsets:
        if wrap:
            total += np.roll(K, (-k, -k), (0, 1))
        else:
            lo, hi = max(0, -k), min(size, size - k)
            total[lo:hi, lo:hi] += K[lo + k:hi + k, lo + k:hi + k]
    return total


def convolutional(x, y, depth, offsets, wrap):
    """Return covariances of activations and tangent covariances between positions of two inputs, relu, no biases."""
    pairs = [slide(a @ b.T, offsets, wrap) for a, b in ((x, y), (x, x), (y, y))]
    tangent = pairs[0]
    while True:
        q = [np.diag(pairs[1]), np.diag(pairs[2])]
        (X, S), *own = [moments(K, v) for K, v in zip(pairs, (q, [q[0]] * 2, [q[1]] * 2), strict=True)]
        tangent = X + S * tangent
        depth -= 1
        if not depth:
            return X, tangent
        pairs, tangent = [slide(K, offsets, wrap) for K in (X, *(o[0] for o in own))], slide(tangent, offsets, wrap)


@pytest.mark.parametrize("readout", ["average", "flatten"])
@pytest.mark.parametrize("padding", ["same", "circular"])
@pytest.mark.parametrize("depth, size, kernel", [(1, 3, 2), (2, 4, 3), (3, 5, 3)])
def test_convolutional_kernels_are_the_recursion(depth, size, kernel, padding, readout):
    net = tp.nets.cnn(depth, size=size, kernel=kernel, padding=padding, readout=readout, activation="relu", d_in=2)
    X = RNG.standard_normal((3, size, 2))
    offsets = [k - (kernel - 1) // 2 for k in range(kernel)]
    read = np.mean if readout == "average" else np.trace
    want = np.array([[[read(m) for m in convolutional(x, y, depth, offsets, padding == "circular")] for y in X]
                     for x in X])
    for i, k in enumerate((nngp(net), ntk(net))):
        assert k.inputs == tuple(f"xi_t{t + 1}" for t in range(size))
        np.testing.assert_allclose(k(X), want[:, :, i], rtol=1e-7)


def test_recurrent_kernels_are_the_recursion():
    """h_t = W s_{t-1} + U x_t: K(t, u) = S(t-1, u-1) + x_t y_u, and the tangent kernel with the slopes, all times."""
    length = 4
    net = tp.nets.rnn(length, activation="relu", d_in=2, readout="average")
    X = RNG.standard_normal((3, length, 2))

    def recursion(x, y):
        pairs = [np.zeros((length, length)) for _ in range(3)]
        data = [a @ b.T for a, b in ((x, y), (x, x), (y, y))]
        T = np.zeros((length, length))
        for _ in range(length):  # once more each time: then entry (t, u) has been through min(t, u) steps
            h = [d + np.pad(S[:-1, :-1], ((1, 0), (1, 0))) for d, S in zip(data, pairs, strict=True)]
            q = [np.diag(h[1]), np.diag(h[2])]
            (S, D), *own = [moments(K, v) for K, v in zip(h, (q, [q[0]] * 2, [q[1]] * 2), strict=True)]
            T = D * (h[0] + np.pad(T[:-1, :-1], ((1, 0), (1, 0))))
            pairs = [S, *(o[0] for o in own)]
        return np.mean(pairs[0]), np.mean(pairs[0] + T)

    want = np.array([[recursion(x, y) for y in X] for x in X])
    for i, k in enumerate((nngp(net), ntk(net))):
        np.testing.assert_allclose(k(X), want[:, :, i], rtol=1e-7)


def test_the_published_recurrent_network():
    """B.rnn.erf, through the architecture: variances 6/5 (over time), 1/2 (input), 1/10 (bias)."""
    net = tp.nets.rnn(3, activation="erf", d_in=2, bias=True, readout="all")
    k = nngp(net, variances={"W1": 1.2, "U1": 0.5, "b1": 0.1})
    K = k(np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]))[:, :, 0, 0]
    want = [0.3672859016761556, 0.04894932136120253, 0.2541240484816183, 0.4721281572009205, 0.23482091975905287,
            0.5587087186647488]
    np.testing.assert_allclose(K[np.triu_indices(3)], want, atol=1e-9)


def test_two_axes_are_one_axis_of_columns():
    """A filter that is one column wide, and a signal that is: the 1d network."""
    X = RNG.standard_normal((4, 4, 3))
    options = {"activation": "erf", "readout": "flatten", "stride": 1}
    for make in (nngp, ntk):
        flat = make(tp.nets.cnn(2, size=4, kernel=3, **options))(X)
        np.testing.assert_allclose(make(tp.nets.cnn(2, size="4x1", kernel="3x1", **options))(X), flat, rtol=1e-12)
        np.testing.assert_allclose(make(tp.nets.cnn(2, size="1x4", kernel="1x3", **options))(X), flat, rtol=1e-12)


# ------------------------------------------------------------------------------- the limit engine, finite networks

NETWORKS = {
    "cnn": lambda: tp.nets.cnn(2, size=3, kernel=2, activation="erf", d_in=2),
    "cnn pooled": lambda: tp.nets.cnn(1, size="2x3", kernel=2, padding="circular", pool="1x3", activation="relu",
                                      d_in=2),
    "rnn": lambda: tp.nets.rnn(3, activation="erf", d_in=2),
    "rnn deep": lambda: tp.nets.rnn(2, depth=2, activation="erf", d_in=2, readout="average"),
}


@pytest.mark.parametrize("name", ["rnn", *(pytest.param(k, marks=pytest.mark.slow) for k in NETWORKS if k != "rnn")])
def test_the_limit_engine_on_two_copies(name):
    network = NETWORKS[name]()
    data, values = inputs(network, np.random.default_rng(1)), oracle.exponents(network)
    X = arrays(data)
    assert abs(nngp(network)(X)[0, 1] - oracle.covariance(network, data, values)) < 1e-7
    assert abs(ntk(network)(X)[0, 1] - oracle.Copies(network, data).kernel(values)) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_finite_networks(name):
    """E f f' is the kernel up to O(1/n), for which 2% is kept; the interval is Student's at 99.9%."""
    network = NETWORKS[name]()
    data = inputs(network, np.random.default_rng(45))
    # with half of what the shared weights contribute, some 20% of the kernel at these inputs: refuted
    oracle.assert_limits_of(network, data, 256, {"hidden": 0.5, "input": 0.5})


# ---------------------------------------------------------------------- finite networks of plain numpy, their gradients

ONE = np.ones(1)
ERF = (np.vectorize(math.erf), lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x))


def wide(w, name, x, scale=1.0):
    """Return ``scale W x`` along the width, W ~ N(0, 1/n) (of data: N(0, 1))."""
    n = w.n
    return tape.matvec(w(name, n, len(x)), x, scale) if isinstance(x, np.ndarray) else (
        tape.matvec(w(name, n, len(x.value)), x, scale / math.sqrt(n)))


def perceptron(w, x, n):
    """Three layers with biases, every weight with its own standard deviation."""
    w.n = n
    for layer, (s, b, phi) in enumerate(((1.1, 0.4, tape.RELU), (1.3, 0.3, tape.RELU), (0.9, 0.2, tape.RELU)), 1):
        x = (wide(w, f"W{layer}", x, s) + tape.matvec(w(f"b{layer}", n, 1), ONE, b)).map(*phi)
    return [x]


PERCEPTRON = {"multipliers": {"W1": 1.1, "W2": 1.3, "W3": 0.9, "W1_b": 0.4, "W2_b": 0.3, "W3_b": 0.2},
              "variances": {"bias": 1}}


def norm(w, name, x, centered):
    """Return an RMSNorm with trained gain 1, or a LayerNorm, also with a trained bias 0."""
    n = len(x.value)
    if centered:
        x = x - x.mean()
    r = (x * x).mean().map(lambda v: (v + 1e-5) ** -0.5, lambda v: -0.5 * (v + 1e-5) ** -1.5)
    x = x * r * tape.matvec(w.made.setdefault(f"{name}_g", tape.Var(np.ones((n, 1)))), ONE, 1.0)
    return x + tape.matvec(w.made.setdefault(f"{name}_b", tape.Var(np.zeros((n, 1)))), ONE, 1.0) if centered else x


def residual(normalize, block):
    """Return ``x + W phi(norm x)`` or ``x + U phi(W norm x)``, twice, between an input and a normalized readout."""

    def normalized(w, name, x):
        return x if normalize == "none" else norm(w, name, x, normalize == "layernorm")

    def network(w, x, n):
        w.n = n
        x = wide(w, "W0", x)
        for layer in (1, 2):
            y = normalized(w, f"N{layer}", x)
            if block == 2:
                y = wide(w, f"W{layer}", y, 0.8)
            x = x + wide(w, f"{'U' if block == 2 else 'W'}{layer}", y.map(*tape.RELU), 0.8)
        return [normalized(w, "N", x)]

    return network


def over_time(w, xs, n):
    """Two recurrent layers, read out by their mean over times."""
    w.n, depth = n, 2
    for layer in range(1, depth + 1):
        states = []
        for x in xs:
            h = wide(w, f"U{layer}", x, 0.8)
            states.append((h + wide(w, f"W{layer}", states[-1], 1.2) if states else h).map(*ERF))
        xs = states
    return [sum(xs[1:], xs[0]) * (1 / len(xs))]


def convolutional_2d(w, image, n):
    """5 x 4 positions, 3 x 2 filters, valid, stride 2 along the first axis, pooled 1 x 3, every position read out."""
    w.n = n
    image = image.reshape(5, 4, -1)
    x = [sum((wide(w, f"W_{i}{j}", image[2 * p + i, q + j], 0.5) for i in range(3) for j in range(2)),
             tape.matvec(w("b", n, 1), ONE, 0.5)).map(*tape.RELU) for p in range(2) for q in range(3)]
    return [sum(row[1:], row[0]) * (1 / 3) for row in (x[:3], x[3:])]


def tied_attention(mechanism):
    """Return attention whose queries are its keys, logits over the width, as they are or through softmax."""

    def network(w, tokens, n):
        w.n = n
        xs = [wide(w, "E", x).map(*tape.RELU) for x in tokens]
        qs, vs = [wide(w, "Q", x, 1.2) for x in xs], [wide(w, "V_", x) for x in xs]
        out = []
        for q in qs:
            a = [(q * k).mean() for k in qs]
            if mechanism == "softmax":
                a = [z.map(np.exp, np.exp) for z in a]
                inverse = sum(a[1:], a[0]).map(lambda u: 1 / u, lambda u: -1 / u**2)
                a = [z * inverse for z in a]
            out.append(sum((z * v for z, v in zip(a[1:], vs[1:], strict=True)), a[0] * vs[0]))
        return [sum(out[1:], out[0])]

    return network


def attention_program(mechanism, tokens=3, d=2):
    """Return the program of ``tied_attention``."""
    p = tp.Program(loss="squared")
    n = p.dim("n")
    xs = [p.data(f"xi_t{t}", p.dim("d", d)) for t in range(tokens)]
    first, (Q, V) = p.param("E", n, xs[0].type.dim), (p.param(k, n, n) for k in ("Q", "V_"))
    xs = [tp.relu(first @ x) for x in xs]
    ys = []
    for x in xs:
        a = [p.mean((Q @ x) * (Q @ y)) for y in xs]
        if mechanism == "softmax":
            a = [apply(Softmax(tokens, s), *a) for s in range(tokens)]
        ys.append(total([z * (V @ y) for z, y in zip(a, xs, strict=True)]))
    p.output(p.let("f", p.param("V", p.dim("one", 1), n, role="readout") @ total(ys)))
    return p.freeze()


def decoder(w, tokens, n):
    """One causal block with one head, its logits over n, feed-forward of width 4 n, outputs at both tokens."""
    w.n = n
    xs = [wide(w, "E", x) + wide(w, "P", np.eye(len(tokens))[t]) for t, x in enumerate(tokens)]
    q, k, v = ([wide(w, name, norm(w, "n1", x, False)) for x in xs] for name in "qkv")
    a = [(q[1] * key).mean().map(np.exp, np.exp) for key in k]
    mixed = (a[0] * v[0] + a[1] * v[1]) * (a[0] + a[1]).map(lambda u: 1 / u, lambda u: -1 / u**2)
    out = []
    for x, y in zip(xs, (v[0], mixed), strict=True):
        x = x + wide(w, "o", y)
        h = tape.matvec(w("up", 4 * n, n), norm(w, "n2", x, False), n**-0.5).map(*tape.RELU)
        out.append(norm(w, "nf", x + tape.matvec(w("down", n, 4 * n), h, n**-0.5), False))
    return out


#: The network in numpy and as a program, its options, the shape of an input.
FINITE = {
    "perceptron": (perceptron, lambda: tp.nets.mlp(3, activation="relu", d_in=3, bias=True), PERCEPTRON, (3,)),
    **{f"{normalize}, {block} weights a block": (
        residual(normalize, block),
        lambda block=block, normalize=normalize: tp.nets.resnet(2, block=block, normalize=normalize),
        {"multipliers": {"hidden": 0.8}}, (3,))
       for normalize in ("none", "layernorm", "rmsnorm") for block in (1, 2)},
    "recurrent": (over_time, lambda: tp.nets.rnn(3, depth=2, activation="erf", readout="average", d_in=2),
                  {"multipliers": {"U1": 0.8, "U2": 0.8, "W1": 1.2, "W2": 1.2}}, (3, 2)),
    "images": (convolutional_2d, lambda: tp.nets.cnn(
        1, size="5x4", kernel="3x2", stride=(2, 1), padding="valid", pool="1x3", readout="flatten", activation="relu",
        d_in=2, bias=True), {"multipliers": {"input": 0.5, "bias": 0.5}, "variances": {"bias": 1}}, (20, 2)),
    **{f"{mechanism} attention": (tied_attention(mechanism), lambda mechanism=mechanism: attention_program(mechanism),
                                  {"multipliers": {"Q": 1.2}}, (3, 2)) for mechanism in ("linear", "softmax")},
    "transformer": (decoder, lambda: tp.nets.transformer(1, activation="relu", normalize="rmsnorm", vocab=3),
                    {"inputs": ("tok1", "tok2"), "exponents": {"alpha": 1}}, (2, 3)),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_networks_of_plain_numpy(name):
    """Both kernels and their diagonals, to an interval of 99.9% and 2% for 1/n; weights 10% larger are refuted."""
    finite, program, options, shape = FINITE[name]
    larger = {k: 1.1 * v for k, v in options.get("multipliers", {}).items()}
    wrong = options | {"multipliers": {"readout": 1.1} | larger}
    X = np.random.default_rng(len(name)).standard_normal((2, *shape))
    for data in (X, X[[0, 0]]):
        samples = [s.sum(axis=(1, 2)) if name != "images" else s.trace(axis1=1, axis2=2)
                   for s in tape.kernels(finite, list(data), 192, range(48))]
        for made, make in zip(samples, (nngp, ntk), strict=True):
            k, other = make(program(), **options), make(program(), **wrong)
            scale = np.sqrt(np.prod(k.diagonal(data).reshape(-1, 2).sum(axis=0)))  # several outputs: their sum
            slack = stats.t.ppf(0.9995, len(made) - 1) * stats.sem(made) + 0.02 * scale
            assert abs(np.mean(made) - k(data[:1], data[1:]).sum()) <= slack
            assert data is X or abs(np.mean(made) - other(data[:1], data[1:]).sum()) > slack


def test_standard_parametrization_of_finite_networks():
    """``W ~ N(0, 1/n)``, one rate 1/n: squared gradients by W times that are those by ``sqrt(n) W``; of input weights
    and biases, which are W, 1/n of them."""
    n, X = 256, np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    slow = {"W1": 1 / n} | {f"b{i}": 1 / n for i in (1, 2, 3)}
    _, made = tape.kernels(perceptron, list(X), n, range(64), rates=slow)
    network = tp.nets.mlp(3, activation="relu", d_in=3, bias=True)
    slack = stats.t.ppf(0.9995, len(made) - 1) * stats.sem(made[:, 0, 0])
    for parametrization, same in ((named("sp").with_lr(1), True), ("ntp", False)):
        k = ntk(network, parametrization, **PERCEPTRON)
        off = abs(made.mean() - k(X)[0, 1])
        assert (off <= slack + 0.02 * float(np.sqrt(np.prod(k.diagonal(X))))) == same


@pytest.mark.parametrize("network", [tp.nets.resnet(2), tp.nets.rnn(2, activation="erf")], ids=["resnet", "rnn"])
def test_exponents_have_a_symmetry(network):
    """a + t, b - t, c - 2t is the same training, for every weight on its own; another shift of c is another kernel."""
    (X,) = np.random.default_rng(0).standard_normal((1, 4, *((2, 3) if len(ntk(network).inputs) > 1 else (3,))))
    plain = assign(network, "ntp", optimizer("sgd"))
    exponents = {w.out: {k: plain[f"{k}[{w.out}]"] for k in "abc"} for w in network.params}
    for i, (name, given) in enumerate(exponents.items()):
        t = Fraction(i + 1, 4)
        exponents[name] = {"a": given["a"] + t, "b": given["b"] - t, "c": given["c"] - 2 * t}
    for make in (nngp, ntk):
        np.testing.assert_allclose(make(network, exponents)(X), make(network)(X), rtol=1e-13)
    exponents[name]["c"] += 1
    assert np.abs(ntk(network, exponents)(X) - ntk(network)(X)).max() > 0.1
