"""Kernels of networks that use a matrix and its transpose: closed forms by hand, finite networks in plain numpy."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from tensorprog.errors import NotCoveredError
from tensorprog.kernels import nngp, ntk
from tensorprog.kernels.dots import Dotted
from tensorprog.kernels.pairwise import Pairwise
from tensorprog.program.text import parse

from .networks import NETWORKS, Net, arrays, inputs
from .oracle import exponents
from .tape import RELU, Var, gradients, matvec

HEAD = """dim n
dim d = 2
dim one = 1
input xi : d
param U : n x d [a=0, b=0, c=0]
param W : n x n [a=1/2, b=0, c=0]
param V : one x n [a=1/2, b=0, c=0]
"""
ERF = (np.vectorize(math.erf), lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x))
X = np.array([[0.9, 0.6], [0.1, 1.1]])
NOTHING = {"variances": {}, "multipliers": {}, "rates": {}}


def back(w, x, scale):
    """Return ``scale w^T x``."""
    return Var(scale * (w.value.T @ x.value),
               ((w, lambda g: scale * np.outer(x.value, g)), (x, lambda g: scale * (w.value @ g))))


# ------------------------------------------------------------------------------------- networks, in two languages

#: By name: the program's lines, and the same in numpy, (weights U, W, V; data) -> f.
PROGRAMS = {
    "linear": ("x = U @ xi\nf = V @ (W.T @ (W @ x))", lambda u, w, v, x, n: read(v, back(
        w, matvec(w, matvec(u, x, 1), n**-0.5), n**-0.5), n)),
    "relu": ("x = U @ xi\nf = V @ (W.T @ relu(W @ x))", lambda u, w, v, x, n: read(v, back(
        w, matvec(w, matvec(u, x, 1), n**-0.5).map(*RELU), n**-0.5), n)),
    "relu before and after": ("x = relu(U @ xi)\nf = V @ relu(W.T @ relu(W @ x))", lambda u, w, v, x, n: read(v, back(
        w, matvec(w, matvec(u, x, 1).map(*RELU), n**-0.5).map(*RELU), n**-0.5).map(*RELU), n)),
    "erf, back and forth": ("x = U @ xi\nf = V @ erf(W @ erf(W.T @ erf(W @ x)))", lambda u, w, v, x, n: read(v, matvec(
        w, back(w, matvec(w, matvec(u, x, 1), n**-0.5).map(*ERF), n**-0.5).map(*ERF), n**-0.5).map(*ERF), n)),
    "residual": ("x = U @ xi\ny = x - 2*(W.T @ relu(W @ x))\nf = V @ erf(y)", lambda u, w, v, x, n: read(v, _tied_block(
        w, matvec(u, x, 1), n).map(*ERF), n)),
}


def read(v, x, n):
    return matvec(v, x, n**-0.5)


def _tied_block(w, x, n):
    return x + back(w, matvec(w, x, n**-0.5).map(*RELU), n**-0.5) * -2.0


def samples(network, n, seeds):
    """Return f f' and the tangent kernel of the two inputs at width n, one a seed."""
    products, tangents = [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, n])
        weights = [Var(rng.standard_normal(shape)) for shape in ((n, 2), (n, n), (1, n))]
        f = [network(*weights, x, n) for x in X]
        products.append(f[0].value.item() * f[1].value.item())
        one, two = map(gradients, f)
        tangents.append(sum(float(np.vdot(one[id(w)], two[id(w)])) for w in weights))
    return np.array(products), np.array(tangents)


def half(made, claim, error=0.0):
    """Return by how much a mean may differ: Student's interval at 99.9%, the claim's, and 2% for the bias in 1/n."""
    return stats.t.ppf(0.9995, len(made) - 1) * stats.sem(made) + stats.t.ppf(0.9995, 7) * error + 0.02 * abs(claim)


def kernel(name, make, **options):
    return make(parse(HEAD + PROGRAMS[name][0] + "\noutput f"), **options)


@pytest.mark.parametrize("name", PROGRAMS)
def test_finite_networks(name):
    products, tangents = samples(PROGRAMS[name][1], 192, range(300))
    for make, made in ((nngp, products), (ntk, tangents)):
        claim, error = (a[0, 1] for a in kernel(name, make).estimate(X))
        assert abs(made.mean() - claim) < half(made, claim, error)
    # an independent copy of W in the place of its transpose has no dots, and is another kernel
    text = PROGRAMS[name][0].replace("W.T", "C.T")
    naive = ntk(parse(HEAD + "param C : n x n [a=1/2, b=0, c=0]\n" + text + "\noutput f"))(X)[0, 1]
    assert abs(tangents.mean() - naive) > half(tangents, naive)


