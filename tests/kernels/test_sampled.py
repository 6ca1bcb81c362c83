"""Sampled kernels: closed forms, finite networks of plain numpy, and what the stated error is worth."""

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.kernels import nngp, ntk
from tensorprog.kernels.batchnorm import BatchNorm
from tensorprog.kernels.mixed import Mixed
from tensorprog.program.text import parse

from . import tape

#: Student's with the 7 degrees of freedom of 8 scrambles, at 1e-4 on both sides.
WIDE = float(stats.t.ppf(1 - 5e-5, 7))


def network(text, shape="U : n x d"):
    return parse(f"dim n\ndim d = 2\ndim o = 1\ninput xi : d\nparam {shape} [a=0, b=0, c=0]\n"
                 "param W : n x n [a=1/2, b=0, c=0]\nparam V : o x n [a=1/2, b=0, c=0]\n" + text)


def assert_within(k, X, want, relative=0.01):
    """The kernel is what is wanted, within its stated error, which is small."""
    K, error = k.estimate(X)
    assert k.method == "sampling"
    size = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    assert np.all(np.abs(K - want) <= WIDE * error + 1e-9 * size), (K - want) / error
    assert np.all(error <= relative * size)


# ----------------------------------------------------------------------------------------------- closed forms

#: What is sampled, and the same function as one whose dual is known.
ALIKE = {
    "nested": ("y = relu(relu(U @ xi) + U @ xi)", "y = 2*relu(U @ xi)"),
    "several arguments": ("h = U @ xi\ny = softmax_0(h, -h)", "h = U @ xi\ny = sigmoid(2*h)"),
    "products": ("h = U @ xi\ny = sigmoid(h)*sigmoid(h)*sigmoid(-h)*sigmoid(-h)", ""),
    "a mean": ("h = U @ xi\ny = sign(h + 100)*tanh(h)", "y = tanh(U @ xi)"),
    "independent factors": ("h = U @ xi\ng = W @ tanh(h)\ny = softmax_0(g, -g)*relu(relu(h) + h)",
                            "h = U @ xi\ng = W @ tanh(h)\ny = 2*sigmoid(2*g)*relu(h)"),
}


@pytest.mark.parametrize("make", [nngp, ntk])
@pytest.mark.parametrize("name", [k for k in ALIKE if k != "products"])
def test_functions_of_anything_against_duals(name, make):
    X = np.array([[1.0, 0.5], [-0.3, 0.8], [1.0, 0.6], [-2.0, -1.0]])
    sampled, exact = (make(network(text + "\nf = V @ y\noutput f")) for text in ALIKE[name])
    assert exact.method != "sampling" and not exact.error(X).any()
    assert_within(sampled, X, exact(X))


def test_products_of_many_functions_against_quadrature():
    """E of (s(g) s(-g))^2 at two inputs, s(g) s(-g) = 1/(2 + 2 cosh g), by Gauss-Hermite points in both dimensions."""
    X = np.array([[1.0, 0.5], [-0.3, 0.8]])
    z, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    R = np.linalg.cholesky(X @ X.T)
    u, v = R[0, 0] * z[:, None], R[1, 0] * z[:, None] + R[1, 1] * z
    f = [(2 + 2 * np.cosh(x)) ** -2.0 for x in (u, v)]
    cross = float(np.einsum("i,j,ij->", w, w, f[0] * f[1]))
    own = [float(w @ (2 + 2 * np.cosh(np.sqrt(q) * z)) ** -4.0) for q in np.diag(X @ X.T)]
    assert_within(nngp(network(ALIKE["products"][0] + "\nf = V @ y\noutput f")), X,
                  np.array([[own[0], cross], [cross, own[1]]]))


def test_a_gate_by_itself_is_a_square():
    """relu(h) h, whose slope jumps at first sight: arc-cosine kernels of orders 2 and 1 (cho2009kernel)."""
    X = np.array([[1.0, 0.5], [-0.3, 0.8]])
    size = np.sqrt(np.outer(*[(X * X).sum(axis=1)] * 2))
    c = np.clip(X @ X.T / size, -1, 1)
    angle, sine = np.arccos(c), np.sqrt(1 - c * c)
    square = size**2 * (3 * sine * c + (np.pi - angle) * (1 + 2 * c * c)) / (2 * np.pi)
    slopes = 4 * size * (sine + (np.pi - angle) * c) / (2 * np.pi)
    net = network("h = U @ xi\ny = relu(h)*h\nf = V @ y\noutput f")
    assert_within(nngp(net), X, square)
    assert_within(ntk(net), X, square + slopes * (X @ X.T))


def test_few_samples_of_many_gaussians():
    X = np.random.default_rng(21).standard_normal((2, 8, 3))
    K, error = nngp(tp.nets.batchnorm(1, batch=8), samples=4).estimate(X)
    assert np.isfinite(K).all() and np.all(error < 1)


