"""Kernels against published values, the limit engine, and networks of finite width."""

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.kernels import rows, tiles
from tensorprog.kernels.kernel import nngp, ntk
from tensorprog.kernels.tiles import Schedule
from tensorprog.program.text import parse

from .networks import NETWORKS, Net, arrays, inputs, mlp, recurrent, residual
from .oracle import Copies, covariance, exponents, finite

RNG = np.random.default_rng(4)


def kappa(rho):
    """Return E relu relu' and E step step' at correlation rho, times 2."""
    t = math.acos(min(1.0, rho))
    return (math.sin(t) + (math.pi - t) * rho) / math.pi, (math.pi - t) / math.pi


# ------------------------------------------------------------------------------------------ published values


def test_relu_tangent_kernel_by_hand():
    # Theta_1 = rho, Theta_{l+1} = rho_{l+1} + kappa'(rho_l) Theta_l for variances 2 (Jacot et al. 2018)
    X = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    k = ntk(tp.nets.mlp(depth=2, activation="relu", d_in=2), variances={"hidden": 2, "readout": 2},
            rates={"hidden": 2, "readout": 2})
    rho, theta = 0.6, 0.6
    for _ in range(2):
        rho, slope = kappa(rho)
        theta = rho + slope * theta
    assert abs(k(X)[0, 1] - theta) < 1e-14


@pytest.mark.parametrize("depth", [1, 2, 5, 30, 100])
def test_diagonal_is_exact(depth):
    # every layer adds one at correlation 1, where an arccos of a rounded number would cost half of the digits
    X = np.random.default_rng(depth).standard_normal((40, 7))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    options = {"variances": {"hidden": 2, "readout": 2}, "rates": {"hidden": 2, "readout": 2}}
    k = ntk(tp.nets.mlp(depth=depth, activation="relu", d_in=7), **options)
    assert np.abs(np.diag(k(X)) / (depth + 1) - 1).max() < 1e-13
    assert np.abs(np.diag(k(X, X.copy())) / (depth + 1) - 1).max() < 1e-12


#: Jacot et al. 2018, all variances 2 as multipliers, the first over d.
JACOT = {"hidden": math.sqrt(2), "readout": math.sqrt(2)}


def test_published_relu_tangent_kernel():
    X = np.array([[1.0, 0.0, 1.0, -1.0], [0.5, 1.0, 0.0, 1.0]])
    network, options = tp.nets.mlp(depth=2, activation="relu", d_in=4), JACOT | {"input": math.sqrt(2 / 4)}
    got, wanted = ntk(network, multipliers=options)(X), [4.5, 0.6793363548941691, 3.375]
    assert np.abs(got[np.triu_indices(2)] - wanted).max() < 1e-12
    got, wanted = nngp(network, multipliers=options)(X), [1.5, 0.5723803353784849, 1.125]
    assert np.abs(got[np.triu_indices(2)] - wanted).max() < 1e-12


@pytest.mark.parametrize("depth, want", [(1, 3.0), (2, 4.5), (5, 9.0)])
def test_published_relu_tangent_kernel_on_the_diagonal(depth, want):
    network = tp.nets.mlp(depth=depth, activation="relu", d_in=4)
    x = np.array([[1.0, 0.0, 1.0, -1.0]])
    assert abs(ntk(network, multipliers=JACOT | {"input": math.sqrt(2 / 4)})(x)[0, 0] - want) < 1e-13