# ----------------------------------------------------------------------------------------------- closed forms


def arccos(q, r, k):
    """Return E relu relu', E step step' of covariances q, r (diagonal), k."""
    c = np.clip(k / np.sqrt(q * r), -1, 1)
    t = np.arccos(c)
    return np.sqrt(q * r) * (np.sin(t) + (np.pi - t) * c) / (2 * np.pi), (np.pi - t) / (2 * np.pi)


GRAM = X @ X.T
Q = np.diag(GRAM)


def test_linear_networks_by_moments_of_the_spectrum():
    # V W' W U: E lambda^2 = 2; each gradient by hand: 2 (V) + 1 + 1 (W twice) + 2 (U)
    assert np.abs(kernel("linear", nngp)(X) - 2 * GRAM).max() < 1e-13
    assert np.abs(kernel("linear", ntk)(X) - 6 * GRAM).max() < 1e-13


def test_one_relu_between_a_matrix_and_its_transpose():
    # Z of W' relu(W u) is a Gaussian of covariance k1 plus u/2; backwards, W' (b step(h)) is one of k0 plus V/2
    k1, k0 = arccos(Q[:, None], Q[None], GRAM)
    assert np.abs(kernel("relu", nngp)(X) - (k1 + GRAM / 4)).max() < 1e-13
    right = 2 * k1 + (2 * k0 + 0.5) * GRAM
    assert np.abs(kernel("relu", ntk)(X) - right).max() < 1e-13
    _, tangents = samples(PROGRAMS["relu"][1], 192, range(100))
    naive = (2 * k1 + 2 * k0 * GRAM)[0, 1]  # an independent copy of W in the transpose: no dots
    assert abs(tangents.mean() - naive) > half(tangents, naive)


def test_a_readout_that_is_a_mean():
    # f = mean((W U x)^2): df/dh = 2 h/n, and W' h = a Gaussian + U x; 4 rho^2 (W) + 8 rho^2 (U)
    text = """dim n
        dim d = 2
        input xi : d
        param U : n x d [a=0, b=0, c=-1]
        param W : n x n [a=1/2, b=0, c=-1]
        h = W @ (U @ xi)
        f = mean(h*h)
        output f"""
    k = ntk(parse(text))
    assert np.abs(k(X) - 12 * GRAM**2).max() < 1e-12
    with pytest.raises(NotCoveredError, match="not random"):
        nngp(parse(text))
    assert k.method == "closed form"
    slow = ntk(parse(text.replace("c=-1", "c=0")))  # without a rate that grows, features stay where they are
    assert not slow(X).any()
    with pytest.raises(NotCoveredError, match="grows with n"):
        ntk(parse(text.replace("c=-1", "c=-2")))


def test_a_readout_tied_to_the_input():
    text = HEAD.replace("d = 2", "d = 1") + "x = relu(U @ xi)\nh = W @ x\nf = n^(-1/2) * (U.T @ relu(h))\noutput f"
    x = np.array([[1.0], [-0.75]])
    gram = x @ x.T
    k1 = arccos(np.diag(gram)[:, None], np.diag(gram)[None], gram)[0]
    q = np.diag(k1)
    h1, h0 = arccos(q[:, None], q[None], k1)
    assert np.abs(nngp(parse(text))(x) - h1).max() < 1e-13
    # gradients by U as the readout, by W, and by U as the input
    step = (x * x.T > 0) / 2
    assert np.abs(ntk(parse(text))(x) - (h1 + h0 * k1 + h0 * step * gram)).max() < 1e-13
    wide = HEAD + "x = relu(U @ xi)\nh = W @ x\nf = n^(-1/2) * (U.T @ relu(h))\noutput f"
    assert np.isfinite(nngp(parse(wide))(X)).all()  # independent and alike, but their gradients are not
    with pytest.raises(NotCoveredError, match="kernels of their own"):
        ntk(parse(wide))


