"""Training in the kernel regime: algebra done by hand, equations integrated by hand, and wide networks trained."""

import math

import numpy as np
import pytest
from scipy.linalg import expm

from tensorprog.atoms.losses import generic
from tensorprog.errors import NotCoveredError, RunError
from tensorprog.kernels.regression import Regression


def nngp(A, B):
    """E relu(w.x) relu(w.x') for w ~ N(0, I): the network v.relu(W x) / sqrt(n)."""
    size = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=1)
    t = np.arccos(np.clip(A @ B.T / size, -1, 1))
    return size * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)


def ntk(A, B):
    size = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=1)
    return nngp(A, B) + A @ B.T * (np.pi - np.arccos(np.clip(A @ B.T / size, -1, 1))) / (2 * np.pi)


RNG = np.random.default_rng(7)
X, Z = RNG.standard_normal((6, 3)), RNG.standard_normal((5, 3))
Y = RNG.standard_normal((6, 2))
NET = Regression(ntk, X, Y, prior=nngp)


def by_hand(t, decay):
    """Mean and covariance on the points Z and X together, with the decay matrix spelled out."""
    P = np.concatenate([Z, X])
    A = ntk(P, X) @ np.linalg.solve(ntk(X, X), np.eye(6) - decay)
    own, mixed = nngp(P, P), nngp(P, X)
    return A @ Y, own - A @ mixed.T - mixed @ A.T + A @ nngp(X, X) @ A.T


# ----------------------------------------------------------------------------------------------------- squared loss


