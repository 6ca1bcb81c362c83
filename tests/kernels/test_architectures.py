"""Kernels of convolutional and recurrent networks: recursions in plain numpy, the limit engine, finite networks."""

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
from tensorprog.kernels import nngp, ntk

from . import oracle
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
    samples = oracle.finite(network, data, oracle.exponents(network), 256, range(300))
    X = arrays(data)
    for made, k in zip(samples, (nngp(network), ntk(network)), strict=True):
        claim, scale = k(X)[0, 1], float(np.sqrt(np.prod(k.diagonal(X))))
        slack = stats.t.ppf(0.9995, len(made) - 1) * stats.sem(made) + 0.02 * scale
        assert abs(np.mean(made) - claim) <= slack
    # with half of what the shared weights contribute, some 20% of the kernel at these inputs: refuted
    wrong = ntk(network, rates={"hidden": 0.5, "input": 0.5})(X)[0, 1]
    assert abs(np.mean(made) - wrong) > slack
