"""Mean field: published values, closed forms, brute force integrals, and networks of finite width."""

import math

import mpmath as mp
import numpy as np
import pytest
from gauss.oracle import plane
from scipy import integrate, stats
from scipy.special import ndtr

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError, UnsolvableError
from tensorprog.kernels import variances as vs
from tensorprog.kernels.batchnorm import BatchNorm
from tensorprog.kernels.meanfield import MeanField, edge_curve, edge_of_chaos, longest

# ---------------------------------------------------------------------------------------------- published values


@pytest.mark.parametrize("phi, exact", [("relu", 2.0), ("tanh", 1.0), ("erf", math.pi / 4), ("abs", 1.0)])
def test_edge_without_biases(phi, exact):
    net = edge_of_chaos(phi)
    assert net.sigma_w2 == pytest.approx(exact, abs=1e-12)
    assert net.phase == "critical" and net.correlation_length == math.inf
    assert MeanField(phi, exact * 1.01).phase == "chaotic" and MeanField(phi, exact * 0.99).phase == "ordered"


def test_edge_of_tanh_with_biases():
    net = edge_of_chaos("tanh", 0.05)
    assert (net.sigma_w2, net.q) == pytest.approx((1.7609546396067408, 0.5700478816407658), abs=1e-11)
    assert net.chi() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("phi, sigma_b2", [("tanh", 0.3), ("erf", 0.1), ("hard_tanh", 0.2), ("sin", 0.05)])
def test_edge_solves_its_equations_by_other_quadrature(phi, sigma_b2):
    net = edge_of_chaos(phi, sigma_b2)
    record, root = nonlinearity(phi), math.sqrt(net.q)
    kinks = [float(k) / root for k in record.kinks]

    def gauss(fn):
        cuts = [-12, *kinks, 12]
        return sum(integrate.quad(lambda z: fn(np.array([root * z]))[0] * math.exp(-z * z / 2), a, b, epsabs=1e-13,
                                  limit=200)[0] for a, b in zip(cuts, cuts[1:], strict=False)) / math.sqrt(2 * math.pi)

    assert net.sigma_w2 * gauss(lambda x: record.numpy(x) ** 2) + sigma_b2 == pytest.approx(net.q, rel=1e-9)
    assert net.sigma_w2 * gauss(lambda x: record.slope(x) ** 2) == pytest.approx(1, rel=1e-9)


def test_the_edge_is_a_curve_that_rises():
    curve = edge_curve("tanh", [0.0, 0.05, 0.3])
    assert curve == pytest.approx([1.0, 1.7609546396067408, 2.50512719])
    with pytest.raises(UnsolvableError, match="no sigma_w\\^2 is critical.*\n  fix: .*sigma_b2 = 0 only"):
        edge_of_chaos("relu", 0.1)
    with pytest.raises(NotCoveredError, match="jumps: chi is infinite"):
        edge_of_chaos("sign")


def test_an_edge_that_repels():
    with pytest.raises(UnsolvableError, match="chi = 1 at q\\* = .*run off.*\n  fix: attracting=False"):
        edge_of_chaos("silu", 0.1)
    net = edge_of_chaos("silu", 0.1, attracting=False)
    assert net.chi() == pytest.approx(1) and net.variance(net.q) == pytest.approx(net.q)
    assert net.variance(1.01 * net.q) > 1.01 * net.q and net.variance(0.99 * net.q) < 0.99 * net.q