def test_recurrent_erf_network():
    # B.rnn.erf: the covariances of s1, s2, s3 (Tensor Programs I)
    program = parse("""
        dim n
        dim d = 2
        dim one = 1
        matrix W : n x n ~ N(0, 6/5/n)
        matrix U : n x d ~ N(0, 1/2)
        vector b : n ~ N(0, 1/10)
        input e1 : d
        input e2 : d
        input e3 : d
        s1 = erf(U @ e1 + b)
        s2 = erf(W @ s1 + U @ e2 + b)
        s3 = erf(W @ s2 + U @ e3 + b)
        output s1, s2, s3
    """)
    k = nngp(program)
    K = k(np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]))[:, :, 0, 0]
    want = [0.3672859016761556, 0.04894932136120253, 0.2541240484816183, 0.4721281572009205, 0.23482091975905287,
            0.5587087186647488]
    assert np.abs(K[np.triu_indices(3)] - np.array(want)).max() < 1e-12
    assert np.array_equal(K, K.T) and k.inputs == ("e1", "e2", "e3")


#: Tokens of covariance [[1, .3], [.3, 1]]; q.k/n of tied (or independent) queries and keys, then softmax.
ATTENTION = """
dim n
dim d = 2
matrix U : n x d ~ N(0, 1)
matrix Q : n x n ~ N(0, 1/n)
matrix K : n x n ~ N(0, 1/n)
input a : d
input b : d
x1 = U @ a
x2 = U @ b
q1 = Q @ x1
k1 = {0} @ x1
k2 = {0} @ x2
l1 = sum(q1 * k1)/n
l2 = sum(q1 * k2)/n
y1 = softmax_0(l1, l2)*x1 + softmax_1(l1, l2)*x2
q2 = Q @ x2
m1 = sum(q2 * k1)/n
m2 = sum(q2 * k2)/n
y2 = softmax_0(m1, m2)*x1 + softmax_1(m1, m2)*x2
output y1, y2
"""


@pytest.mark.parametrize("keys, want", [("Q", (0.6896019773896475, 0.6103980226103528)), ("K", (0.65, 0.65))])
def test_attention_with_logits_over_n(keys, want):
    # B.attn.tied.1overd, B.attn.untied.1overd
    K = nngp(parse(ATTENTION.format(keys)))(np.array([[[1.0, 0.0], [0.3, math.sqrt(0.91)]]]))[:, :, 0, 0]
    assert np.abs(K - [[want[0], want[1]], [want[1], want[0]]]).max() < 1e-12


def test_transformer_with_logits_over_d():
    network = tp.nets.transformer(depth=1, activation="relu", normalize="rmsnorm")
    options = {"inputs": ("tok1", "tok2"), "exponents": {"alpha": 1}}
    X = np.eye(5)[np.array([[0, 1], [2, 1], [2, 3]])]
    for make in (nngp, ntk):
        K = make(network, **options)(X)
        assert K.shape == (2, 2, 3, 3) and np.linalg.eigvalsh(K[1, 1]).min() > 0
        assert abs(K[1, 1, 1, 2] - K[1, 1, 2, 1]) == 0 < K[1, 1, 1, 2] < K[1, 1, 1, 1]
    with pytest.raises(NotCoveredError, match="stays random") as caught:
        nngp(network, inputs=("tok1", "tok2"))  # ntp means 1/sqrt(d): the logits are Gaussian
    assert "1/d attention" in caught.value.fix
    with pytest.raises(ProgramError, match="no such exponent"):
        nngp(network, exponents={"beta": 1})


def test_tangent_kernel_of_one_hidden_layer_at_one():
    # D.ntk.relu1: K(1, 1) = E relu^2 + E v^2 E step = 1
    k = ntk(tp.nets.mlp(depth=1, activation="relu", d_in=1))
    assert k(np.ones((1, 1)))[0, 0] == 1.0


# ------------------------------------------------------------------------------------------ the limit engine


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_of_architectures_by_the_limit_engine(name):
    network = NETWORKS[name]()
    data = inputs(network, np.random.default_rng(len(name)))
    X, values = arrays(data), exponents(network)
    want, tangent = covariance(network, data, values), Copies(network, data).kernel(values)
    assert abs(nngp(network)(X)[0, 1] - want) < 1e-12 * max(1, abs(want))
    assert abs(ntk(network)(X)[0, 1] - tangent) < 1e-12 * max(1, abs(tangent))
    one = [data[0], data[0]]  # the diagonal has formulas of its own
    want, tangent = covariance(network, one, values), Copies(network, one).kernel(values)
    assert abs(nngp(network)(X)[0, 0] - want) < 1e-12 * max(1, abs(want))
    assert abs(ntk(network)(X)[0, 0] - tangent) < 1e-12 * max(1, abs(tangent))


