"""Convolutional networks: programs written by hand, plain convolutions at finite width, kernels by a recursion."""

import numpy as np
import pytest
from scipy.signal import correlate

import tensorprog as tp
from tensorprog.errors import ParseError, TensorProgError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.program.program import spell

from .weights import drawn, values, with_variances

N = 6
CNN = tp.nets.cnn


def forward(net):
    return [spell(line) for line in net.lines if line.args]


# ----------------------------------------------------------------------------------------------------- by hand


def test_two_positions_read_three():
    net = CNN(1, size=3, kernel=2, padding="valid", activation="relu")
    assert forward(net) == [
        "h1_k1_t1 = W1_k1 @ xi_t1", "h1_k2_t1 = W1_k2 @ xi_t2", "h1_t1 = h1_k1_t1 + h1_k2_t1",
        "h1_k1_t2 = W1_k1 @ xi_t2", "h1_k2_t2 = W1_k2 @ xi_t3", "h1_t2 = h1_k1_t2 + h1_k2_t2",
        "x1_t1 = relu(h1_t1)", "x1_t2 = relu(h1_t2)", "y = 1/2*x1_t1 + 1/2*x1_t2", "f = V @ y"]


@pytest.mark.parametrize("options, lines", [
    ({"padding": "same"}, ["h1_k2_t1 = W1_k2 @ xi_t1", "h1_k3_t1 = W1_k3 @ xi_t2", "h1_t1 = h1_k2_t1 + h1_k3_t1",
                           "h1_k1_t2 = W1_k1 @ xi_t1", "h1_k2_t2 = W1_k2 @ xi_t2", "h1_t2 = h1_k1_t2 + h1_k2_t2"]),
    ({"padding": "circular", "stride": 2}, ["h1_k1_t1 = W1_k1 @ xi_t2", "h1_k2_t1 = W1_k2 @ xi_t1",
                                            "h1_k3_t1 = W1_k3 @ xi_t2", "h1_t1 = h1_k1_t1 + h1_k2_t1 + h1_k3_t1"]),
])
def test_paddings_at_the_ends(options, lines):
    assert forward(CNN(1, size=2, **options))[:len(lines)] == lines


def test_two_axes_pooling_and_flattening():
    net = CNN(1, size="2x4", kernel=1, pool="1x2", readout="flatten", activation="relu")
    assert [line for line in forward(net) if not line.startswith(("h", "x"))] == [
        "y1_t1s1 = 1/2*x1_t1s1 + 1/2*x1_t1s2", "y1_t1s2 = 1/2*x1_t1s3 + 1/2*x1_t1s4",
        "y1_t2s1 = 1/2*x1_t2s1 + 1/2*x1_t2s2", "y1_t2s2 = 1/2*x1_t2s3 + 1/2*x1_t2s4",
        "v_t1s1 = V_t1s1 @ y1_t1s1", "v_t1s2 = V_t1s2 @ y1_t1s2", "v_t2s1 = V_t2s1 @ y1_t2s1",
        "v_t2s2 = V_t2s2 @ y1_t2s2", "f = v_t1s1 + v_t1s2 + v_t2s1 + v_t2s2"]
    assert [(w.out, str(w.type), w.param.role) for w in net.params][:2] == [
        ("W1_k1j1", "matrix n x d_in", "input"), ("V_t1s1", "matrix d_out x n", "readout")]


@pytest.mark.parametrize("size, options, count", [
    (5, {"padding": "valid"}, 3), (5, {"padding": "valid", "kernel": 2, "stride": 2}, 2), (5, {"stride": 2}, 3),
    (5, {"stride": 3, "padding": "circular"}, 2), (5, {"pool": 2}, 2), ("3x5", {"padding": "valid"}, 3),
    ("3x5", {"padding": "valid", "kernel": "1x2", "stride": "2x1"}, 8), ((2, 3), {"kernel": [1, 2]}, 6),
])
def test_number_of_positions(size, options, count):
    assert sum(w.param.role == "readout" for w in CNN(1, size=size, readout="flatten", **options).params) == count


def test_what_strides_skip_is_not_computed():
    net = CNN(2, size=8, kernel=1, stride=2)
    assert [line.out for line in net.lines if line.out.startswith("h1_t")] == ["h1_t1", "h1_t3"]
    assert [line.out for line in CNN(1, size=1).params] == ["W1_k2", "V"], "the middle of the filter alone"