@pytest.mark.parametrize("t", [0.0, 0.3, 4.0, 1e3, math.inf])
def test_flow(t):
    decay = expm(-t * ntk(X, X)) if math.isfinite(t) else np.zeros((6, 6))
    mean, covariance = by_hand(t, decay)
    P = np.concatenate([Z, X])
    assert NET.predict(P, t) == pytest.approx(mean, abs=1e-9)
    assert NET.covariance(P, t) == pytest.approx(covariance, abs=1e-9)
    # abs: a variance that is 0 is left with the root of rounding
    assert NET.std(P, t) == pytest.approx(np.sqrt(np.maximum(np.diag(covariance), 0)), abs=1e-6)
    assert NET.predict(t=t) == pytest.approx(NET.predict(X, t), abs=1e-9)
    assert NET.covariance(t=t) == pytest.approx(NET.covariance(X, t), abs=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_steps(rate):
    net = Regression(ntk, X, Y, prior=nngp, learning_rate=rate)
    top = net.spectrum[-1]
    assert top * rate < 2
    for t in (0, 1, 7, 500):
        mean, covariance = by_hand(t, np.linalg.matrix_power(np.eye(6) - rate * ntk(X, X), t))
        P = np.concatenate([Z, X])
        assert net.predict(P, t) == pytest.approx(mean, abs=1e-9)
        assert net.covariance(P, t) == pytest.approx(covariance, abs=1e-9)
    assert net.predict(Z) == pytest.approx(NET.predict(Z), abs=1e-9)
    assert NET.predict(Z, rate * 7) != pytest.approx(net.predict(Z, 7), abs=1e-6)  # time is not steps


def test_small_steps_are_the_flow():
    net = Regression(ntk, X, Y, learning_rate=1e-5)
    assert net.predict(Z, 100_000) == pytest.approx(NET.predict(Z, 1.0), abs=1e-4)


def test_a_learning_rate_of_the_very_eigenvalue():
    net = Regression(lambda A, B: A @ B.T, np.eye(2), np.ones(2), learning_rate=1.0)
    assert net.predict(t=[0, 1, 2]).tolist() == [[0, 0], [1, 1], [1, 1]]


def test_times_come_first():
    times = [0.0, 0.5, 2.0]
    many = NET.predict(Z, times)
    assert many.shape == (3, 5, 2)
    for t, one in zip(times, many, strict=True):
        assert one == pytest.approx(NET.predict(Z, t), abs=1e-12)
    assert Regression(ntk, X, Y[:, 0]).predict(Z, times).shape == (3, 5)


def test_singular_kernels():
    # two equal points with different targets: the flow ends at their mean, and what no direction sees stays
    net = Regression(lambda A, B: A @ B.T, np.array([[1.0], [1.0]]), np.array([0.0, 2.0]))
    assert net.predict() == pytest.approx([1.0, 1.0]) and net.predict(np.array([[3.0]])) == pytest.approx([3.0])
    assert net.spectrum.tolist() == pytest.approx([0.0, 2.0])
    assert Regression(lambda A, B: A @ B.T, np.eye(2)[:1], np.ones(1), prior=lambda A, B: A @ B.T).std(
        np.eye(2)).tolist() == pytest.approx([0.0, 1.0])


def test_jitter_is_the_ridge():
    net = Regression(ntk, X, Y, jitter=0.1)
    assert net.predict(Z) == pytest.approx(ntk(Z, X) @ np.linalg.solve(ntk(X, X) + 0.1 * np.eye(6), Y))
    assert net.predict() == pytest.approx(ntk(X, X) @ np.linalg.solve(ntk(X, X) + 0.1 * np.eye(6), Y))


def test_one_hidden_layer_of_relu():
    """D.ntk.relu1: f_t = 1 - (1 - eta)^t (1 - f_0), f_0 ~ N(0, 1/2); and networks of width 200,000."""
    eta, one = 0.3, np.ones((1, 1))
    net = Regression(ntk, one, np.ones(1), prior=nngp, learning_rate=eta)
    assert net.spectrum == pytest.approx([1.0])
    for t in range(12):
        assert net.predict(t=t) == pytest.approx([1 - 0.7**t])
        assert net.std(t=t) == pytest.approx([0.7**t * math.sqrt(0.5)])
    worst, wrong = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n = 200_000
        u, v = rng.standard_normal(n), rng.standard_normal(n)
        path = []
        for _ in range(12):
            x = np.maximum(u, 0)
            path.append(v @ x / math.sqrt(n))
            u, v = u + eta * (1 - path[-1]) * v * (u > 0) / math.sqrt(n), v + eta * (1 - path[-1]) * x / math.sqrt(n)
        exact = 1 - 0.7 ** np.arange(12) * (1 - path[0])
        worst.append(np.abs(path - exact).max())
        wrong.append(np.abs(path - (1 - 0.85 ** np.arange(12) * (1 - path[0]))).max())  # K = 1/2: the readout alone
    assert np.mean(worst) < 0.006 < 0.05 < np.mean(wrong)


def test_samples_have_the_mean_and_covariance():
    drawn = NET.sample(Z, 0.7, 20_000, seed=3)
    assert drawn.shape == (20_000, 5, 2)
    assert drawn.mean(axis=0) == pytest.approx(NET.predict(Z, 0.7), abs=5 * NET.std(Z, 0.7).max() / 141)
    assert np.cov(drawn[..., 1].T) == pytest.approx(NET.covariance(Z, 0.7), abs=0.05)
    assert NET.sample(Z, 0.7, 3, seed=3) == pytest.approx(NET.sample(Z, 0.7, 3, seed=3), abs=0)


# ------------------------------------------------------------------------------------------------------ other losses


def rk4(gradient, y, f, theta, t, steps=4000):
    """f_t on all points (the first of which are trained on) by Runge and Kutta."""
    n, h = len(y), t / steps

    def slope(f):
        return -theta[:, :n] @ gradient(f[:n], y)

    for _ in range(steps):
        a = slope(f)
        b = slope(f + h / 2 * a)
        c = slope(f + h / 2 * b)
        f = f + h / 6 * (a + 2 * b + 2 * c + slope(f + h * c))
    return f


def softmax(f):
    return np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("loss, gradient, y", [
    ("logistic", lambda f, y: -y / (1 + np.exp(y * f)), np.sign(Y)),
    ("cross_entropy", lambda f, y: softmax(f) - y, softmax(Y)),
    (generic(lambda f, y: np.tanh(f - y), name="pseudo_huber"), lambda f, y: np.tanh(f - y), Y),
], ids=["logistic", "cross_entropy", "user"])
def test_other_losses(loss, gradient, y):
    net = Regression(ntk, X, y, loss=loss)
    P = np.concatenate([X, Z])
    theta = ntk(P, P)
    for t in (0.5, 6.0):
        exact = rk4(gradient, y, np.zeros((11, 2)), theta, t)
        assert net.predict(Z, t) == pytest.approx(exact[6:], abs=1e-7)
        assert net.predict(t=t) == pytest.approx(exact[:6], abs=1e-7)
    both = net.predict(Z, [6.0, 0.0, 0.5])
    assert both[0] == pytest.approx(net.predict(Z, 6.0), abs=1e-7) and both[1] == pytest.approx(np.zeros((5, 2)))
    # discrete steps
    f = np.zeros((11, 2))
    for _ in range(9):
        f = f - 0.2 * theta[:, :6] @ gradient(f[:6], y)
    assert Regression(ntk, X, y, loss=loss, learning_rate=0.2).predict(Z, 9) == pytest.approx(f[6:], abs=1e-12)


def test_integration_reproduces_the_closed_form():
    squared = generic(lambda f, y: f - y, name="squares")
    net = Regression(ntk, X, Y, loss=squared)
    for t in (0.1, 3.0, 200.0):
        assert net.predict(Z, t) == pytest.approx(Regression(ntk, X, Y).predict(Z, t), abs=1e-6)
    ridge = Regression(ntk, X, Y, loss=squared, jitter=0.3)
    assert ridge.predict(Z, 2.0) == pytest.approx(Regression(ntk, X, Y, jitter=0.3).predict(Z, 2.0), abs=1e-6)
    stiff = Regression(lambda A, B: 1e4 * ntk(A, B), X, Y, loss=squared)  # LSODA
    assert stiff.spectrum[-1] * 10 > 2e4
    assert stiff.predict(Z, 10.0) == pytest.approx(Regression(ntk, X, Y).predict(Z, 1e5), abs=1e-5)


def test_samples_of_other_losses():
    y = np.sign(Y)
    net = Regression(ntk, X, y, prior=nngp, loss="logistic")
    drawn = net.sample(Z, 1.5, 4, seed=5)
    start = net.sample(Z, 0.0, 4, seed=5), net.sample(X, 0.0, 4, seed=5)
    assert start[1].std() > 0.1
    joint = Regression(ntk, X, y, prior=nngp, loss="squared").sample(Z, 0.0, 4, seed=5)
    assert joint == pytest.approx(start[0])
    with pytest.raises(NotCoveredError, match="obeys no equation of its own.*\n  fix: sample"):
        net.predict(Z, 1.0)
    with pytest.raises(NotCoveredError, match="Gaussian for the squared loss only"):
        net.std(Z, 1.0)
    with pytest.raises(NotCoveredError, match="no minimum on data that the kernel fits"):
        Regression(ntk, X, y, loss="logistic").predict(Z)
    assert drawn.shape == (4, 5, 2)


def test_error_control_sees_a_gradient_that_jumps():
    rough = generic(lambda f, y: np.sign(f - y) * (1 + np.sin(1e3 * f)), name="rough")
    with pytest.raises(NotCoveredError, match="after 50000 evaluations.*\n  fix: a shorter time"):
        Regression(ntk, X, Y, loss=rough, tol=1e-3).predict(Z, 20.0)


def test_error_control_sees_an_integrator_that_misses_its_tolerance(monkeypatch):
    import scipy.integrate

    real = scipy.integrate.solve_ivp

    def worse(*args, rtol, **options):
        out = real(*args, rtol=rtol, **options)
        out.y *= 1 + 1e3 * rtol
        return out

    monkeypatch.setattr(scipy.integrate, "solve_ivp", worse)
    with pytest.raises(NotCoveredError, match="two integrations differ by more than 100 tol"):
        Regression(ntk, X, np.sign(Y), loss="logistic").predict(Z, 1.0)


# --------------------------------------------------------------------------------------------------- Bayes, and labels


def test_posterior():
    for noise in (0.0, 0.2):
        post = NET.posterior(Z, noise)
        K = nngp(X, X) + noise * np.eye(6)
        assert post.mean == pytest.approx(nngp(Z, X) @ np.linalg.solve(K, Y), abs=1e-9)
        assert post.covariance == pytest.approx(nngp(Z, Z) - nngp(Z, X) @ np.linalg.solve(K, nngp(X, Z)), abs=1e-9)
    # training the last layer alone, to the end
    last = Regression(nngp, X, Y, prior=nngp)
    assert last.predict(Z) == pytest.approx(NET.posterior(Z).mean, abs=1e-8)
    assert last.covariance(Z) == pytest.approx(NET.posterior(Z).covariance, abs=1e-8)
    assert NET.predict(Z) != pytest.approx(NET.posterior(Z).mean, abs=1e-3)


def test_evidence():
    from scipy.stats import multivariate_normal

    exact = sum(multivariate_normal.logpdf(Y[:, i], np.zeros(6), nngp(X, X) + 0.3 * np.eye(6)) for i in range(2))
    assert NET.log_evidence(0.3) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("loss, t", [("squared", math.inf), ("logistic", 50.0), ("cross_entropy", 50.0)])
def test_classification(loss, t):
    rng = np.random.default_rng(0)
    centres = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2]])
    which = rng.integers(3, size=60)
    points, labels = centres[which] + 0.3 * rng.standard_normal((60, 3)), np.array(["a", "b", "c"])[which]
    net = Regression(ntk, points[:30], labels[:30], classify=True, loss=loss)
    assert net.labels(t=t).tolist() == labels[:30].tolist() and net.score(points[30:], labels[30:], t) == 1.0
    assert net.score(points[30:], np.roll(labels[30:], 1), t) < 0.7
    one_hot = np.eye(3)[which[:30]]
    targets = {"squared": one_hot - 1 / 3, "logistic": 2 * one_hot - 1, "cross_entropy": one_hot}[loss]
    plain = Regression(ntk, points[:30], targets, loss=loss)
    assert net.predict(points[30:], t) == pytest.approx(plain.predict(points[30:], t))