@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus"])
def test_quadrature_by_the_limit_engine(name):
    network = mlp(name, "erf", biases=True)
    data = inputs(network, np.random.default_rng(0))
    k = nngp(network)
    assert k.method == "quadrature"
    want = covariance(network, data, exponents(network))
    assert abs(k(arrays(data))[0, 1] - want) < 1e-8 * abs(want)


@pytest.mark.parametrize("make, functions", [(nngp, (np.tanh,)), (ntk, (np.tanh, lambda x: np.cosh(x) ** -2.0))])
def test_quadrature_by_the_trapezoidal_rule(make, functions):
    k = make(tp.nets.mlp(depth=1, activation="tanh", d_in=2))
    X = np.array([[1.0, 0.5], [-0.25, 1.0]])
    z = np.arange(-9, 9, 1 / 16)  # exponentially accurate for functions analytic around the line
    u, v = z[:, None], z[None]
    a, b = np.linalg.cholesky(X @ X.T)
    weight = np.exp(-(u * u + v * v) / 2) / (2 * math.pi) / 256
    want = sum((weight * f(a[0] * u) * f(b[0] * u + b[1] * v)).sum() * c
               for f, c in zip(functions, (1, X[0] @ X[1]), strict=False))
    assert abs(k(X)[0, 1] - want) < 1e-8 * abs(want) and k.method == "quadrature"


def random_network(rng):
    """Return a network of random lines: shared weights, sums, gates, numbers in front."""
    net = Net()
    p, n = net.p, net.n
    shared = net.weight("S", n, n, Fraction(2, 3))
    pre = [p.let("h0", net.weight("W0", n, net.d) @ net.data())]
    post = []
    for i in range(int(rng.integers(2, 6))):
        kind = rng.choice(["function", "function", "product", "shared", "sum", "gate", "scaled", "post"])
        pick = [lambda xs: xs[int(rng.integers(len(xs)))]][0]
        if kind == "function" or not post:
            post.append(p.let(f"x{i}", net.phi(rng.choice(["relu", "erf", "gelu", "sin", "abs"]), pick(pre))))
        elif kind in ("product", "shared"):
            W = shared if kind == "shared" else net.weight(f"W{i + 1}", n, n, Fraction(int(rng.integers(1, 5)), 2))
            pre.append(p.let(f"h{i + 1}", W @ pick([*pre, *post])))
        elif kind == "sum":
            pre.append(p.let(f"h{i + 1}", pick(pre) - pick(pre) / 2))
        elif kind == "gate":
            post.append(p.let(f"x{i}", pick(post) * (net.weight(f"G{i}", n, n) @ pick(post))))
        elif kind == "scaled":
            x = pick(pre)
            pre.append(p.let(f"h{i + 1}", x * p.let(f"m{i}", p.mean(x * x))))
        else:
            post.append(p.let(f"x{i}", pick(post) + pick([*pre, *post])))
    return net.readout(post[-1] if post else pre[-1])


def test_random_networks_by_the_limit_engine():
    covered = 0
    for seed in range(40):
        network = random_network(np.random.default_rng(seed))
        data = inputs(network, np.random.default_rng(seed))
        try:
            kernels = [f(network)(arrays(data))[0, 1] for f in (nngp, ntk)]
            wanted = [covariance(network, data, exponents(network)), Copies(network, data).kernel(exponents(network))]
        except NotCoveredError:
            continue
        covered += 1
        for got, want in zip(kernels, wanted, strict=True):
            assert abs(got - want) < 1e-11 * max(1, abs(want)), (seed, str(network))
    assert covered >= 22


