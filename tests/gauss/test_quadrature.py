"""Quadrature over Gaussians against closed forms, mpmath and Monte Carlo."""

import math
from math import asin, erf, exp, pi, sqrt

import mpmath
import numpy as np
import pytest

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.quadrature import GAUSS, KRONROD, NODES, expect, factor


def relu(x):
    return np.maximum(x, 0)


def step(x):
    return (x > 0) * 1.0


def assert_close(found, truth, rel=1e-13):
    off = abs(found.value - truth)
    assert off <= rel * abs(truth) + 1e-17, (found, truth)
    assert off <= found.error + 4e-16 * abs(truth), "the error is a bound"
    assert found.error <= 1e3 * rel * abs(truth) + 1e-12 * abs(truth) + 1e-15, "and not a vacuous one"


def test_the_rules_are_exact_for_polynomials():
    for k in range(0, 32, 2):
        assert KRONROD @ NODES**k == pytest.approx(2 / (k + 1), abs=1e-15)
    for k in range(0, 20, 2):
        assert GAUSS @ NODES**k == pytest.approx(2 / (k + 1), abs=1e-15)
    assert abs(GAUSS @ NODES**20 - 2 / 21) > 1e-8


@pytest.mark.parametrize("fn, mean, var, kinks, truth", [
    (relu, 0, 4, (0,), 2 / sqrt(2 * pi)),
    (lambda x: relu(x - 0.3), 0, 1, (0.3,), exp(-0.045) / sqrt(2 * pi) - 0.15 * (1 - erf(0.3 / sqrt(2)))),
    (np.abs, 0, 9, (0,), 3 * sqrt(2 / pi)),
    (np.sign, 0.5, 1, (0,), erf(0.5 / sqrt(2))),
    (np.cos, 0, 2, (), exp(-1)),
    (np.exp, 1, 9, (), exp(5.5)),
    (np.exp, 0, 400, (), exp(200)),
    (lambda x: x**3, 0.5, 1, (), 1.625),
    (lambda x: x**8, 0, 1, (), 105),
    (lambda x: x**8, 0, 100, (), 105e8),
    (lambda x: np.exp(0.4 * x * x), 0, 1, (), 1 / sqrt(0.2)),
    (lambda x: np.exp(-x * x / 2), 0, 1e12, (), 1 / sqrt(1 + 1e12)),
    (lambda x: np.log(np.abs(x)), 0, 1, (0,), -(np.euler_gamma + math.log(2)) / 2),
    (lambda x: 7 + 0 * x, 3, 2, (), 7),
])
def test_one_gaussian(fn, mean, var, kinks, truth):
    assert_close(expect(fn, [mean], [[var]], [kinks]), truth, 1e-13 if var != 400 else 1e-12)


def test_a_kink_that_was_not_named_is_found():
    rng = np.random.default_rng(0)
    for _ in range(300):
        k, s, m = rng.normal(), math.exp(rng.normal()), rng.normal()
        a = (m - k) / s
        truth = s * exp(-a * a / 2) / sqrt(2 * pi) + (m - k) * 0.5 * (1 + erf(a / sqrt(2)))
        found = expect(lambda x, k=k: relu(x - k), [m], [[s * s]])
        assert abs(found.value - truth) <= found.error + 2e-14  # two meshes may miss it alike, by so little
        assert found.error < 1e-6 * truth


RHOS = (0.0, 0.5, -0.9, 0.999, 1 - 2.0**-20, -(1 - 2.0**-20), 1 - 2.0**-40, 1.0, -1.0)


@pytest.mark.parametrize("rho", RHOS)
def test_two_gaussians_against_closed_forms(rho):
    r, zero = mpmath.mpf(rho), [(0,), (0,)]
    cov = [[1, rho], [rho, 1]]
    with mpmath.workdps(40):
        pair = (mpmath.sqrt(1 - r * r) + r * mpmath.acos(-r)) / (2 * mpmath.pi)
        both, apart = (mpmath.mpf(1) / 4 + s * mpmath.asin(r) / (2 * mpmath.pi) for s in (1, -1))
        erfs = 2 / mpmath.pi * mpmath.asin(2 * r / 3)
    for fn, truth in ((lambda x, y: relu(x) * relu(y), pair), (lambda x, y: step(x) * step(y), both),
                      (lambda x, y: step(x) * step(-y), apart)):
        # The residual variance 1 - rho^2 is formed in doubles: a few ulps of it are lost.
        found = expect(fn, [0, 0], cov, zero)
        assert found.value == pytest.approx(float(truth), rel=1e-10, abs=1e-14)
        assert found.error < 1e-12
    from scipy.special import erf as special

    assert expect(lambda x, y: special(x) * special(y), [0, 0], cov).value == pytest.approx(float(erfs), abs=1e-14)


@pytest.mark.parametrize("rho", [0.3, 0.95, 1 - 2.0**-20])
def test_tanh_pairs_against_mpmath(rho):
    # E tanh(x) g(y) = E tanh(x) G(x) with G(x) = E[g(y) | x], for steps in closed form; for tanh by mpmath twice.
    s = mpmath.sqrt(1 - mpmath.mpf(rho) ** 2)
    truth = 2 * mpmath.quad(lambda x: mpmath.tanh(x) * (mpmath.ncdf(rho * x / s) - 0.5) * mpmath.npdf(x),
                            [0, 3 * s, 9 * s, 3, 10] if s < 0.1 else [0, 1, 3, 10])
    found = expect(lambda x, y: np.tanh(x) * step(y), [0, 0], [[1, rho], [rho, 1]], [(), (0,)])
    assert_close(found, float(truth), 1e-12)