def test_score_and_fit():
    net = Regression(ntk).fit(X, Y)
    assert net.score(X, Y) == pytest.approx(1) and net.score(X, Y, t=0) < 0.01
    assert net.predict(Z) == pytest.approx(NET.predict(Z))
    with pytest.raises(RunError, match="this is a regression"):
        net.labels(Z)


# -------------------------------------------------------------------------------------------------------------- errors


def test_kernels_that_are_none():
    hollow = Regression(lambda A, B: 1.0 - np.eye(3), np.eye(3), np.ones(3))
    with pytest.raises(NotCoveredError, match=r"not positive semidefinite.*\(got -1\.0.*\n  fix: jitter .* of 1\.1"):
        hollow.predict()
    assert Regression(lambda A, B: 1.0 - np.eye(3), np.eye(3), np.ones(3), jitter=1.1).predict().shape == (3,)
    with pytest.raises(NotCoveredError, match="not symmetric"):
        Regression(lambda A, B: np.triu(np.ones((3, 3))), np.eye(3), np.ones(3)).predict()
    with pytest.raises(RunError, match="not a matrix of 3 x 3 finite real numbers"):
        Regression(lambda A, B: A[:, :1] + 0 * B[:1, :1], np.eye(3), np.ones(3)).predict()
    with pytest.raises(RunError, match="finite real numbers"):
        Regression(lambda A, B: np.full((len(A), len(B)), np.nan), np.eye(3), np.ones(3)).predict()
    with pytest.raises(NotCoveredError, match="the kernel is singular.*\n  fix: noise="):
        Regression(lambda A, B: np.ones((len(A), len(B))), np.eye(3), np.ones(3)).posterior()