def test_a_vector_along_a_width():
    k = nngp(parse(HEAD + "x = U @ xi\ny = W.T @ relu(W @ x)\noutput y, x"))
    k1 = arccos(Q[:, None], Q[None], GRAM)[0]
    want = [[k1 + GRAM / 4, GRAM / 2], [GRAM / 2, GRAM]]  # the dot is what y has in common with x
    assert np.abs(k(X) - want).max() < 1e-13 and np.abs(k(X, X[::-1])[0, 1, 0] - GRAM[0, ::-1] / 2).max() < 1e-13
    with pytest.raises(NotCoveredError, match="read it out|along a width"):
        ntk(parse(HEAD + "y = W.T @ relu(W @ (U @ xi))\noutput y"))


def test_a_readout_that_the_vector_depends_on():
    # f = u.phi(u x)/sqrt(n) of an even phi has mean zero, and a variance that is not E u^2 E phi^2
    text = HEAD.replace("d = 2", "d = 1") + "f = n^(-1/2) * (U.T @ abs(U @ xi))\noutput f"
    with pytest.raises(NotCoveredError, match="depends on U, coordinate by coordinate"):
        nngp(parse(text))
    with pytest.raises(NotCoveredError, match="not random"):  # of relu its mean is x/2 sqrt(n)
        nngp(parse(text.replace("abs", "relu")))


def test_what_comes_back_along_a_fixed_axis_is_a_number():
    # z = U' relu(U x)/n -> x/2, which the next layer takes for data
    text = HEAD + "z = n^(-1) * (U.T @ relu(U @ xi))\nf = V @ (A @ z)\noutput f"
    text = text.replace("param V", "param A : n x d [a=0, b=0, c=0]\nparam V")
    assert np.abs(nngp(parse(text))(X) - GRAM / 4).max() < 1e-14


def test_a_jump_between_a_matrix_and_its_transpose():
    # the dot of W' step(W x) by Stein's lemma: E step(h) h / E h^2; no array formula, but a limit for each pair
    k = nngp(parse(HEAD + "x = U @ xi\nf = V @ (W.T @ step(W @ x))\noutput f"))
    dot = 1 / np.sqrt(2 * np.pi * Q)
    seen = []
    got = k(X, progress=lambda done, total: seen.append((done, total)))
    assert np.abs(got - arccos(Q[:, None], Q[None], GRAM)[1] - np.outer(dot, dot) * GRAM).max() < 1e-13
    assert k.method == "pair by pair, closed form" and not k.error(X).any()
    assert np.abs(k.diagonal(X) - np.diag(got)).max() == 0 and np.array_equal(k(X, X), got)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_matrix_whose_entries_have_a_mean():
    # A x = the mean of x plus a Gaussian; backwards the mean of V vanishes
    text = HEAD + "matrix A : n x n ~ N(n^-1, n^-1)\nf = V @ (A @ relu(W @ (U @ xi)))\noutput f"
    k1, k0 = arccos(Q[:, None], Q[None], GRAM)
    k1 = k1 + np.sqrt(np.outer(Q, Q)) / (2 * np.pi)
    for make, want in ((nngp, k1), (ntk, k1 + 2 * k0 * GRAM)):
        k = make(parse(text))
        assert np.abs(k(X) - want).max() < 1e-13 and k.method == "pair by pair, closed form"


def test_a_jump_whose_factor_vanishes_only_alone():
    # x = r (r step(h) + r erf(h)), h = W u: E r = 0, and yet the dot has E r^2 delta(h)
    k = nngp(parse(HEAD + """matrix R : n x d ~ N(0, 1)
        r = R @ xi
        h = W @ (U @ xi)
        s = r*step(h) + r*erf(h)
        f = V @ (W.T @ (s*r))
        output f"""))
    z = np.arange(-10, 10, 1 / 64) + 1 / 128
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / 64
    square = np.array([np.sum(weight * ((z > 0) + ERF[0](np.sqrt(q) * z)) ** 2) for q in Q])
    dot = Q * (1 / np.sqrt(2 * np.pi * Q) + 2 / np.sqrt(np.pi * (1 + 2 * Q)))
    want = 3 * Q**2 * square + dot**2 * Q
    assert k.method.startswith("pair by pair") and np.abs(k.diagonal(X) - want).max() < 1e-4


def test_axes_of_other_sizes():
    # W of 2n x n: W'W has moments 2 and 2 + 4 of its spectrum; an axis that grows faster is refused
    text = HEAD.replace("W : n x n", "W : m x n").replace("dim one", "dim m ~ {}\ndim one")
    text += "f = V @ (W.T @ (W @ (U @ xi)))\n"
    assert np.abs(nngp(parse(text.format("2*n") + "output f"))(X) - 6 * GRAM).max() < 1e-12
    with pytest.raises(NotCoveredError, match="grow at different rates"):
        nngp(parse(text.format("n^2") + "output f"))