@pytest.mark.parametrize("batch, activation", [(4, "relu"), (6, "identity"), (5, "tanh")])
def test_batches_of_orthogonal_inputs_are_at_the_fixed_point(batch, activation):
    """B.batchnorm.relu.B4, B.batchnorm.id, and a function without a degree."""
    fixed = BatchNorm(activation, batch)
    for depth in (1, 3):
        k = nngp(tp.nets.batchnorm(depth, batch=batch, d_in=batch, activation=activation))
        K, error = (x[:, :, 0, 0] for x in k.estimate(np.eye(batch)[None]))
        want = fixed.q * (fixed.c + (1 - fixed.c) * np.eye(batch))
        assert np.all(np.abs(K - want) <= WIDE * error + 2e-4) and error.max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("batch, activation, samples", [(8, "identity", 1024), (6, "relu", 4096)])
def test_gradients_of_a_batch_explode_by_the_published_factor(batch, activation, samples):
    """B.batchnorm.gradexp.id.B8: what the first weights add to the trace grows by the factor with every layer."""
    traces = []
    for depth in (1, 2):
        k = ntk(tp.nets.batchnorm(depth, batch=batch, d_in=batch, activation=activation), samples=samples,
                rates={"*": 0, "W1": 1})
        K, error = (x[:, :, 0, 0] for x in k.estimate(np.eye(batch)[None]))
        traces.append((np.trace(K), np.trace(error)))
    (first, slack), (second, more) = traces
    want = BatchNorm(activation, batch).gradient_factor
    assert abs(second / first / want - 1) < 4 * (slack / first + more / second) < 0.1


# -------------------------------------------------------------------------------------------- finite networks


def assert_finite(samples, width, K, error, wrong):
    """Means over finite networks are the kernel up to 4/n of its largest entry; those of another kernel are not."""
    mean, sem = samples.mean(axis=0), stats.sem(samples, axis=0)
    slack = float(stats.t.ppf(0.9999, len(samples) - 1)) * np.hypot(sem, error) + 4 / width * np.abs(K).max()
    assert np.all(np.abs(mean - K) <= slack), (mean, K, slack)
    assert np.any(np.abs(mean - wrong) > slack), "the twin is refuted"


@pytest.mark.parametrize("length, width, seeds", [(3, 256, 100), pytest.param(6, 256, 100, marks=pytest.mark.slow)])
def test_gated_recurrent_units(length, width, seeds):
    net = tp.nets.gru(length, d_in=2)
    X = np.random.default_rng(5).standard_normal((2, length, 2))
    X[1] = 0.7 * X[0] + 0.7 * X[1]
    samples = tape.kernels(lambda w, x, n: tape.gru(w, x, n, gain=2.0), X, width, range(seeds))
    for make, got in zip((nngp, ntk), samples, strict=True):
        K, error = make(net, multipliers={"hidden": 2}).estimate(X)
        assert_finite(got[:, 0, 0], width, K[0, 1], error[0, 1], make(net, multipliers={"hidden": 0})(X)[0, 1])


def test_transformers_with_growing_heads():
    net = tp.nets.transformer(1, tokens=2, heads=2, regime={"heads": 1}, vocab=3)
    X = np.zeros((2, 2, 3))
    X[0, :, 0] = X[1, 0, 1] = X[1, 1, 0] = 1
    samples = tape.kernels(lambda w, x, n: tape.transformer(w, x, n, alpha=-1.0), X, 128, range(80))
    options = {"inputs": ["tok1", "tok2"], "exponents": {"alpha": -1}}
    for make, got in zip((nngp, ntk), samples, strict=True):
        K, error = (x[:, :, 0, 1] for x in make(net, **options).estimate(X))
        twin = {"variances": {"value": 0}} if make is nngp else {"rates": {"projection": 0, "value": 0, "hidden": 0}}
        assert_finite(got, 128, K, error, make(net, **options, **twin)(X)[:, :, 0, 1])