def test_rate_of_relu_measured():
    net = edge_of_chaos("relu")
    assert net.rate.power == 2 and net.rate.constant == pytest.approx(44.41321980490211, rel=1e-12)
    layers = 100_000
    e = net.distances(0.0, layers)
    measured = e[-1] * layers**2
    assert measured == pytest.approx(9 * math.pi**2 / 2, rel=1e-3)
    assert measured != pytest.approx(9 * math.pi**2 / 4, rel=0.1)
    local = math.log(e[-1] / e[layers // 2]) / math.log(2)
    assert local == pytest.approx(-2, abs=1e-3)


def test_rate_of_tanh_measured():
    net = edge_of_chaos("tanh", 0.3)
    assert net.rate.power == 1 and net.rate.constant == pytest.approx(1.9926908064769722, rel=1e-7)
    e = net.distances(0.3, 3000)
    assert 3000 * e[-1] == pytest.approx(1.9941247680584917, rel=0.02)
    assert 1500 / (1 / e[-1] - 1 / e[1500]) == pytest.approx(net.rate.constant, rel=1e-3)
    assert math.log(e[-1] / e[1500]) / math.log(2) == pytest.approx(-1, abs=0.01)  # and not -2


def test_rate_of_hard_tanh_measured():
    net = edge_of_chaos("hard_tanh", 0.2)  # two kinks away from 0
    e = net.distances(0.5, 40_000)
    assert e[-1] * 40_000**2 == pytest.approx(net.rate.constant, rel=0.01) and net.rate.power == 2


def test_no_rate_away_from_the_edge():
    with pytest.raises(NotCoveredError, match="an algebraic rate belongs to the edge of chaos"):
        MeanField("tanh", 2.0, 0.1).rate  # noqa: B018
    with pytest.raises(NotCoveredError, match="it is linear"):
        MeanField("identity", 1.0).rate  # noqa: B018


# ------------------------------------------------------------------------------------------------------ quantizers

#: Of the notebook that goes with blumenfeld2019mean: levels, and 1 - chi at the best spacing.
TABLE = {3: 0.190174, 4: 0.118846, 5: 0.082178, 8: 0.03744, 16: 0.011543, 32: 0.003495, 128: 0.000304, 256: 8.8e-05}
#: Its levels; and its spacings, one of which it takes as the best.
LEVELS = sorted([*range(3, 64), 128, 129, 256, 257, 512, 513, 1024, 1025])
GRID = np.linspace(0, 2, 2000)


@pytest.mark.parametrize("n", TABLE)
def test_best_spacing_of_a_quantizer(n):
    net = longest(f"quantizer({n})")
    assert 1 - net.chi(net.c) == pytest.approx(TABLE[n], abs=1e-6)
    assert net.correlation_length == pytest.approx(-1 / math.log(net.chi(0.0)))
    off = MeanField.at(net.phi, 2 * net.q)
    assert 1 - off.chi(0.0) > 1.05 * TABLE[n]


def defect(n, spacing):
    """1 - chi at c* = 0 from the published sum over pairs of thresholds, in cumulative sums."""
    g = (np.arange(1, n) - n / 2) * spacing
    below, above = ndtr(g), ndtr(-g)
    pairs = 2 * above @ np.cumsum(below) - below @ above
    return 1 - np.exp(-g * g / 2).sum() ** 2 / (2 * np.pi) / pairs


def test_chi_of_a_quantizer_is_the_published_sum():
    for n in (3, 6, 17, 100):
        for spacing in (0.05, 0.3, 1.1):
            net = MeanField.at(f"quantizer({n})", (2 / (n - 1) / spacing) ** 2)
            assert 1 - net.chi(0.0) == pytest.approx(defect(n, spacing), abs=1e-11)


def test_trainable_depth_of_quantized_networks():
    """L_max ~ N^1.82, from the recursion: the four numbers of the published fits."""
    found = {n: longest(f"quantizer({n})") for n in LEVELS}
    x = np.log(np.array(LEVELS) + 1)
    chi = stats.linregress(x, [math.log(1 - net.chi(0.0)) for net in found.values()])
    assert chi.slope == pytest.approx(-1.8172, abs=0.002)
    assert chi.intercept == pytest.approx(0.7100, abs=0.006)

    def gridded(n, net):  # the point of the notebook's grid with the largest chi; it has one maximum
        best = 2 / (n - 1) / math.sqrt(net.q)
        i = int(best / GRID[1])
        return max(GRID[max(i - 2, 1):i + 4], key=lambda d: MeanField.at(net.phi, (2 / (n - 1) / d) ** 2).chi(0.0))

    spacing = stats.linregress(x, [math.log(gridded(n, net)) for n, net in found.items()])
    assert spacing.slope == pytest.approx(-0.8790, abs=0.001)
    assert spacing.intercept == pytest.approx(1.4025, abs=0.001)
    depth = stats.linregress(x, [math.log(net.trainable_depth()) for net in found.values()])
    assert depth.slope == pytest.approx(1.82, abs=0.02)
    # the depth scale of the paper's code, -1/log(1 - e^0.71 (N+1)^-1.8172), and the fit's own error at N = 4
    for n, published in ((4, 8.648758458513111), (16, 84.14817844716748), (64, 967.9496152046228)):
        assert -1 / math.log(1 - math.exp(chi.intercept + chi.slope * math.log(n + 1))) == pytest.approx(published,
                                                                                                         rel=5e-3)
    assert found[16].correlation_length == pytest.approx(84.148, rel=0.03)
    # twin: levels from -1 to 1 at variance 1, not at their best
    plain = stats.linregress(x, [math.log(1 - MeanField.at(net.phi, 1.0).chi(0.0)) for net in found.values()])
    assert abs(plain.slope + 1.8172) > 0.5


def test_sign():
    net = MeanField("sign", 1.0)
    assert net.q == 1 and net.c == 0 and net.chi(0.0) == pytest.approx(2 / math.pi, abs=1e-15)
    assert net.chi() == math.inf and net.phase == "chaotic"
    assert net.correlations(0.5, 1)[1] == pytest.approx(1 / 3, abs=1e-13)
    with pytest.raises(NotCoveredError, match="it jumps: backpropagation does not see its slope"):
        net.gradient(3)


def test_a_function_with_slopes_and_jumps():
    # x + step(x): the weak derivative is 1 + delta(x)
    phi = Nonlinearity.from_callable(lambda x: x + (x > 0), "stairs", derivative=lambda x: np.ones_like(x), kinks=(0,))
    c, q = 0.4, 1.7
    h = 1e-4
    exact = [q * r + 2 * math.sqrt(q / (2 * math.pi)) * r + 0.25 + math.asin(r) / (2 * math.pi) for r in (c - h, c + h)]
    # d/d(covariance) of E (u + 1[u>0]) (v + 1[v>0]) in closed form
    assert vs.slopes(phi, q, c) == pytest.approx((exact[1] - exact[0]) / (2 * h * q), rel=1e-6)


# ------------------------------------------------------------------------------------------- fixed points and maps


def test_variances_of_relu_with_biases():
    assert MeanField("relu", 1.0, 0.5).q == pytest.approx(1.0)
    assert MeanField("relu", 3.0).q == math.inf and "without bound" in str(MeanField("relu", 3.0))
    with pytest.raises(NotCoveredError, match="the variances grow without bound"):
        MeanField("relu", 2.0, 0.1).c  # noqa: B018
    assert MeanField("relu", 2.0, q0=3.7).q == pytest.approx(3.7)


def test_two_fixed_points_and_where_each_start_leads():
    # E x^4 = 3 q^2: q = 3 w q^2 + b has two solutions, of which the smaller attracts
    net = MeanField("square", 0.5, 0.1)
    roots = (1 - math.sqrt(1 - 0.6)) / 3, (1 + math.sqrt(1 - 0.6)) / 3
    assert net.fixed_points == pytest.approx(roots)
    assert MeanField("square", 0.5, 0.1, q0=0.5).q == pytest.approx(roots[0])
    assert MeanField("square", 0.5, 0.1, q0=0.6).q == math.inf


def test_slow_variances_reach_their_fixed_point():
    # tanh at its edge: q_l ~ 1/l, slower than any number of iterations
    assert MeanField("tanh", 1.0).q == 0.0
    net = MeanField("tanh", 1.0, 1e-12)
    assert net.variance(net.q) == pytest.approx(net.q, rel=1e-9) and 0 < net.q < 1e-5


def test_variance_length_is_what_iterating_shows():
    net = MeanField("tanh", 1.7, 0.2, q0=0.3)
    off = np.abs(net.variances(60) - net.q)
    assert net.variance_length == pytest.approx(1 / math.log(off[20] / off[21]), rel=1e-3)


def test_correlation_length_is_what_iterating_shows():
    net = MeanField("tanh", 6.0, 0.3)
    off = np.abs(net.distances(0.1, 60) - (1 - net.c))
    assert net.phase == "chaotic" and 0 < net.c < 1
    assert net.correlation_length == pytest.approx(1 / math.log(off[40] / off[41]), rel=1e-3)
    assert net.correlation_length != pytest.approx(1 / math.log(net.chi()), rel=0.1)
    ordered = MeanField("tanh", 1.2, 0.3)
    e = ordered.distances(0.1, 80)
    assert ordered.c == 1 and ordered.correlation_length == pytest.approx(1 / math.log(e[60] / e[61]), rel=1e-3)


@pytest.mark.parametrize("phi, exact", [
    ("relu", lambda c: (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi),
    ("abs", lambda c: 2 / math.pi * (math.sqrt(1 - c * c) + math.asin(c) * c)),
    ("step", lambda c: 1 - math.acos(c) / math.pi),
    ("sign", lambda c: 2 / math.pi * math.asin(c)),
    ("erf", lambda c: math.asin(2 * c / 3) / math.asin(2 / 3)),
    ("sin", lambda c: math.sinh(c) / math.sinh(1)),
])
def test_map_of_correlations_in_closed_form(phi, exact):
    net = MeanField.at(phi, 1.0)
    c = np.array([-0.99, -0.3, 0.0, 0.2, 0.9, 0.999, 1 - 1e-9])
    assert net.correlations(c, 1)[1] == pytest.approx([exact(x) for x in c], abs=1e-11)
    h = 1e-6
    assert net.chi(0.4) == pytest.approx((exact(0.4 + h) - exact(0.4 - h)) / (2 * h), rel=1e-8)


def test_tiny_distances_keep_their_digits():
    # relu: 1 - c' = e - 2 sqrt(2)/(3 pi) e^(3/2) + O(e^(5/2)); erf: a power series
    e = np.array([1e-14, 1e-10, 1e-6])
    found = 1 - MeanField("relu", 2).distance(e) / e
    assert found == pytest.approx(2 * math.sqrt(2) / (3 * math.pi) * np.sqrt(e), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("phi, q", [("tanh", 3.0), ("hard_tanh", 0.7), ("gelu", 2.0), ("quantizer(5)", 0.4)])
def test_gap_by_brute_force(phi, q):
    record = nonlinearity(phi)
    for c in (0.3, 0.95):
        load = [[math.sqrt(q), 0], [math.sqrt(q) * c, math.sqrt(q * (1 - c * c))]]
        factor = (record.numpy, record.kinks)
        square = plane([factor, factor], [load[0], load[0]], [0, 0])
        assert vs.gap(record, q, 1 - c) == pytest.approx(square - plane([factor, factor], load, [0, 0]), abs=2e-10)


def test_bad_requests():
    with pytest.raises(UnsolvableError, match="sigma_b2 is a variance"):
        MeanField("tanh", 1.0, -0.1)
    with pytest.raises(UnsolvableError, match="no sigma_w\\^2 > 0 keeps this variance"):
        MeanField.at("tanh", 0.1, 0.2)
    with pytest.raises(NotCoveredError, match="diverges, or overflows"):
        MeanField(Nonlinearity.from_callable(lambda x: np.exp(x * x), "wild"), 1.0).variance(1.0)
    with pytest.raises(NotCoveredError, match="it has no slope at 0"):
        MeanField(Nonlinearity.from_callable(lambda x: np.where(x > 0, x, x * x / 2), "half"), 0.5).chi()


# ----------------------------------------------------------------------------------------------- batch normalization


def test_published_fixed_points_of_batch_normalization():
    net = BatchNorm("relu", 4)
    assert (net.q, net.c) == pytest.approx((0.5, 0.16949658804216627), abs=1e-12)
    assert BatchNorm("relu", math.inf).c == pytest.approx(1 / math.pi, abs=1e-12)
    net = BatchNorm("identity", 6)
    assert (net.q, net.c) == pytest.approx((1.0, -0.2), abs=1e-12)


def test_published_explosions_of_gradients():
    for b in (4, 8, 20):
        assert BatchNorm("identity", b).gradient_factor == pytest.approx((b - 2) / (b - 3), rel=1e-12)
    assert BatchNorm("relu", math.inf).gradient_factor == pytest.approx(math.pi / (math.pi - 1), rel=1e-12)
    assert BatchNorm("relu", 12).gradient_factor == pytest.approx(1.6454752860634159, abs=0.01)
    assert BatchNorm("relu", 10**5).gradient(2) == pytest.approx((math.pi / (math.pi - 1)) ** 2, rel=1e-4)


def test_expectations_on_the_sphere_in_closed_form():
    # a coordinate of a point on the sphere in three dimensions is uniform
    r = 1 / math.sqrt(3)
    assert BatchNorm("hard_tanh", 4).q == pytest.approx(r / 3 + 1 - r, abs=1e-12)
    # and cubes: E x^6 on the sphere of dimension m and radius sqrt(m) is 15 m^2 / ((m + 2) (m + 4))
    assert BatchNorm("cube", 7).q == pytest.approx(15 * 36 / (8 * 10), rel=1e-12)


@pytest.mark.parametrize("batch", [3, 4, 5, 9, 80])
def test_two_ways_to_integrate_over_the_sphere(batch):
    from tensorprog.kernels.batchnorm import _sphere

    for phi in ("relu", "cube"):
        net = BatchNorm(phi, batch)
        kinks = [0.0] if phi == "relu" else []
        found = _sphere(lambda x, y, phi=net.phi: phi(x) * phi(y), batch - 1, kinks)
        assert found == pytest.approx(net._cross, rel=1e-10)


def test_scale_of_the_weights_moves_the_variance_only():
    one, two = BatchNorm("tanh", 6), BatchNorm("tanh", 6, 3.0)
    assert two.q == pytest.approx(3 * one.q) and two.c == pytest.approx(one.c)
    assert two.gradient_factor == pytest.approx(one.gradient_factor)
    assert BatchNorm("tanh", 6, 3.0, 0.5).c > two.c


def test_batch_normalization_refuses():
    with pytest.raises(UnsolvableError, match="a whole number from 3 on"):
        BatchNorm("relu", 2)
    with pytest.raises(NotCoveredError, match="mean square is infinite"):
        BatchNorm("relu", 3).gradient_factor  # noqa: B018
    with pytest.raises(NotCoveredError, match="it jumps"):
        BatchNorm("sign", 5).gradient_factor  # noqa: B018


# ------------------------------------------------------------------------------------------- networks of finite width


def forward(phi, width, depth, sigma_w2, sigma_b2, start, rng):
    """Preactivations h_0, ..., h_depth of shape (width, 2) and weights of a plain network."""
    h = [np.linalg.cholesky(start) @ rng.standard_normal((2, width))]
    h[0] = h[0].T
    weights = []
    for _ in range(depth):
        W = rng.standard_normal((width, width)) * math.sqrt(sigma_w2 / width)
        b = rng.standard_normal((width, 1)) * math.sqrt(sigma_b2)
        weights.append(W)
        h.append(W @ phi.numpy(h[-1]) + b)
    return h, weights


def assert_seen(samples, value, bias, true=True):
    """The mean of independent samples is the value, up to a bias, at 4 standard errors (or is refuted)."""
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    off = np.abs(samples.mean(axis=0) - value)
    if true:
        assert np.all(off < 4 * error + bias), (off, error)
    else:
        assert np.any(off > 6 * error + 3 * bias), (off, error)


@pytest.mark.slow
@pytest.mark.parametrize("phi, sigma_w2, sigma_b2",
                         [("tanh", 2.0, 0.1), ("relu", 1.6, 0.2), ("quantizer(4)", 1.2, 0.1)])
def test_variances_and_correlations_of_a_finite_network(phi, sigma_w2, sigma_b2):
    width, depth, seeds = 1000, 6, 24
    q0 = MeanField(phi, sigma_w2, sigma_b2).q  # started at the fixed point: the table of correlations is exact there
    net = MeanField(phi, sigma_w2, sigma_b2, q0)
    start = q0 * np.array([[1, 0.3], [0.3, 1]])
    variances, correlations = [], []
    for seed in range(seeds):
        h, _ = forward(net.phi, width, depth, sigma_w2, sigma_b2, start, np.random.default_rng(seed))
        second = [x.T @ x / width for x in h]
        variances.append([s[0, 0] for s in second])
        correlations.append([s[0, 1] / q0 for s in second])
    expected = net.correlations(0.3, depth)
    assert_seen(variances, net.variances(depth), 5 / width)
    assert_seen(correlations, expected, 5 / width)
    assert_seen(correlations, MeanField.at(phi, q0, 0.0).correlations(0.3, depth), 5 / width, true=False)


@pytest.mark.slow
def test_gradients_of_a_finite_network():
    width, depth, seeds = 600, 12, 30
    net = MeanField("tanh", 2.2, 0.05)
    growth = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        h, weights = forward(net.phi, width, depth, 2.2, 0.05, net.q * np.array([[1, 0.5], [0.5, 1]]), rng)
        g = rng.standard_normal(width)
        size = g @ g
        for W, x in zip(weights[::-1], h[-2::-1], strict=True):
            g = net.phi.slope(x[:, 0]) * (W.T @ g)
        growth.append(g @ g / size)
    assert_seen(growth, net.gradient(depth), 30 / width)
    assert_seen(growth, MeanField("tanh", 3.0, 0.05).gradient(depth), 30 / width, true=False)


@pytest.mark.slow
@pytest.mark.parametrize("phi, batch", [("relu", 8), ("tanh", 6), ("hard_tanh", 12)])
def test_batch_normalization_of_a_finite_network(phi, batch):
    width, depth, seeds = 1200, 6, 24
    net = BatchNorm(phi, batch)
    covariances, factors = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        h, tape = rng.standard_normal((width, batch)), []
        for _ in range(depth):
            mid = h - h.mean(axis=1, keepdims=True)
            scale = np.sqrt((mid**2).mean(axis=1, keepdims=True))
            x = mid / scale
            W = rng.standard_normal((width, width)) / math.sqrt(width)
            tape.append((x, scale, W))
            h = W @ net.phi.numpy(x)
        second = h.T @ h / width
        off = (second.sum() - np.trace(second)) / batch / (batch - 1)
        covariances.append([np.trace(second) / batch, off])
        g = rng.standard_normal((width, batch))
        g -= g.mean(axis=1, keepdims=True)
        sizes = [np.sum(g * g)]
        for x, scale, W in tape[:0:-1]:  # the first layer has another covariance
            d = net.phi.slope(x) * (W.T @ g)
            g = (d - d.mean(axis=1, keepdims=True) - x * (d * x).mean(axis=1, keepdims=True)) / scale
            sizes.append(np.sum(g * g))
        factors.append(np.diff(np.log(sizes))[1:].mean())  # from the second on: the first g is not of the fixed law
    assert_seen(covariances, [net.q, net.q * net.c], 5 / width)
    assert_seen(factors, math.log(net.gradient_factor), 0.01)
    assert_seen(factors, math.log(BatchNorm("identity", batch).gradient_factor), 0.01, true=False)


@pytest.mark.parametrize("e", [1e-10, 1e-6, 1e-3, 0.3, 1.0, 1.9])
@pytest.mark.parametrize("q", [9.0, 40.0, 300.0, 1e4])
def test_gaps_of_large_variances(q, e, monkeypatch):
    """Graded panels, not the slow adaptive ones, against erf's arcsine."""
    monkeypatch.setattr(vs, "expect", None)
    with mp.workdps(40):
        exact = 2 / mp.pi * (mp.asin(2 * mp.mpf(q) / (1 + 2 * mp.mpf(q)))
                             - mp.asin(2 * mp.mpf(q) * (1 - mp.mpf(e)) / (1 + 2 * mp.mpf(q))))
    assert vs.gap(nonlinearity("erf"), q, e) == pytest.approx(float(exact), rel=2e-10 + 1e-15 / math.sqrt(e))