# ------------------------------------------------------------------------------- the recursion, the limit engine


@pytest.mark.parametrize("name", ["relu", "erf, back and forth", "residual"])
def test_arrays_and_the_limit_engine_agree(name):
    for make in (nngp, ntk) if name != "erf, back and forth" else (nngp,):
        arrays_, engine = kernel(name, make), kernel(name, make, exact=True)
        (K, error), exact = arrays_.estimate(X), engine(X)
        assert np.all(np.abs(K - exact) <= 1e-12 + stats.t.ppf(0.9995, 7) * error)
        if arrays_.method == "sampling":
            assert engine.method.startswith("pair by pair") and (error < 2e-3 * np.abs(exact).max()).all()
        else:
            assert "pair by pair" not in engine.method  # nothing is sampled: nothing to do better


def tied_recurrent():
    """A recurrent network whose state goes forth by W and back by its transpose."""
    return parse(HEAD.replace("input xi : d", "input xi1 : d\ninput xi2 : d\ninput xi3 : d") +
                 "s1 = erf(U @ xi1)\ns2 = erf(W @ s1 + U @ xi2)\ns3 = W.T @ s2 + U @ xi3\nf = V @ s3\noutput f")


def test_several_inputs_and_a_matrix_both_ways():
    rng = np.random.default_rng(5)
    data = rng.standard_normal((2, 3, 2))
    for make in (nngp, ntk):
        k = make(tied_recurrent())
        other = Pairwise(k.kind, tied_recurrent(), {}, ("f",), k.inputs, NOTHING)
        named = {name: data[:, i] for i, name in enumerate(k.inputs)}
        assert k.method == "closed form"
        assert np.abs(k(data) - other.estimate(named, None, 2, 2)[0][0, 0]).max() < 1e-12


def test_several_outputs_and_options():
    program = parse(HEAD + "x = U @ xi\nh = W @ x\nf = V @ erf(x)\ng = V @ (W.T @ relu(h))\noutput f, g")
    options = {"variances": {"U": 0.5, "W": 0.3}, "multipliers": {"W": 1.5}, "rates": {"U": 2.0}}
    for make in (nngp, ntk):
        k = make(program, **options)
        other = Pairwise(k.kind, program, {}, ("f", "g"), ("xi",), options)
        want = other.estimate({"xi": X}, None, 2, 2)[0]
        assert np.abs(k(X) - want).max() < 1e-12 and np.abs(want[0, 1] - want[1, 0]).max() > 1e-3
        assert np.abs(k(X, X[::-1]) - want[..., ::-1]).max() < 1e-12


def random_network(rng):
    """Return a network of random lines that uses a matrix both ways."""
    net = Net()
    p, n = net.p, net.n
    S = net.weight("S", n, n, Fraction(2, 3))
    pre = [p.let("h0", net.weight("W0", n, net.d) @ net.data())]
    post = [p.let("x", net.phi(rng.choice(["relu", "erf", "sin", "abs"]), S @ pre[0]))]
    pre.append(p.let("y", S.T @ post[0]))

    def pick(xs):
        return xs[max(rng.integers(len(xs), size=2))]

    for i in range(int(rng.integers(1, 6))):
        kind = rng.choice(["function", "function", "product", "forth", "back", "sum", "gate", "post"])
        if kind == "function":
            post.append(p.let(f"x{i}", net.phi(rng.choice(["relu", "erf", "sin", "abs"]), pick(pre))))
        elif kind in ("product", "forth", "back"):
            W = S if kind == "forth" else S.T if kind == "back" else net.weight(f"W{i + 1}", n, n, 2)
            pre.append(p.let(f"h{i + 1}", W @ pick([*pre, *post])))
        elif kind == "sum":
            pre.append(p.let(f"h{i + 1}", pick(pre) - pick(pre) / 2))
        elif kind == "gate":
            post.append(p.let(f"x{i}", pick(post) * (net.weight(f"G{i}", n, n) @ pick(post))))
        else:
            post.append(p.let(f"x{i}", pick(post) + pick([*pre, *post])))
    return net.readout(pick([*pre, *post]))


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 60), marks=pytest.mark.slow)], ids=str)
def test_random_tied_networks_by_the_limit_engine(seeds):
    covered = 0
    for seed in seeds:
        network = random_network(np.random.default_rng(seed))
        for make in (nngp, ntk):
            k = make(network)
            if k.method != "closed form":  # the engine takes minutes for what is sampled
                continue
            other = Pairwise(k.kind, network, exponents(network), k.outputs, k.inputs, NOTHING)
            want = other.estimate({"xi": X}, None, 2, 2)[0][0, 0]
            assert np.abs(k(X) - want).max() < 1e-11 * max(1, np.abs(want).max()), (seed, str(network))
            covered += 1
    assert covered > len(seeds)