def test_float32_kernels_are_allowed_their_rounding():
    rough = lambda A, B: (np.ones((len(A), len(B))) + 3e-8 * (A @ B.T - 0.4)).astype(np.float32)  # noqa: E731
    assert Regression(rough, np.eye(3), np.ones(3)).predict().shape == (3,)
    with pytest.raises(NotCoveredError, match="not positive semidefinite"):
        Regression(lambda A, B: rough(A, B).astype(float) - 1e-6 * (A @ B.T), np.eye(3), np.ones(3)).predict()


def test_data_and_times_that_do_not_fit():
    with pytest.raises(RunError, match="there are no data yet.*\n  fix: call fit"):
        Regression(ntk).predict(Z)
    for y in (np.ones(5), np.array([1.0, np.nan, 0, 0, 0, 0]), np.ones((6, 1, 1))):
        with pytest.raises(RunError, match="one finite target for each point"):
            Regression(ntk, X, y).predict(Z)
    with pytest.raises(RunError, match="times are negative"):
        NET.predict(Z, -1.0)
    with pytest.raises(RunError, match="whole numbers"):
        Regression(ntk, X, Y, learning_rate=0.1).predict(Z, 0.5)
    with pytest.raises(RunError, match="not positive"):
        Regression(ntk, X, Y, learning_rate=-0.1).predict(Z, 1)
    with pytest.raises(RunError, match="jitter is negative"):
        Regression(ntk, X, Y, jitter=-1).predict(Z)
    with pytest.raises(RunError, match="not a variance"):
        NET.posterior(Z, -1.0)
    with pytest.raises(NotCoveredError, match=r"diverges.*\n  fix: a learning_rate below 0\."):
        Regression(ntk, X, Y, learning_rate=5.0).predict(Z)
    with pytest.raises(NotCoveredError, match="f_0 = 0 is not random"):
        Regression(ntk, X, Y).sample(Z)


# -------------------------------------------------------------------------------------------------- trained networks


