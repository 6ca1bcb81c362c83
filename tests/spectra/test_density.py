"""Spectra from moments against densities in closed form."""

from fractions import Fraction as F
from math import comb, pi

import numpy as np
import pytest
import sympy

from tensorprog.errors import NotCoveredError
from tensorprog.spectra.algebraic import equation
from tensorprog.spectra.density import spectrum
from tensorprog.spectra.jacobi import jacobi

from .oracle import catalan, from_free_cumulants, marchenko_pastur, product_of_two, relu_jacobian, semicircle, wishart

SEMICIRCLE = [F(catalan(k // 2)) if k % 2 == 0 else F(0) for k in range(17)]
UNIFORM = [F(1, k + 1) for k in range(17)]


def wisharts(ratio, order=14):
    return [wishart(k, F(ratio)) for k in range(order + 1)]


def fuss_catalan(s, order=18):
    return [F(comb((s + 1) * k, k), s * k + 1) for k in range(order + 1)]


def two_groups(order):
    """W^T D W with D of two values, 1/8 and 4, in equal parts: two intervals."""
    return from_free_cumulants([(F(1, 8) ** k + F(4) ** k) / 2 for k in range(1, order + 1)])


def assert_mass_is_one(s):
    high = max([b for _, b in s.support] + [x for x, _ in s.atoms])
    assert s.cdf(high) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("method", ["algebraic", "tail"])
def test_semicircle(method):
    s = spectrum(SEMICIRCLE, method=method)
    x = np.linspace(-2.5, 2.5, 101)
    assert s.density(x) == pytest.approx(semicircle(x), abs=1e-9)
    assert s.support == (pytest.approx((-2, 2)),)
    assert s.atoms == ()
    inside = np.clip(x, -2, 2)
    assert s.cdf(x) == pytest.approx(0.5 + inside * np.sqrt(4 - inside**2) / (4 * pi) + np.arcsin(inside / 2) / pi,
                                     abs=s.error)
    z = np.array([3 + 0j, 1 + 0.5j, -0.2 - 1j, 10j])
    assert s.stieltjes(z) == pytest.approx((z - np.sqrt(z - 2) * np.sqrt(z + 2)) / 2, abs=1e-9)
    assert_mass_is_one(s)


@pytest.mark.parametrize("method", ["algebraic", "tail"])
@pytest.mark.parametrize("ratio", [F(1, 3), F(9, 10), F(4)])
def test_marchenko_pastur_with_its_atom(ratio, method):
    s = spectrum(wisharts(ratio), method=method)
    low, high = ((1 - sign * float(ratio) ** 0.5) ** 2 for sign in (1, -1))
    assert s.support == (pytest.approx((low, high), abs=1e-6),)
    x = np.linspace(low, high, 52)[1:-1]
    assert s.density(x) == pytest.approx(marchenko_pastur(x, float(ratio)), abs=1e-6)
    assert s.atoms == (((pytest.approx(0, abs=1e-6), pytest.approx(1 - float(ratio), abs=1e-6)),) if ratio < 1 else ())
    assert_mass_is_one(s)


@pytest.mark.parametrize("method, accuracy", [("algebraic", 1e-9), ("tail", 1e-3)])
def test_a_hard_edge(method, accuracy):
    s = spectrum(fuss_catalan(2), method=method)
    x = np.linspace(0.1, 6.7, 40)
    assert s.density(x) == pytest.approx(product_of_two(x), abs=accuracy)
    assert s.support == (pytest.approx((0, 6.75), abs=accuracy),)
    assert s.root_density([1.5]) == pytest.approx(3 * product_of_two(np.array([2.25])), abs=accuracy)
    assert_mass_is_one(s)


@pytest.mark.parametrize("s", [2, 3, 5])
def test_methods_agree_and_the_stated_error_is_true(s):
    exact, tail = (spectrum(fuss_catalan(s), method=m) for m in ("algebraic", "tail"))
    x = np.concatenate([10.0 ** np.arange(-12, 0), np.linspace(0.2, exact.support[0][1], 60)])
    off = np.abs(exact.cdf(x) - tail.cdf(x)).max()
    assert off <= tail.error < 0.1
    assert np.abs(exact.cdf(x[12:]) - tail.cdf(x[12:])).max() < 1e-4


@pytest.mark.parametrize("depth, weight", [(1, F(2)), (2, F(2)), (3, F(1)), (5, F(2))])
def test_an_atom_under_a_hard_edge(depth, weight):
    m = [F(1)] + [relu_jacobian(depth, k, weight) for k in range(1, 19)]
    s = spectrum(m)
    assert s.method == "algebraic"
    assert s.atoms == ((0, 0.5),)
    assert len(s.support) == 1
    assert_mass_is_one(s)
    x = np.linspace(0, s.support[0][1], 20001)
    assert np.trapezoid(1 - s.cdf(x), x) == pytest.approx(float(m[1]), rel=1e-3)


def test_two_intervals():
    s = spectrum(two_groups(20))
    assert s.method == "algebraic"
    assert sympy.degree(s.equation.expression()[0], sympy.Symbol("S")) == 3
    # W^T D W has the spectrum of two groups of n/2 rows: no atom, half of the mass in each interval
    (a, b), (c, d) = s.support
    assert 0 <= a < b < c < d
    assert s.atoms == ()
    assert s.cdf([b, c]) == pytest.approx([0.5, 0.5], abs=1e-8)
    assert s.density([(b + c) / 2]) == 0


def test_what_does_not_settle_says_so():
    s = spectrum(two_groups(20), errors=[m / 10**30 for m in two_groups(20)])
    assert s.method == "quadrature" and not s.converged
    assert "do not settle" in s.reason
    assert s.error > 0.01
    with pytest.raises(NotCoveredError, match="do not settle"):
        spectrum(two_groups(20), method="tail")
    with pytest.raises(NotCoveredError, match="no algebraic equation"):
        spectrum(UNIFORM, method="algebraic")


def test_a_law_that_is_not_algebraic():
    s = spectrum(UNIFORM)
    assert s.method == "tail"
    x = np.linspace(0.05, 0.95, 19)
    assert np.abs(s.cdf(x) - x).max() < max(s.error, 1e-5) < 1e-3
    assert s.density(x) == pytest.approx(np.ones(19), abs=1e-2)


@pytest.mark.parametrize("moments", [SEMICIRCLE, wisharts(F(1, 3)), fuss_catalan(3), UNIFORM])
def test_bounds_of_the_cdf_hold_and_shrink(moments):
    law = spectrum(moments)
    low, high = (min(a for a, _ in law.support), max(b for _, b in law.support))
    x = np.linspace(low, high, 41)[1:-1]
    widths = []
    for order in (6, 10, 14):
        below, above = spectrum(moments[:order + 1]).cdf_bounds(x)
        assert (below - 1e-6 <= law.cdf(x)).all() and (law.cdf(x) <= above + 1e-6).all()
        widths.append((above - below).mean())
    assert widths[0] > widths[1] > widths[2]


def test_finitely_many_point_masses():
    weights, places = [F(1, 4), F(1, 2), F(1, 4)], [F(-1), F(0), F(3)]
    m = [sum(w * x**k for w, x in zip(weights, places, strict=True)) for k in range(9)]
    s = spectrum(m)
    assert s.method == "atoms"
    assert np.array(s.atoms) == pytest.approx(np.array([[-1, 0.25], [0, 0.5], [3, 0.25]]))
    assert s.cdf([-2, -1, 1, 3]) == pytest.approx([0, 0.25, 0.75, 1])
    assert s.stieltjes(2j) == pytest.approx(sum(w / (2j - x) for x, w in s.atoms))


def test_recurrence_coefficients_of_legendre():
    found = jacobi([F(1, k + 1) if k % 2 == 0 else F(0) for k in range(13)])  # uniform on [-1, 1]
    assert found.a == (0,) * 6
    assert found.b == tuple(F(k * k, 4 * k * k - 1) for k in range(1, 7))


def test_noisy_moments_give_what_they_can():
    noise = [m * F(1, 10**6) for m in SEMICIRCLE]
    found = jacobi(SEMICIRCLE, noise)
    assert 3 <= len(found.b) < 8
    assert [float(b) for b in found.b] == pytest.approx([1] * len(found.b), abs=0.02)
    assert len(jacobi([float(m) for m in SEMICIRCLE]).b) == 8


def test_equations():
    assert str(equation(fuss_catalan(2))) == "S**3*z**2 - S*z + 1 = 0"
    found = equation(wisharts(F(2, 3)))
    poly, z, s = found.expression()
    # the fixed point of the resolvent: z S^2 - (z + 1 - ratio) S + 1 = 0
    assert sympy.expand(poly - 3 * (z * s**2 - (z + sympy.Rational(1, 3)) * s + 1)) == 0
    assert equation(SEMICIRCLE[:8]) is None, "with so few moments nothing would be checked"
    wrong = [*SEMICIRCLE[:16], SEMICIRCLE[16] + 1]
    assert equation(wrong) is None


@pytest.mark.parametrize("moments, message", [
    ([1, 0, -1], "no measure has these moments"), ([2, 0, 1], "start with m_0 = 1"), ([], "start with m_0 = 1"),
    ([1, sympy.Symbol("c"), 2], "not a number"), ([1], "determine nothing"), ([1, 0, 0, 1], "no measure")])
def test_what_is_not_a_measure(moments, message):
    with pytest.raises(NotCoveredError, match=message):
        spectrum(moments)


def test_exact_sympy_numbers():
    root = sympy.sqrt(2)
    scaled = [m * root**k for k, m in enumerate(SEMICIRCLE)]
    s = spectrum(scaled)
    assert s.support == (pytest.approx((-(8**0.5), 8**0.5), abs=1e-6),)
    assert str(s).startswith("spectrum on [-2.82843, 2.82843]")


def test_an_unknown_method_is_refused():
    with pytest.raises(NotCoveredError, match="no such method"):
        spectrum(SEMICIRCLE, method="magic")
