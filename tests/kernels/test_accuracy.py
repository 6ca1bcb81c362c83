"""Dual activations at tiny and large variances and next to correlation 1, against rules and formulas of their own."""

import math

import mpmath as mp
import numpy as np
import pytest

from tensorprog.atoms.registry import nonlinearity
from tensorprog.kernels.dual import dual
from tensorprog.kernels.numeric import FEW
from tensorprog.kernels.rows import LONG, portions

CORRELATIONS = [0.0, 0.3, -0.7, 0.95, -0.9999, 1 - 1e-6, 1 - 1e-10, 1.0, -1.0]


def trapezoid(phi, q1: float, q2: float, rho: float) -> float:
    """Return ``E phi(g) phi(g')`` by the trapezoidal rule; poles at a distance d leave an error exp(-2 pi d / h)."""
    h = min(0.12, 0.22 / math.sqrt(max(q1, q2, 1.0)))
    x = np.arange(-round(9.5 / h), round(9.5 / h) + 1) * h
    w, s, a, b = np.exp(-x * x / 2) * h / math.sqrt(2 * math.pi), math.sqrt((1 - rho) * (1 + rho)), *np.sqrt([q1, q2])
    if s == 0:
        return float((phi(a * x) * phi(b * rho * x)) @ w)
    return float((phi(a * x) * w) @ (phi(b * (rho * x[:, None] + s * x)) @ w))


@pytest.mark.parametrize("name", ["tanh", "silu", "sigmoid", "softplus"])
@pytest.mark.parametrize("q", [(1e-8, 1e-8), (1e-6, 2e-3), (0.3, 0.31), (2.0, 7.0), (20.0, 20.0), (20.0, 50.0),
                               (400.0, 700.0), (900.0, 0.1)])
def test_interpolated_duals(name, q):
    """To 1e-8 of ``sqrt(E phi^2 E psi^2)``; tables are made for 1e-10."""
    phi = nonlinearity(name)
    size = math.sqrt(trapezoid(phi, q[0], q[0], 1.0) * trapezoid(phi, q[1], q[1], 1.0))
    for rho in CORRELATIONS:
        c = rho * math.sqrt(q[0] * q[1])
        found = dual(phi).matrix(np.array(q[:1]), np.array(q[1:]), np.array([[c]]))[0, 0]
        assert found == pytest.approx(trapezoid(phi, *q, c / math.sqrt(q[0] * q[1])), abs=1e-9 * size)


@pytest.mark.slow
def test_tables_at_large_variances():
    """Exponential tails between the panels of a narrow feature are part of it."""
    q1, q2 = np.array([400.0, 500.0] * 20), np.array([600.0, 450.0] * 20)
    rho = np.array(CORRELATIONS[:8] * 5)[:, None].repeat(len(q2), 1)
    phi = nonlinearity("tanh")
    assert rho.size > FEW
    found = dual(phi).matrix(q1, q2, rho * np.sqrt(q1[:, None] * q2))
    for i, j in ((0, 0), (3, 1), (4, 0), (5, 1), (6, 0), (7, 0)):
        assert found[i, j] == pytest.approx(trapezoid(phi, q1[i], q2[j], rho[i, j]), abs=1e-9)


def test_the_trapezoidal_rule_is_not_the_one_under_test():
    """erf's arcsine tells that it is right."""
    for q1, q2, rho in ((0.3, 2.0, 0.9), (20.0, 50.0, 0.999), (20.0, 20.0, 1.0)):
        exact = 2 / math.pi * math.asin(2 * rho * math.sqrt(q1 * q2) / math.sqrt((1 + 2 * q1) * (1 + 2 * q2)))
        assert trapezoid(nonlinearity("erf"), q1, q2, rho) == pytest.approx(exact, abs=1e-13)


def erf(q1, q2, c):
    s = mp.sqrt((1 + 2 * q1) * (1 + 2 * q2) - 4 * c * c)
    return 2 / mp.pi * mp.atan2(2 * c, s), 4 / (mp.pi * s)


def gelu(q1, q2, c):
    a, b = 1 + q1, 1 + q2
    s = mp.sqrt(a * b - c * c)
    m = mp.mpf(1) / 4 + mp.atan2(c, s) / (2 * mp.pi)
    return (c * m + (q1 * q2 * s + c * c / s) / (2 * mp.pi * a * b),
            m + c / (2 * mp.pi * s) * (1 + (2 - q1 * q2 + c * c / (s * s)) / (a * b)))


@pytest.mark.parametrize("name, formula", [("erf", erf), ("gelu", gelu)])
@pytest.mark.parametrize("q1", [1e-12, 1e-6, 1.0, 99.0, 1e3, 1e8, 1e12])
@pytest.mark.parametrize("ratio", [1.0, 0.01])
def test_what_is_written_out(name, formula, q1, ratio):
    """In 40 digits: errors are those of rounding c, which counts ``sqrt(q)`` times next to correlation 1."""
    d, q2 = dual(nonlinearity(name)), ratio * q1
    with mp.workdps(40):
        first, second = (formula(mp.mpf(q), mp.mpf(q), mp.mpf(q)) for q in (q1, q2))
        for rho in CORRELATIONS:
            c = q1 if rho == ratio == 1 else rho * math.sqrt(q1 * q2)
            if abs(c) > math.sqrt(q1) * math.sqrt(q2):
                continue  # not a covariance
            k, slope = (x[0, 0] for x in d.with_slope(np.array([q1]), np.array([q2]), np.array([[c]])))
            exact = formula(*map(mp.mpf, (q1, q2, c)))
            near = 1 + (math.sqrt(max(q1, q2)) if abs(rho) > 0.99 else 0)
            assert abs(k - exact[0]) <= 3e-15 * near * mp.sqrt(first[0] * second[0])
            if q1 < 1e8 or abs(rho) < 0.99:
                assert abs(slope - exact[1]) <= 3e-15 * near * (1 + near) * mp.sqrt(first[1] * second[1])
            if rho == ratio == 1:  # exact on the diagonal, however large
                assert k == pytest.approx(float(exact[0]), rel=1e-14)
                assert slope == pytest.approx(float(exact[1]), rel=1e-14)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu"])
def test_features_are_another_way_to_write_a_block(name):
    d, rng = dual(nonlinearity(name)), np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((30, 5))
    q1, q2, c = (x * x).sum(1), (y * y).sum(1), x @ y.T
    (left, _), (_, right) = d.features(q1), d.features(q2)
    k, slope = np.empty_like(c), np.empty_like(c)
    d.tile(left, right, c, k, slope)
    assert all(np.array_equal(a, b) for a, b in zip((k, slope), d.with_slope(q1, q2, c), strict=True))
    assert d.features(np.append(q1, 0.0)) is None  # a Gaussian that is 0 needs care
    assert name == "relu" or d.features(np.append(q1, 1e9)) is None  # as do large variances


def test_threads_are_used_where_they_help():
    assert portions(500 * 250)[0] == 1 and portions(2000 * 1000, 2) == (2, LONG)