@pytest.mark.parametrize("parametrization", ["ntp", "sp", "mup", {"V": {"a": 0, "b": 0, "c": 1},
                                                                  "W1": {"a": 0, "b": 0, "c": 0},
                                                                  "*": {"a": "1/2", "b": 0, "c": 0}}])
def test_parametrizations_by_the_limit_engine(parametrization):
    if parametrization == "sp":
        from tensorprog.atoms.parametrizations import parametrization as named

        parametrization = named("sp").with_lr(1)
    network = tp.nets.mlp(depth=2, activation="erf", d_in=2)
    data = inputs(network, np.random.default_rng(0))
    values = exponents(network, parametrization)
    if parametrization == "mup":  # the output vanishes at the start; its gradients do not
        assert not nngp(network, "mup")(arrays(data)).any()
        assert ntk(network, "mup")(arrays(data)).any()
        return
    if isinstance(parametrization, dict):
        with pytest.raises(NotCoveredError, match="nngp grows with n"):
            nngp(network, parametrization)
        return
    want = Copies(network, data).kernel(values)
    assert abs(ntk(network, parametrization)(arrays(data))[0, 1] - want) < 1e-12


# ------------------------------------------------------------------------------------------ options


def test_options_are_what_a_program_can_say():
    plain = tp.nets.mlp(depth=2, activation="erf", d_in=2, bias=True)
    X = RNG.standard_normal((4, 2))
    a = ntk(plain, variances={"W1": Fraction(4, 3), "W2": Fraction(5, 3), "readout": Fraction(4, 5),
                              "W1_b": Fraction(1, 3), "W2_b": Fraction(1, 4)})(X)
    assert np.abs(a - ntk(mlp("erf", "erf", biases=True))(X)).max() < 1e-14


def test_multipliers_and_rates():
    network, X = tp.nets.mlp(depth=2, activation="relu", d_in=2), RNG.standard_normal((4, 2))
    assert np.allclose(nngp(network, multipliers={"*": 3})(X), 3**6 * nngp(network)(X))
    # W = 3 w: gradients by w have the square of 3, as has a rate of 9 beside a variance of 9
    both = ntk(network, variances={"*": 9}, rates={"*": 9})(X)
    assert np.allclose(ntk(network, multipliers={"*": 3})(X), both)
    frozen = ntk(network, rates={"*": 0, "readout": 1})(X)
    assert np.allclose(frozen, nngp(network)(X))  # only the readout learns: its features' covariance


def test_weights_add_up():
    # with unit variances a layer's tangents contain its covariances, biases included, which are then used again
    network, X = tp.nets.mlp(depth=3, activation="relu", d_in=2, bias=True), RNG.standard_normal((5, 2))
    options = {"variances": {"bias": 0.25, "W2": 3}}
    parts = [ntk(network, rates={"*": 0, w.out: 1}, **options)(X) for w in network.params]
    assert np.abs(sum(parts) - ntk(network, **options)(X)).max() < 1e-13
    assert all(part.any() for part in parts)


def test_zero_biases_are_trained():
    X = RNG.standard_normal((3, 2))
    with_bias, without = (ntk(tp.nets.mlp(depth=1, activation="erf", d_in=2, bias=b))(X) for b in (True, False))
    slopes = ntk(tp.nets.mlp(depth=1, activation="erf", d_in=2), rates={"readout": 0})(X) / (X @ X.T)
    assert np.allclose(with_bias - without, slopes)


# ------------------------------------------------------------------------------------------ arrays


def kernels():
    return [nngp(NETWORKS["biases"]()), ntk(NETWORKS["biases"]()), ntk(NETWORKS["layernorm relu"]()),
            ntk(tp.nets.mlp(depth=3, activation="relu", d_in=2))]