@pytest.mark.parametrize("affine", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batch_normalization(affine):
    net = tp.nets.batchnorm(2, batch=5, d_in=3, affine=affine)
    X = np.random.default_rng(22).standard_normal((2, 5, 3))
    X[1, 0] = X[0, 0]
    samples = tape.kernels(lambda w, x, n: tape.batchnorm(w, x, n, affine=affine), X, 200, range(30))
    for make, got in zip((nngp, ntk), samples, strict=True):
        K, error = (x[:, :, 0, 1] for x in make(net).estimate(X))
        twin = {"variances": {"readout": 0.8}} if make is nngp else {"rates": {"W1": 0, "W2": 0}}
        assert_finite(got, 200, K, error, make(net, **twin)(X)[:, :, 0, 1])


# ------------------------------------------------------------------------------------------- what is claimed


def test_errors_are_what_they_are_said_to_be():
    """Of 30 seeds, deviations from a finer kernel divided by their errors are those of Student's law."""
    net, X = tp.nets.gru(2, d_in=2), np.random.default_rng(23).standard_normal((2, 2, 2))
    fine, _ = nngp(net, samples=1 << 14, seed=100).estimate(X)
    found = [nngp(net, samples=64, seed=seed).estimate(X) for seed in range(30)]
    scores = np.array([(K[0, 1] - fine[0, 1]) / e[0, 1] for K, e in found])
    assert stats.kstest(scores, stats.t(7).cdf).pvalue > 1e-3
    assert stats.kstest(scores * 2, stats.t(7).cdf).pvalue < 0.05, "errors of half the size are refuted"
    assert np.median([e[0, 1] for _, e in found]) > 8 * nngp(net, samples=1 << 12).error(X)[0, 1]


def test_writing_sums_out_changes_no_expectation(monkeypatch):
    net, X = tp.nets.gru(3, d_in=2), np.random.default_rng(24).standard_normal((2, 3, 2))
    for make in (nngp, ntk):
        apart, error = make(net).estimate(X)
        with monkeypatch.context() as m:
            m.setattr(Mixed, "TERMS", 0)
            whole, more = make(net).estimate(X)
        assert np.all(np.abs(apart - whole) <= WIDE * np.hypot(error, more))
        assert error.max() < more.max() / 3, "that is what it is for"


def test_what_has_a_dual_is_exact():
    net = network("h = U @ xi\nx = relu(h)\ny = relu(relu(h) + h)\nf = V @ x\ng = V @ y\noutput f, g")
    k, X = ntk(net), np.random.default_rng(25).standard_normal((3, 2))
    K, error = k.estimate(X)
    assert error[0, 0].max() < 1e-14 < error[1, 1].max()
    np.testing.assert_allclose(K[0, 0], ntk(net, output="f")(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(K[0, 1], K[1, 0].T)


def test_equal_opposite_and_zero_inputs():
    """Degenerate covariances, symmetry, and one law for all ways to ask."""
    X = np.array([[1.0, 2.0], [1.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [1.0 + 1e-9, 2.0]])
    data = np.stack([X, X[::-1]], axis=1)
    for make in (nngp, ntk):
        k = make(tp.nets.gru(2, d_in=2), samples=64)
        K, error = k.estimate(data)
        assert np.array_equal(K, K.T) and np.array_equal(np.diag(K), k.diagonal(data))
        two, more = k.estimate(data, data[:2])
        assert np.all(np.abs(two - K[:, :2]) <= WIDE * np.hypot(error[:, :2], more) + 1e-9)
        same = k(np.stack([data[0], data[0]]))
        np.testing.assert_allclose(same, same[0, 0], rtol=1e-9)
        assert np.array_equal(k(data), K)
        np.testing.assert_allclose(k(data, workers=1), K, rtol=1e-12)
        assert not np.array_equal(make(tp.nets.gru(2, d_in=2), samples=64, seed=1)(data), K)


def test_shapes_types_and_progress():
    net, seen = tp.nets.batchnorm(1, batch=3, d_in=2), []
    k, X = nngp(net, samples=64), np.random.default_rng(26).standard_normal((30, 3, 2)).astype(np.float32)
    K = k(X, X[:2], progress=lambda done, total: seen.append((done, total)))
    assert K.shape == (3, 3, 30, 2) and K.dtype == np.float32 and seen[-1][0] == seen[-1][1] == len(seen)
    out = np.empty((3, 3, 30, 30))
    assert k(X, out=out) is out and np.array_equal(out, out.transpose(1, 0, 3, 2))
    assert k.diagonal(X).shape == (3, 3, 30) and "sampling" in repr(k)


@pytest.mark.parametrize("options", [{"samples": 1000}, {"samples": 1}, {"samples": 64.0}, {"seed": -1}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ProgramError, match="whole number"):
        nngp(tp.nets.gru(2), **options)


def test_heads_of_a_fixed_number_stay_random():
    with pytest.raises(NotCoveredError, match="stays random") as caught:
        nngp(tp.nets.transformer(1), exponents={"alpha": "1/2"})
    assert "heads that grow" in caught.value.fix


def test_expectations_that_do_not_exist_are_refused():
    for text, reason in (("y = exp(relu(h)*h)", "like the power 2"), ("y = reciprocal(h*h + h)", "edge of the domain")):
        with pytest.raises(NotCoveredError, match=reason):
            nngp(network(f"h = U @ xi\n{text}\nf = V @ y\noutput f"))