def test_tanh_tanh_by_conditioning_in_mpmath():
    # x = sqrt(c) a + sqrt(1 - c) b, y = sqrt(c) a + sqrt(1 - c) b': the square of E[tanh | a].
    mpmath.mp.dps, c = 15, 0.6
    grid, w = np.polynomial.hermite_e.hermegauss(180)
    w = w / w.sum()
    inner = np.tanh(sqrt(c) * grid[:, None] + sqrt(1 - c) * grid) @ w
    found = expect(lambda x, y: np.tanh(x) * np.tanh(y), [0, 0], [[1, c], [c, 1]])
    assert_close(found, float(inner**2 @ w), 1e-10)


def test_degenerate_laws():
    cov = [[4, 2, 0], [2, 1, 0], [0, 0, 0]]
    found = expect(lambda x, y, z: x * y * z, [1, 0, 3], cov)
    assert_close(found, 6.0)
    assert expect(lambda x, y: x - y, [2, 0.5], np.zeros((2, 2))).value == 1.5
    # A sum of two forms as a third one: rank 2.
    third = expect(lambda x, y, z: relu(z) + 0 * x * y, [0] * 3, [[1, 0, 1], [0, 1, 1], [1, 1, 2]], [(), (), (0,)])
    assert_close(third, 1 / sqrt(pi))


def test_three_gaussians():
    c12, c13, c23 = 0.3, 0.2, -0.4
    cov = [[1, c12, c13], [c12, 1, c23], [c13, c23, 1]]
    found = expect(lambda x, y, z: step(x) * step(y) * step(z), [0] * 3, cov, [(0,)] * 3, tol=1e-6)
    assert_close(found, 1 / 8 + (asin(c12) + asin(c13) + asin(c23)) / (4 * pi), 1e-8)
    poly = expect(lambda x, y, z: x * x * y * z, [0] * 3, cov)
    assert_close(poly, c23 + 2 * c12 * c13, 1e-8)


def test_four_gaussians_by_sobol_points():
    cov = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
    found = expect(lambda *z: np.prod([step(x) for x in z], axis=0), [0] * 4, cov, [(0,)] * 4)
    assert found.method == "qmc" and 0 < found.error < 3e-4
    assert abs(found.value - 1 / 5) < 2 * found.error  # equicorrelated at 1/2: 1/(k + 1)
    again = expect(lambda *z: np.prod([step(x) for x in z], axis=0), [0] * 4, cov, [(0,)] * 4)
    assert again == found, "a seed, not chance"


def sampled(fn, cov, size=400_000):
    x = np.random.default_rng(1).standard_normal((size, len(cov))) @ np.linalg.cholesky(cov).T
    y = fn(*x.T)
    return y.mean(), 4 * y.std() / sqrt(size)


@pytest.mark.parametrize("fn, kinks", [
    (lambda x, y: np.tanh(x) * relu(y), [(), (0,)]),
    (lambda x, y: np.tanh(x) ** 2 * step(y - 0.5) * y, [(), (0.5,)]),
    (lambda x, y: np.sin(x + y) * np.abs(x), [(0,), ()]),
    (lambda x, y: np.maximum(x, y) * y, None),
])
def test_monte_carlo_agrees_and_refutes_a_wrong_covariance(fn, kinks):
    cov, wrong = [[1.0, 0.6], [0.6, 2.0]], [[1.0, 0.45], [0.45, 2.0]]
    mean, four = sampled(fn, np.array(cov))
    right, other = (expect(fn, [0, 0], c, kinks, tol=1e-9).value for c in (cov, wrong))
    assert abs(right - mean) < four
    if fn(np.array([1.0]), np.array([2.0]))[0] != np.sin(3):  # odd: both vanish
        assert abs(other - mean) > four


@pytest.mark.parametrize("fn, cov", [
    (lambda x: np.exp(x * x), [[0.5]]),
    (lambda x: np.exp(x * x), [[1]]),
    (lambda x: np.exp(x**4), [[0.01]]),
    (lambda x: np.exp(np.exp(x)), [[1e-4]]),
    (lambda x: np.exp(x), [[1000]]),
    (lambda x: 1 / x, [[1]]),
    (lambda x: 1 / x**2, [[1]]),
    (np.log, [[1]]),
    (lambda x: np.where(x > 1, np.nan, x), [[1]]),
    (lambda x: x + 1j, [[1]]),
    (lambda x, y: np.exp(x * y), [[0.8, 0.2], [0.2, 0.8]]),
    (lambda x, y: x * y, [[1, 2], [2, 1]]),
    (lambda x, y: x * y, [[1, 0.5], [0.2, 1]]),
    (lambda x: x, [[-1]]),
])
def test_no_number_where_there_is_none(fn, cov):
    with pytest.raises(NotCoveredError):
        expect(fn, [0] * len(cov), cov)


def test_what_nearly_diverges_is_still_right():
    found = expect(lambda x, y: np.exp(x * y), [0, 0], [[0.5, 0.2], [0.2, 0.5]])
    assert_close(found, 1 / sqrt(0.8**2 - 0.25))
    assert_close(expect(lambda x: np.exp(x * x), [0], [[0.45]]), 1 / sqrt(0.1))


def test_factor():
    cov = np.array([[2.0, 1, 3], [1, 2, 3], [3, 3, 6]])
    a = np.array(factor(cov.tolist(), [False, True, False], 1e-14))
    assert a.shape == (3, 2) and np.allclose(a @ a.T, cov) and a[1, 1] == 0