@pytest.mark.parametrize("k", kernels(), ids=str)
def test_blocks_threads_and_symmetry(k, monkeypatch):
    X, Y = RNG.standard_normal((53, 2)), RNG.standard_normal((31, 2))
    whole, cross = k(X), k(X, Y)
    assert np.array_equal(whole, whole.T)
    assert np.abs(k(X, X) - whole).max() < 1e-7 * np.abs(whole).max()
    assert np.array_equal(np.diag(whole), k.diagonal(X))
    monkeypatch.setattr(tiles.fill, "__kwdefaults__", tiles.fill.__kwdefaults__ | {"area": 49})
    seen = []
    small = k(X, progress=lambda done, total: seen.append((done, total)), workers=2)
    assert np.abs(small - whole).max() < 1e-13 * np.abs(whole).max()
    total = len(tiles.cut(53, 53, True, 49))
    assert seen[-1] == (total, total) and total > 30  # the calling thread tells, when it comes to it
    seen.clear()
    k(X, progress=lambda done, total: seen.append((done, total)), workers=1)
    assert seen == [(i + 1, total) for i in range(total)]
    assert np.abs(k(X, Y, workers=1) - cross).max() < 1e-13 * np.abs(cross).max()
    assert np.abs(k(Y, X).T - cross).max() < 1e-13 * np.abs(cross).max()


@pytest.mark.parametrize("k", kernels(), ids=str)
def test_single_precision(k):
    X = RNG.standard_normal((20, 2))
    single = k(X.astype(np.float32))
    assert single.dtype == np.float32
    assert np.abs(single - k(X)).max() < 2e-3 * np.abs(single).max()


def test_positive_semidefinite():
    X = RNG.standard_normal((60, 2))
    for k in kernels():
        assert np.linalg.eigvalsh(k(X)).min() > -1e-10


