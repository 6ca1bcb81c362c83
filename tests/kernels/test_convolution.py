"""Convolutional kernels: a recursion in plain numpy, exactness at equal inputs, tiles, fallbacks, finite networks."""

import tracemalloc

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.kernels import nngp, ntk
from tensorprog.kernels.grids import Grid
from tensorprog.kernels.tiles import ROOM, Schedule, fill
from tensorprog.nets.convolution import convolution
from tensorprog.program.build import apply

from . import oracle
from .networks import inputs

RNG = np.random.default_rng(28)
KINDS = (nngp, ntk)


# ------------------------------------------------------------------------------------------ a recursion by hand


def relu(K, q, p):
    """Return E phi(u) phi(v) and E phi'(u) phi'(v) for covariances K of Gaussians of variances q and p."""
    size = np.sqrt(np.multiply.outer(q, p))
    t = np.arccos(np.clip(K / size, -1, 1))
    return size * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi), (np.pi - t) / (2 * np.pi)


def erf(K, q, p):
    size = np.multiply.outer(1 + 2 * q, 1 + 2 * p)
    return 2 / np.pi * np.arcsin(2 * K / np.sqrt(size)), 4 / np.pi / np.sqrt(size - 4 * K * K)


DUALS = {"relu": relu, "erf": erf}