def test_channels_grow_and_roles():
    net = CNN(3, d_in=2, d_out=4, bias=True)
    assert net.sizes(32) == {"n": 32, "d_in": 2, "d_out": 4, "unit": 1}
    assert [(w.out, w.param.role) for w in net.params if "1" in w.out or "2" in w.out] == [
        (f"W{k}_{x}", r) for k in (1, 2) for x, r in (*((f"k{i}", ("input", "hidden")[k - 1]) for i in (1, 2, 3)),
                                                      ("b", "bias"))] + [("W3_k1", "hidden"), ("W3_k2", "hidden")]


# -------------------------------------------------------------------------------------------------- finite width


def numbered(place, letters):
    return "".join(f"{letter}{k + 1}" for letter, k in zip(letters, place, strict=False))


def filters(W, layer, shape, below):
    """Return a filter as an array (rows, below, *shape); entries that the network does not have are zeros."""
    out = np.zeros((N, below, *shape))
    for k in np.ndindex(*shape):
        out[(slice(None), slice(None), *k)] = W.get(f"W{layer}_{numbered(k, 'kj')}", 0)
    return out


def slid(w, x, padding):
    """Return the sum over channels below of scipy's cross-correlations; wrapped around by a signal in threefold."""
    if padding == "circular":
        tiled = np.tile(x, (1, *(3,) * (x.ndim - 1)))
        h = slid(w, tiled, "same")
        return h[(slice(None), *(slice(k, 2 * k) for k in x.shape[1:]))]
    out = []
    for row in w:
        total = 0
        for one, signal in zip(row, x, strict=True):
            if padding == "valid":
                total = total + correlate(signal, one, mode="valid")
            else:  # the whole of it, from where the filter's middle is at the first position
                full = correlate(signal, one, mode="full")
                total = total + full[tuple(slice(k // 2, k // 2 + m) for k, m in zip(one.shape, signal.shape,
                                                                                    strict=True))]
        out.append(total)
    return np.stack(out)