def test_zero_and_equal_and_opposite_inputs():
    X = np.array([[1.0, 2.0], [1.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [1.0 + 1e-9, 2.0]])
    for k in kernels():
        K = k(X)
        assert np.all(np.isfinite(K)) and abs(K[0, 1] - K[0, 0]) < 1e-12 * K[0, 0]
        assert abs(K[0, 4] - K[0, 0]) < 1e-7 * K[0, 0]


def test_memory_is_that_of_the_tiles():
    import tracemalloc

    k = ntk(mlp(*("erf",) * 8, biases=True))
    schedule = k._schedules["f", "f"]
    assert isinstance(schedule, Schedule) and schedule.width <= 7  # whatever the depth
    X = RNG.standard_normal((3000, 2))
    out = np.empty((3000, 3000))
    k(X[:300])
    tracemalloc.start()
    k(X, out=out, workers=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tile = rows.LONG * 8
    per_input = 3000 * 8 * 4 * len(k.covariances.graph.nodes)  # what inputs have, and duals need of it
    # beside the kernel: a few arrays a thread, and what the formulas take (half a dozen)
    assert peak < 2 * (schedule.width + rows.SCRATCH + 1) * tile + per_input < out.nbytes
    assert tiles.spans(20_000)[0] == slice(0, 160) and len(tiles.spans(20_000)) == 125


def test_out_may_be_a_memory_map(tmp_path):
    k, X = nngp(tp.nets.mlp(activation="erf")), RNG.standard_normal((9, 3))
    out = np.lib.format.open_memmap(tmp_path / "K.npy", mode="w+", dtype=np.float32, shape=(9, 9))
    k(X, out=out)
    out.flush()
    assert np.abs(np.load(tmp_path / "K.npy") - k(X)).max() < 1e-6


def test_inputs_by_name_and_by_place():
    k = nngp(recurrent("erf", 2))
    X = RNG.standard_normal((3, 2, 2))
    assert np.array_equal(k(X), k({"xi1": X[:, 0], "xi2": X[:, 1]}))
    p = parse("dim n\ndim d = 2\nmatrix U : n x d ~ N(0, 1)\ninput x : d = [1, 0]\ninput y : d\nh = U @ x + U @ y\n"
              "output h")
    only = nngp(p)  # x has values: it is a constant of the network
    assert only.inputs == ("y",) and only(np.array([[0.0, 2.0]]))[0, 0] == 5.0
    assert nngp(p, inputs=("x", "y"))(np.ones((1, 2, 2)))[0, 0] == 8.0


def test_deep_networks_compile_without_deep_recursion():
    for network in (mlp(*("erf",) * 250), residual("erf", 80), recurrent("erf", 60)):
        k = ntk(network)
        size = (1, 2) if len(k.inputs) == 1 else (1, 60, 2)
        assert np.isfinite(k(np.ones(size))).all()


def test_cold_start_without_sympy():
    code = ("import sys, numpy as np, tensorprog as tp\n"
            "net = tp.nets.mlp(depth=3, activation={!r}, d_in=4, bias={})\n"
            "tp.kernels.ntk(net, variances={{'*': 1.5}})(np.eye(4))\n"
            "print('sympy' in sys.modules, 'scipy' in sys.modules)")
    root = Path(tp.__file__).parents[1]
    for name, bias in (("relu", False), ("relu", True), ("erf", True)):
        done = subprocess.run([sys.executable, "-c", code.format(name, bias)], capture_output=True, text=True, cwd=root,
                              check=True)
        assert done.stdout.split() == ["False", "False"], name


# ------------------------------------------------------------------------------------------ finite networks


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_finite_networks(name):
    # E f f' has the exact mean up to O(1/n); the interval is Student's at 99.9%, and 1% for the bias in 1/n
    network = NETWORKS[name]()
    data = inputs(network, np.random.default_rng(len(name)))
    samples = finite(network, data, exponents(network), 512, range(400))
    for made, k in zip(samples, (nngp(network), ntk(network)), strict=True):
        claim, scale = k(arrays(data))[0, 1], float(np.sqrt(np.prod(k.diagonal(arrays(data)))))
        assert_within(made, claim, 0.02 * scale)
    wrong = k(arrays(data))[0, 1] + 0.15 * scale
    with pytest.raises(AssertionError):
        assert_within(samples[1], wrong, 0.02 * scale)


def assert_within(samples, claim, slack):
    half = stats.t.ppf(0.9995, len(samples) - 1) * stats.sem(samples)
    assert abs(np.mean(samples) - claim) <= half + slack


@pytest.mark.slow
def test_a_wrong_variance_is_refuted():
    network = mlp("relu", "relu")
    data = inputs(network, np.random.default_rng(0))
    _, tangents = finite(network, data, exponents(network), 512, range(200))
    k = ntk(network, variances={"W2": 2})
    scale = float(np.sqrt(np.prod(k.diagonal(arrays(data)))))
    with pytest.raises(AssertionError):
        assert_within(tangents, k(arrays(data))[0, 1], 0.02 * scale)


def test_a_slope_that_is_used_before_its_function():
    """silu written as a product: its kernel needs E s'' s before E s s, and E s' s' beside the latter."""
    def network(activation):
        p = tp.Program(loss="squared")
        n, d = p.dim("n"), p.dim("d", 3)
        g = p.let("g", p.param("U", n, d, role="input") @ p.data("xi", d))
        x = p.let("x", activation(g))
        p.output(p.let("f", p.param("V", p.dim("o", 1), n, role="readout") @ x))
        return p.freeze()

    X = RNG.standard_normal((4, 3))
    for kind in (nngp, ntk):
        whole, product = kind(network(tp.silu)), kind(network(lambda g: tp.sigmoid(g) * g))
        assert np.abs(whole(X) - product(X)).max() < 1e-7 * np.abs(whole(X)).max()