def selections(shape, filters, strides, padding):
    """Return the shape after a convolution, and for every entry of the filter the matrix that picks what it meets."""
    before = [0 if padding == "valid" else (f - 1) // 2 for f in filters]
    after = tuple((s - f) // t + 1 if padding == "valid" else -(-s // t)
                  for s, f, t in zip(shape, filters, strides, strict=True))
    picks = []
    for k in np.ndindex(*filters):
        G = np.zeros((*after, *shape))
        for q in np.ndindex(*after):
            r = [i * t + a - b for i, t, a, b in zip(q, strides, k, before, strict=True)]
            if padding == "circular":
                r = [i % s for i, s in zip(r, shape, strict=True)]
            if all(0 <= i < s for i, s in zip(r, shape, strict=True)):
                G[(*q, *r)] = 1
        picks.append(G.reshape(int(np.prod(after)), -1))
    return after, picks


def by_hand(X, Y, depth, phi, shape, filters, strides, padding, pool, readout, v, rate):
    """Return the NNGP and the tangent kernel of x and y; v, rate: variances and rates by role."""
    couples = [(X, Y), (X, X), (Y, Y)]
    E, T = [a @ b.T for a, b in couples], np.zeros((len(X), len(X)))
    for layer in range(depth):
        role = "hidden" if layer else "input"
        after, picks = selections(shape, filters, strides, padding)
        T = sum(G @ (rate[role] * E[0] + v[role] * T) @ G.T for G in picks) + rate["bias"]
        K = [sum(v[role] * G @ e @ G.T for G in picks) + v["bias"] for e in E]
        q, p = np.diag(K[1]), np.diag(K[2])
        (S, D), *own = [DUALS[phi](k, *qs) for k, qs in zip(K, ((q, p), (q, q), (p, p)), strict=True)]
        shape, means = selections(after, pool, pool, "valid")
        A = sum(means) / len(means)
        E, T = [A @ e @ A.T for e in (S, *(o[0] for o in own))], A @ (D * T) @ A.T
    read = np.mean if readout == "average" else np.trace
    return v["readout"] * read(E[0]), read(rate["readout"] * E[0] + v["readout"] * T)


def cases():
    for size, kernel, stride, padding, pool, readout in [
        ("6", "3", "1", "same", "1", "average"), ("6", "3", "1", "same", "1", "flatten"),
        ("7", "2", "2", "same", "1", "average"), ("7", "3", "2", "valid", "1", "flatten"),
        ("6", "3", "1", "circular", "1", "average"), ("8", "3", "1", "same", "2", "average"),
        ("8", "3", "1", "circular", "2", "flatten"), ("3x4", "2x3", "1x1", "same", "1x1", "average"),
        ("4x4", "3x3", "1x1", "same", "1x1", "flatten"), ("5x4", "3x2", "2x1", "same", "1x1", "average"),
        ("5x5", "2x2", "1x1", "valid", "1x1", "average"), ("4x4", "3x3", "1x1", "circular", "2x1", "average"),
        ("4x6", "3x3", "1x1", "same", "2x2", "flatten"), ("4x4", "2x2", "1x2", "circular", "1x1", "flatten"),
        ("2", "3", "1", "circular", "1", "average"), ("1x5", "1x3", "1x1", "same", "1x1", "average"),
    ]:
        for phi, bias in (("relu", False), ("erf", True)):
            yield pytest.param(size, kernel, stride, padding, pool, readout, phi, bias,
                               id=f"{size} {kernel} {stride} {padding} {pool} {readout} {phi}")


@pytest.mark.parametrize("size, kernel, stride, padding, pool, readout, phi, bias", list(cases()))
def test_the_recursion(size, kernel, stride, padding, pool, readout, phi, bias):
    depth, d = 2, 3
    net = tp.nets.cnn(depth, size=size, kernel=kernel, stride=stride, padding=padding, pool=pool, readout=readout,
                      activation=phi, d_in=d, bias=bias)
    v = {"input": 0.7, "hidden": 1.3, "readout": 0.9, "bias": 0.2 * bias}
    rate = {"input": 1.1, "hidden": 0.6, "readout": 2.0, "bias": 0.5 * bias}
    shape = tuple(map(int, size.split("x")))
    X, Y = RNG.standard_normal((3, int(np.prod(shape)), d)), RNG.standard_normal((2, int(np.prod(shape)), d))
    filters, strides, window = (tuple(map(int, s.split("x"))) for s in (kernel, stride, pool))
    args = depth, phi, shape, filters, strides, padding, window, readout, v, rate
    options = {k: x for k, x in v.items() if bias or k != "bias"}
    speeds = {k: x for k, x in rate.items() if bias or k != "bias"}
    for i, make in enumerate(KINDS):
        k = make(net, variances=options, **({"rates": speeds} if make is ntk else {}))
        assert isinstance(k._schedules["f", "f"], Grid) and k.method == "closed form"
        want = np.array([[by_hand(x, y, *args)[i] for y in (*X, *Y)] for x in X])
        K, cross = k(X), k(X, Y)
        apart = ~np.eye(3, dtype=bool)  # the recursion by hand takes an arccosine at correlation 1
        np.testing.assert_allclose(K[apart], want[:, :3][apart], rtol=1e-12)
        np.testing.assert_allclose(np.diag(K), np.diag(want), rtol=1e-7 if phi == "relu" else 1e-12)
        np.testing.assert_allclose(cross, want[:, 3:], rtol=1e-12)
        np.testing.assert_array_equal(k.diagonal(X), np.diag(K))


def test_only_what_is_needed():
    size = 12
    grids = {ro: ntk(tp.nets.cnn(3, size=size, readout=ro))._schedules["f", "f"] for ro in ("flatten", "average")}
    pairs = {ro: [len(layer.mix.below.i) for layer in grid.layers] for ro, grid in grids.items()}
    assert pairs == {"flatten": [size] * 4, "average": [size**2] * 3 + [1]}
    pooled = nngp(tp.nets.cnn(1, size=8, kernel=1, pool=2, readout="flatten"))._schedules["f", "f"]
    assert [len(layer.mix.pairs.i) for layer in pooled.layers] == [4 * 4, 1]  # those of a window


# ------------------------------------------------------------------------------------------ other ways to be computed


class NoGrid:
    """No network's layers are found alike."""

    @staticmethod
    def find(*args):
        return None


def by_nodes(make, net, monkeypatch, **options):
    with monkeypatch.context() as m:
        m.setattr("tensorprog.kernels.kernel.grids", NoGrid)
        k = make(net, **options)
    assert isinstance(k._schedules["f", "f"], Schedule)
    return k


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("activation", ["tanh", "gelu", "abs"])
def test_position_by_position(make, activation, monkeypatch):
    net = tp.nets.cnn(2, size="2x4", kernel="2x2", activation=activation, bias=True, pool="1x2", d_in=2)
    options = {"variances": {"bias": 0.3}}
    X = RNG.standard_normal((4, 8, 2))
    one, other = make(net, **options), by_nodes(make, net, monkeypatch, **options)
    assert one.method == other.method
    np.testing.assert_allclose(one(X), other(X), rtol=1e-11)


@pytest.mark.parametrize("slow", ["W1_k1 W1_k2", "W2_k1 W2_k2", "W2_k1", "W1_b"])
def test_slower_weights(slow):
    """What learns at a smaller power of n adds nothing."""
    net, X = tp.nets.cnn(2, size=4, kernel=2, activation="erf", d_in=2, bias=True), RNG.standard_normal((3, 4, 2))
    values = oracle.exponents(net)
    given = {w.out: {s: values[f"{s}[{w.out}]"] for s in "abc"} for w in net.params}
    for name in slow.split():
        given[name]["c"] += 1
    K = ntk(net, given)(X)
    np.testing.assert_allclose(K, ntk(net, rates=dict.fromkeys(slow.split(), 0))(X), rtol=1e-12)
    assert abs(K - ntk(net)(X)).max() > 0.01 * K.max()


def test_weights_add_up():
    """Tangent kernels of single weights: a layer whose matrices learn at several rates is no grid."""
    net = tp.nets.cnn(2, size=4, kernel=2, activation="erf", d_in=2, bias=True)
    X = RNG.standard_normal((4, 4, 2))
    parts = [ntk(net, rates={"*": 0, w.out: 1}) for w in net.params]
    assert {type(k._schedules["f", "f"]) for k in parts} == {Grid, Schedule}
    np.testing.assert_allclose(sum(k(X) for k in parts), ntk(net)(X), rtol=1e-12)


def residual(size=4, width=3):
    """``x + V phi(W * x)`` after a first convolution: no grid, since sums are of sums."""
    p = tp.Program(loss="squared")
    n, d = p.dim("n"), p.dim("d", 2)
    places = {(i,): p.data(f"xi{i}", d) for i in range(size)}
    reads = {(i,): [((k,), (i + k - 1,)) for k in range(width) if 0 <= i + k - 1 < size] for i in range(size)}
    first = convolution(p, "W0", places, n, reads, out="a", role="input")
    inside = {q: p.let(f"r{q[0]}", apply("erf", x)) for q, x in first.items()}
    second = convolution(p, "W1", inside, n, reads, out="b", role="hidden")
    sums = [apply("erf", p.let(f"s{q[0]}", first[q] + x)) for q, x in second.items()]
    y = p.let("y", sum(sums[1:], start=sums[0]) / size)
    p.output(p.let("f", p.param("V", p.dim("one", 1), n, role="readout") @ y))
    return p.freeze()


def test_residual_convolution():
    X = RNG.standard_normal((3, 4, 2))
    _, picks = selections((4,), (3,), (1,), "same")

    def recursion(x, y):
        couples = [a @ b.T for a, b in ((x, y), (x, x), (y, y))]
        first = [sum(G @ c @ G.T for G in picks) for c in couples]
        q = [np.diag(first[1]), np.diag(first[2])]
        duals = [erf(k, *v) for k, v in zip(first, (q, (q[0], q[0]), (q[1], q[1])), strict=True)]
        second = [k + sum(G @ S @ G.T for G in picks) for k, (S, _) in zip(first, duals, strict=True)]
        T = second[0] + sum(G @ (duals[0][1] * first[0]) @ G.T for G in picks)
        S, D = erf(second[0], np.diag(second[1]), np.diag(second[2]))
        return S.mean(), (S + D * T).mean()

    want = np.array([[recursion(x, y) for y in X] for x in X])
    for i, make in enumerate(KINDS):
        k = make(residual())
        assert isinstance(k._schedules["f", "f"], Schedule)
        np.testing.assert_allclose(k(X), want[:, :, i], rtol=1e-12)


# ------------------------------------------------------------------------------------------ exactness, tiles, memory


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("readout", ["average", "flatten"])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_equal_opposite_and_zero_inputs(make, readout, activation):
    net = tp.nets.cnn(3, size="4x4", activation=activation, readout=readout)
    x, flat = RNG.standard_normal((16, 3)), np.ones((16, 3))  # a flat image: positions are alike
    X = np.array([x, x, -x, flat, flat, np.zeros((16, 3)), x * (np.arange(16) < 7)[:, None]])
    k = make(net)
    K, cross = k(X), k(X, X.copy())
    assert np.all(np.isfinite(K)) and not K[5].any()
    np.testing.assert_allclose(cross, K, rtol=1e-12, atol=1e-12 * K.max())
    np.testing.assert_allclose([K[0, 1], K[3, 4]], [K[0, 0], K[3, 3]], rtol=1e-12)
    assert np.linalg.eigvalsh(K).min() > -1e-12 * K.max()
    if activation == "erf":
        np.testing.assert_allclose(K[0, 2], -K[0, 0], rtol=1e-12)


def test_sums_of_many_terms_at_equal_inputs():
    """Covariances and variances are sums in two orders; their ratio is 1 all the same, where the slope has a root."""
    k = ntk(tp.nets.cnn(3, size=4, kernel=1, activation="relu", readout="flatten", d_in=3000))
    X = RNG.standard_normal((100, 4, 3000))
    np.testing.assert_allclose(np.diag(k(X, X.copy())), k.diagonal(X), rtol=1e-12)


def test_the_diagonal_of_relu_is_known():
    """Flat images, filters that wrap around: every layer keeps the variance, the kernel counts layers."""
    depth, net = 3, tp.nets.cnn(3, size="3x3", padding="circular", activation="relu", d_in=1)
    weights = {"input": 1 / 9, "hidden": 2 / 9, "readout": 2}
    k = ntk(net, variances=weights, rates=weights)
    np.testing.assert_allclose(k(np.ones((2, 9, 1))), depth + 1, rtol=1e-13)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_tiles_threads_and_precision(make, readout, monkeypatch):
    k = make(tp.nets.cnn(2, size="3x4", kernel="2x2", activation="relu", readout=readout, bias=True))
    X, Y = RNG.standard_normal((23, 12, 3)), RNG.standard_normal((11, 12, 3))
    whole, cross = k(X), k(X, Y)
    np.testing.assert_array_equal(whole, whole.T)
    single = k(X.astype(np.float32))
    assert single.dtype == np.float32 and np.abs(single - whole).max() < 2e-5 * whole.max()
    monkeypatch.setattr(fill, "__kwdefaults__", fill.__kwdefaults__ | {"area": 30})
    np.testing.assert_allclose(k(X, workers=2), whole, rtol=1e-12)
    np.testing.assert_allclose(k(X, Y, workers=1), cross, rtol=1e-12)
    np.testing.assert_allclose(k(Y, X).T, cross, rtol=1e-12)


def test_memory_is_bounded():
    k = ntk(tp.nets.cnn(2, size=20, activation="relu"))
    X = RNG.standard_normal((60, 20, 3))
    k(X[:2])
    tracemalloc.start()
    k(X, workers=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 3 * ROOM  # bytes; all pairs of positions and inputs at once are 8 * 2 * 5 * (20 * 60)^2
    monster = ntk(tp.nets.cnn(2, size="8x8", activation="relu"))._schedules["f", "f"]
    assert monster.rows == 1 and 2 * 64**2 <= monster.width <= 6 * 64**2


# ------------------------------------------------------------------------------------------ finite networks


FINITE = {
    "2d strides": lambda: tp.nets.cnn(2, size="3x4", kernel="2x3", stride="1x2", activation="erf", d_in=2, bias=True),
    "valid flatten": lambda: tp.nets.cnn(2, size=5, kernel=2, padding="valid", readout="flatten", activation="relu",
                                         d_in=2),
    "pooled": lambda: tp.nets.cnn(2, size=6, kernel=3, pool=2, padding="circular", activation="erf", d_in=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINITE)
def test_finite_networks(name):
    """E f f' is the kernel up to O(1/n), for which 2% is kept; the interval is Student's at 99.9%."""
    network = FINITE[name]()
    data = inputs(network, np.random.default_rng(2))
    data[1] |= {k: data[0][k] for k in list(data[0])[1:]}  # all but the first position are the same
    # without what the shared weights contribute: refuted
    oracle.assert_limits_of(network, data, 192, {"hidden": 0, "input": 0})