def pooled(x, window):
    for axis, k in enumerate(window, 1):
        x = np.moveaxis(x, axis, -1)
        x = x[..., :x.shape[-1] // k * k].reshape(*x.shape[:-1], -1, k).mean(-1)
        x = np.moveaxis(x, -1, axis)
    return x


CASES = [
    {"size": (5,), "kernel": (3,), "padding": p, "stride": (s,), "readout": r}
    for p, s, r in (("same", 1, "average"), ("valid", 1, "flatten"), ("circular", 1, "average"), ("same", 2, "flatten"),
                    ("circular", 3, "flatten"))
] + [
    {"size": (6,), "kernel": (2,), "padding": "same", "stride": (1,), "pool": (2,)},
    {"size": (7,), "kernel": (4,), "padding": "circular", "stride": (2,), "pool": (2,)},
    {"size": (3, 4), "kernel": (3, 2), "padding": "same", "stride": (1, 1), "readout": "flatten"},
    {"size": (4, 5), "kernel": (2, 3), "padding": "valid", "stride": (1, 1)},
    {"size": (4, 3), "kernel": (2, 2), "padding": "circular", "stride": (1, 1), "pool": (2, 1)},
    {"size": (4, 4), "kernel": (3, 3), "padding": "same", "stride": (2, 1)},
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{v}".replace(" ", "") for v in c.values()))
def test_finite_width_is_a_plain_convolution(case):
    deep = 1 if "pool" in case and case["padding"] == "circular" else 2
    net = CNN(deep, activation="tanh", d_in=2, d_out=2, bias=True, **case)
    draws = Draws(N, 3)
    W = drawn(net, N, draws)
    shape = case["size"]
    x = np.zeros((2, *shape))
    for q in np.ndindex(*shape):
        x[(slice(None), *q)] = draws.data(f"xi_{numbered(q, 'ts')}", (2,))
    for layer in range(1, deep + 1):
        h = slid(filters(W, layer, case["kernel"], len(x)), x, case["padding"])
        h = h[(slice(None), *(slice(None, None, s) for s in case["stride"]))]
        x = np.tanh(h + W[f"W{layer}_b"].reshape(N, *(1,) * len(shape)))
        x = pooled(x, case.get("pool", (1,) * len(shape)))
    if case.get("readout") == "flatten":
        f = sum(W[f"V_{numbered(q, 'ts')}"] @ x[(slice(None), *q)] for q in np.ndindex(*x.shape[1:]))
    else:
        f = W["V"] @ x.reshape(N, -1).mean(1)
    found = run(with_variances(net, {}), N, 3, keep="all", draws=draws, method="dense")
    np.testing.assert_allclose(found["f"], f, rtol=1e-12)


def test_the_scaled_network_is_the_network():
    """Unknown exponents with values, and biases that start at zero: the same as variances without biases."""
    net = CNN(2, activation="relu")
    draws = Draws(N, 0)
    one = run(net, N, 0, values=values(net), draws=draws, method="dense")["f"]
    np.testing.assert_allclose(one, run(with_variances(net, {}), N, 0, draws=draws, method="dense")["f"])
    np.testing.assert_allclose(one, run(CNN(2, activation="relu", bias=True), N, 0, draws=draws, method="dense",
                                        values=values(CNN(2, activation="relu", bias=True)))["f"])


# ----------------------------------------------------------------------------------------------------- kernels


def relu_moments(K):
    """Return E relu(u) relu(v) and E step(u) step(v) over a covariance: arc cosine kernels."""
    size = np.sqrt(np.diag(K))
    c = np.clip(K / np.outer(size, size), -1, 1)
    S = (np.pi - np.arccos(c)) / (2 * np.pi)
    return np.outer(size, size) * (np.sqrt(1 - c * c) / (2 * np.pi) + S * c), S


def circular_kernel(x, depth, offsets):
    """Return the covariances between positions of a circular relu network, and its tangent kernel's, layer by layer.

    ``x``: (positions, d). K(p, q) of preactivations is the sum over offsets k of the covariance at (p + k, q + k).
    """
    def slide(K):
        return sum(np.roll(K, (-k, -k), (0, 1)) for k in offsets)

    K = slide(x @ x.T)
    tangent = K
    for layer in range(1, depth + 1):
        X, S = relu_moments(K)
        T = X + S * tangent
        if layer < depth:
            K, tangent = slide(X), slide(T)
    return X, T


@pytest.mark.parametrize("depth, size, kernel", [(1, 3, 2), (2, 3, 3), (2, 4, 3)])
@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_limit_of_the_output_is_the_kernel(depth, size, kernel, readout):
    net = with_variances(CNN(depth, size=size, kernel=kernel, padding="circular", readout=readout, activation="relu",
                             d_in=2), {})
    x = np.random.default_rng(size).integers(-3, 4, (size, 2)) + 0.5
    X, _ = circular_kernel(x, depth, [k - (kernel - 1) // 2 for k in range(kernel)])
    found = net.limit("f", data={f"xi_t{i + 1}": row for i, row in enumerate(x)})
    want = X.mean() if readout == "average" else np.trace(X)
    assert found.kind == "gaussian" and abs(found.variance - want) < 1e-9 * want
    assert abs(np.trace(X) / X.mean() - 1) > 0.1, "the readouts differ"


def test_limit_of_one_position_by_hand():
    """x = (1, 0) at one position, (0, 1) at the other, filter of two, circular: both read both, h ~ N(0, 2)."""
    net = with_variances(CNN(1, size=2, kernel=2, padding="circular", activation="relu", d_in=2), {})
    data = {"xi_t1": (1, 0), "xi_t2": (0, 1)}
    # h_1 = W1 e1 + W2 e2, h_2 = W1 e2 + W2 e1 are independent: E relu^2 = 1, E relu E relu = 2/(2 pi)
    found = net.limit("f", data=data)
    assert abs(found.variance - (2 * 1 + 2 * 2 / (2 * np.pi)) / 4) < 1e-12


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("options, match", [
    ({"depth": 0}, "at least 1"), ({"size": 0}, "at least 1"), ({"size": "4x"}, "at least 1"),
    ({"size": "2x2x2"}, "one or two axes"), ({"kernel": "3x3"}, "as many as size"), ({"stride": 1.5}, "whole number"),
    ({"size": True}, "whole number"), ({"kernel": -1}, "at least 1"), ({"padding": "reflect"}, "circular"),
    ({"readout": "max"}, "flatten"), ({"depth": 2, "padding": "valid"}, "layer 2: kernel: it does not fit into 2 p"),
    ({"pool": 3}, "layer 2: pool: it does not fit into 1 position "), ({"activation": "rellu"}, "relu"),
])
def test_wrong_options_are_refused(options, match):
    with pytest.raises(ParseError, match=match):
        CNN(**options)


@pytest.mark.parametrize("options", [{"d_in": 0}, {"d_out": 0}, {"loss": "l2"}])
def test_other_wrong_options_raise_our_own_errors(options):
    with pytest.raises(TensorProgError):
        tp.derive(CNN(1, **options))