def trained(width, steps, rate, seed, gradient, y):
    """Outputs on Z and X of a network v.relu(W x) / sqrt(n), all weights trained by gradient descent."""
    rng = np.random.default_rng(seed)
    W, v = rng.standard_normal((width, 3)), rng.standard_normal(width)
    for _ in range(steps):
        h = X @ W.T
        x = np.maximum(h, 0)
        chi = gradient(x @ v / math.sqrt(width), y) * rate / math.sqrt(width)
        W, v = W - ((chi[:, None] * (h > 0)).T @ X) * v[:, None], v - x.T @ chi
    return np.maximum(np.concatenate([Z, X]) @ W.T, 0) @ v / math.sqrt(width)


def off(found, expected, error):
    """The largest deviation, in standard errors."""
    return np.max(np.abs(found - expected) / error)


@pytest.mark.slow
def test_squared_loss_against_trained_networks():
    seeds, rate, steps, y = 400, 0.02, 60, Y[:, 0]
    P = np.concatenate([Z, X])
    out = np.array([trained(2048, steps, rate, s, lambda f, y: f - y, y) for s in range(seeds)])
    mean, std = out.mean(axis=0), out.std(axis=0, ddof=1)
    net = Regression(ntk, X, y, prior=nngp, learning_rate=rate)
    error, spread = std / math.sqrt(seeds) + 2e-3, std / math.sqrt(2 * seeds) + 2e-3  # 1/n: what a finite width adds
    assert off(mean, net.predict(P, steps), error) < 4
    assert off(std, net.std(P, steps), spread) < 4.5
    wide = np.abs(np.cov(out.T) - net.covariance(P, steps)) / (np.outer(std, std) * math.sqrt(2 / seeds) + 2e-3)
    assert wide.max() < 5
    # twins: the readout alone; twice the steps; no randomness left out
    assert off(mean, Regression(nngp, X, y, prior=nngp, learning_rate=rate).predict(P, steps), error) > 8
    assert off(mean, net.predict(P, 2 * steps), error) > 8
    assert off(std, net.std(P, 0), spread) > 8


@pytest.mark.slow
def test_logistic_loss_against_trained_networks():
    seeds, rate, steps, y = 300, 0.05, 60, np.sign(Y[:, 1])
    P = np.concatenate([Z, X])
    gradient = lambda f, y: -y / (1 + np.exp(y * f))  # noqa: E731
    out = np.array([trained(2048, steps, rate, s, gradient, y) for s in range(seeds)])
    net = Regression(ntk, X, y, prior=nngp, learning_rate=rate, loss="logistic")
    drawn = net.sample(P, steps, 4000, seed=1)
    error = out.std(axis=0) * math.sqrt(1 / seeds + 1 / 4000) + 2e-3
    assert off(out.mean(axis=0), drawn.mean(axis=0), error) < 4
    assert off(out.std(axis=0), drawn.std(axis=0), error / math.sqrt(2) + 2e-3) < 4.5
    assert off(out.mean(axis=0), net.sample(P, steps // 2, 4000, seed=1).mean(axis=0), error) > 8


def test_a_score_is_of_targets_of_one_shape():
    # (N,) and (N, 1) would be compared each with each
    net = Regression(ntk, X, Y[:, 0])
    with pytest.raises(RunError, match="shape of what is predicted"):
        net.score(X, Y[:, :1])
    labels = np.array(list("abcabc"))
    with pytest.raises(RunError, match="shape of what is predicted"):
        Regression(ntk, X, labels, classify=True).score(X, labels[:, None])


@pytest.mark.parametrize("t", [[], "soon", [[1.0]]])
def test_times_are_numbers(t):
    with pytest.raises(RunError, match="neither a time"):
        NET.predict(X, t)


@pytest.mark.parametrize("job, match", [
    (lambda: Regression("ntk", X, Y), "kernel: not a function of arrays.*\n  fix: kernels.ntk"),
    (lambda: Regression(nngp, X, Y, prior="nngp"), "prior: not a function of arrays"),
    (lambda: Regression(nngp, X, Y, learning_rate="fast"), "learning_rate: not a number"),
    (lambda: Regression(nngp, X, ["cat"] * len(X)).predict(X), "y: targets are not numbers.*\n  fix: classify=True"),
    (lambda: Regression(nngp, X, Y).posterior(X, noise="x"), "not a variance"),
    (lambda: Regression(nngp, X, Y, prior=nngp).sample(X, count=-1), "count: not a whole number of at least 1"),
    (lambda: Regression(nngp, X, Y, prior=nngp).sample(X, seed=-1), "seed: not a whole number of at least 0"),
])
def test_arguments_of_another_kind(job, match):
    with pytest.raises(RunError, match=match):
        job()