@pytest.mark.parametrize("name", ["relu", "biases", "widths", "residual", "layernorm relu", "recurrent", "gated"])
def test_where_both_cover_a_network_they_agree(name):
    network = NETWORKS[name]()
    data = arrays(inputs(network, np.random.default_rng(3)))
    for make in (nngp, ntk):
        k = make(network, variances={"V": 0.7}, rates={"V": 3})
        options = {"variances": {"V": 0.7}, "multipliers": {}, "rates": {"V": 3}}
        other = Pairwise(k.kind, network, exponents(network), k.outputs, k.inputs, options)
        assert np.abs(other.estimate(data, None, 2, 2)[0][0, 0] - k(data)).max() < 1e-12
        assert "pair by pair" not in k.method


@pytest.mark.parametrize("name", ["relu", "biases", "widths", "residual after", "layernorm", "recurrent", "gated",
                                  "convolution", "rmsnorm"])
def test_the_program_of_both_passes_is_the_recursion_where_readouts_are_independent(name, monkeypatch):
    network = NETWORKS[name]()
    data = arrays(inputs(network, np.random.default_rng(3)))
    want = ntk(network, rates={"V": 3})(data)
    monkeypatch.setattr(Dotted, "tied", "W")  # as if a matrix were used both ways
    k = ntk(network, rates={"V": 3})
    (K, error), diagonal = k.estimate(data), k.diagonal(data)
    assert k._gradients is not None and (k.method == "closed form" or name == "rmsnorm")
    slack = 1e-12 * np.abs(want).max() + stats.t.ppf(0.9995, 7) * error
    assert np.all(np.abs(K - want) <= slack) and np.all(np.abs(diagonal - np.diag(want)) <= np.diag(slack))


def test_arrays_of_many_inputs():
    rng = np.random.default_rng(8)
    inputs_ = rng.standard_normal((300, 2))
    for make in (nngp, ntk):
        k = kernel("residual", make)
        K = k(inputs_)
        assert np.array_equal(K, K.T) and np.linalg.eigvalsh(K).min() > -1e-9
        assert np.abs(K[:3, 7] - k(inputs_[:3], inputs_[7:8])[:, 0]).max() < 1e-13
        assert k(inputs_.astype(np.float32)).dtype == np.float32


def test_options_of_tied_networks():
    network = parse(HEAD + PROGRAMS["relu"][0] + "\noutput f")
    k1, k0 = arccos(Q[:, None], Q[None], GRAM)
    got = ntk(network, variances={"U": 2.0, "W": 3.0}, rates={"V": 5.0, "W": 0.0}, multipliers={"V": 7.0})(X)
    # U doubles every covariance; W of variance 3: relu(W x) has 3 of it, the product with W' 3 more, its dot 3/2
    want = 5 * 49 * (9 * 2 * k1 + 9 / 4 * 2 * GRAM) + 49 * (9 * k0 + 9 / 4) * GRAM
    assert np.abs(got - want).max() < 1e-11


@pytest.mark.parametrize("lines", [
    # U^T U = n in the limit; what goes in may carry a power of n, and hats of several powers may meet
    "z = n^(-1/2)*(U.T @ (U @ (n^(-1/2)*xi)))",
    "z = n^(-1)*(U.T @ (n^(1/2)*(U @ (n^(-1/2)*xi)) + U @ zeta)) - zeta",
    "z = n^(-3/2)*(U.T @ (n^(1/2)*(U @ xi) + U @ zeta))",
])
def test_data_that_comes_back_keeps_its_power(lines):
    head = HEAD + "input zeta : d = [1/2, 1]\nparam A : n x d [a=0, b=0, c=0]\n"
    made, plain = (nngp(parse(head + text + "\noutput f"), inputs=["xi"])
                   for text in (lines + "\nf = V @ relu(A @ z)", "f = V @ relu(A @ xi)"))
    np.testing.assert_allclose(made(X), plain(X), rtol=1e-11)
    assert made.method == "closed form"
