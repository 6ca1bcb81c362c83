"""Expectations as sympy nodes: form, printing, derivatives and digits, against closed forms and mpmath."""

import pickle
from fractions import Fraction as F

import mpmath
import numpy as np
import pytest
import sympy
from sympy import DiracDelta, Heaviside, Max, Piecewise, Rational, cos, erf, exp, floor, pi, sin, sqrt, symbols, tanh
from sympy.utilities.lambdify import implemented_function

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.expectation import Expect, expectation

z1, z2, z3 = ZS = symbols("z1 z2 z3")
a, b, q, r = symbols("a b q r")
HALF = ((1, F(1, 2)), (F(1, 2), 1))


def pair(expr, c=F(1, 2), p=1, s=1, mean=(0, 0)):
    return Expect(expr, (z1, z2), mean, ((p, c), (c, s)))


def one(expr, mean=0, var=1):
    return Expect(expr, (z1,), (mean,), ((var,),))


def assert_digits(node, truth, n):
    found, true = node.evalf(n), sympy.N(truth, n + 15)
    assert found.is_Float
    assert abs(found - true) <= 10 ** (2 - n) * abs(true), (found, true)


def test_the_node_has_one_form():
    e = pair(tanh(z1) * tanh(z2), a, b, q)
    assert e == pair(tanh(z2) * tanh(z1), a, b, q) == Expect(tanh(z2) * tanh(z1), (z2, z1), (0, 0), ((q, a), (a, b)))
    assert e != pair(tanh(z1) * tanh(z2), a, q, b) or e.cov == pair(tanh(z1) * tanh(z2), a, q, b).cov
    assert e != pair(tanh(z1) * tanh(z2), r, b, q)
    assert pair(tanh(z1), F(1, 2), 1, 3) == one(tanh(z1)), "the unused Gaussian is dropped"
    assert pair(tanh(z1) * cos(z2), 2, 1, 4) == one(tanh(z1) * cos(2 * z1)), "correlation 1"
    assert pair(tanh(z1) * cos(z2), -b, b, b) == one(tanh(z1) * cos(-z1), 0, b), "correlation -1, symbols"
    assert pair(tanh(z1) * cos(z2), 0, 1, 0, (0, 5)) == cos(5) * one(tanh(z1)), "no variance"
    assert one(sympy.Integer(7)) == 7 and pair(z1 * z2, 0, 0, 0, (2, 3)) == 6
    assert one(a * cos(z1)) == a * one(cos(z1))
    third = Expect(tanh(z1) * cos(z2) * sin(z3), ZS, (0, 0, 0), ((1, 0, 1), (0, 1, 1), (1, 1, 2)))
    assert len(third.zs) == 2, "the third is the sum of the others"
    assert e.func(*e.args) == e


def test_the_name_of_a_bound_symbol_does_not_matter():
    x, y = symbols("x y")
    e = Expect(tanh(x) * cos(y), (x, y), (0, 0), HALF)
    assert e == pair(tanh(z1) * cos(z2)) and hash(e) == hash(pair(tanh(z1) * cos(z2)))
    outer = one(tanh(z1), z1, 1)  # here the mean is another z1, a free symbol
    assert outer.free_symbols == {z1}
    assert outer.subs(z1, 0) == one(tanh(z1)) and outer.xreplace({z1: sympy.Integer(0)}) == one(tanh(z1))


def test_printing():
    e = pair(tanh(z1) * tanh(z2), a, 1, q)
    assert str(e) == "E[tanh(z1)*tanh(z2)]" and str(e**2 + 1) == "E[tanh(z1)*tanh(z2)]**2 + 1"
    assert sympy.latex(e) == r"\mathbb{E}\left[\tanh{\left(z_{1} \right)} \tanh{\left(z_{2} \right)}\right]"
    assert sympy.latex(e**2).endswith(r"\right]^{2}")
    assert set(e.law()) >= set("z1, z2 ~ N([0, 0], [[")
    assert e.law() in ("z1, z2 ~ N([0, 0], [[1, a], [a, q]])", "z1, z2 ~ N([0, 0], [[q, a], [a, 1]])")
    assert r"\mathcal{N}" in e.law(latex=True)
    assert one(tanh(z1)).law(latex=True) == r"z_{1} \sim \mathcal{N}\left(0, 1\right)"


def test_pickle_subs_and_symbols_without_a_value():
    e = pair(tanh(z1) * tanh(b * z2), a, 1, q)
    assert pickle.loads(pickle.dumps(e)) == e and hash(pickle.loads(pickle.dumps(e))) == hash(e)
    assert e.free_symbols == {a, b, q}
    assert e.evalf() == e and (2 * e).evalf(30).has(e)
    known = {a: Rational(1, 2), b: sympy.Integer(1), q: sympy.Integer(1)}
    assert e.subs(known) == e.xreplace(known) == pair(tanh(z1) * tanh(z2))
    assert e.subs({a: 1, b: 1, q: 1}) == one(tanh(z1) ** 2), "degenerate after a substitution"
    assert float(e.evalf(subs={a: 0.5, b: 1, q: 1})) == pytest.approx(0.186324413203448)
    with pytest.raises(NotCoveredError, match="no value"):
        e.estimate()


def test_assumptions():
    assert one(tanh(z1)).is_real and one(tanh(z1) ** 2).is_nonnegative and one(cosh_of(z1)).is_positive
    assert one(tanh(z1)).is_positive is None


def cosh_of(x):
    return sympy.cosh(sympy.Symbol(x.name, real=True)).xreplace({sympy.Symbol(x.name, real=True): x})


@pytest.mark.parametrize("n", [15, 30])
@pytest.mark.parametrize("node, truth", [
    (one(cos(z1), 0, 2), exp(-1)),
    (one(exp(z1**2), 0, F(1, 4)), sqrt(2)),
    (one(Max(0, z1)), 1 / sqrt(2 * pi)),
    (one(z1**8), 105),
    (one(1 / (1 + 900 * z1**2)), sqrt(pi / 2) / 30 * exp(Rational(1, 1800)) * sympy.erfc(1 / (30 * sqrt(2)))),
    (one(Heaviside(z1 - 1)), (1 - erf(1 / sqrt(2))) / 2),
    (one(sympy.sign(z1) * z1, 1, 4), sqrt(8 / pi) * exp(-Rational(1, 8)) + erf(1 / sqrt(8))),
    (one(Heaviside(tanh(z1) - F(1, 2))), sympy.erfc(sympy.atanh(Rational(1, 2)) / sqrt(2)) / 2),
    (one(Piecewise((1, z1 > 1), (0, True))), (1 - erf(1 / sqrt(2))) / 2),
    (one(Max(0, 1 - Max(0, z1))), (1 + erf(1 / sqrt(2))) / 2 - (1 - exp(-Rational(1, 2))) / sqrt(2 * pi)),
    (pair(cos(z1) * cos(z2)), (exp(-Rational(3, 2)) + exp(-Rational(1, 2))) / 2),
    (pair(erf(z1) * erf(z2)), 2 / pi * sympy.asin(Rational(1, 3))),
    (pair(Heaviside(z1) * exp(z2)), exp(Rational(1, 2)) * (1 + erf(1 / sqrt(8))) / 2),
    (pair(cos(z1) * sin(z2) ** 2, 0), exp(-Rational(1, 2)) * (1 - exp(-2)) / 2),
])
def test_digits_against_closed_forms(node, truth, n):
    assert_digits(node, truth, n)


@pytest.mark.parametrize("node, truth", [
    (pair(Max(0, z1) * Max(0, z2)), (sqrt(3) / 2 + pi / 3) / (2 * pi)),
    (pair(Max(z1, z2)), 1 / sqrt(4 * pi) * sqrt(2)),
    (pair(sympy.Abs(z1 + z2), 0), 2 / sqrt(pi)),
    (pair(Heaviside(z1) * Heaviside(-z2), F(9, 10)), Rational(1, 4) - sympy.asin(Rational(9, 10)) / (2 * pi)),
])
@pytest.mark.parametrize("n", [15, 20])
def test_digits_of_kinks_in_two_gaussians(node, truth, n):
    if str(node) == "E[Max(z1, z2)]":
        truth = 1 / sqrt(2 * pi)  # E max = sqrt((1 - rho)/pi)
    assert_digits(node, truth, n)


def test_digits_beyond_doubles_near_degeneracy():
    near = Rational(10**12 - 1, 10**12)
    assert_digits(pair(Heaviside(z1) * Heaviside(-z2), near), Rational(1, 4) - sympy.asin(near) / (2 * pi), 15)


def test_tanh_against_mpmath():
    with mpmath.workdps(40):
        truth = mpmath.quad(lambda x: mpmath.tanh(x) ** 2 * mpmath.npdf(x), [-14, -4, 0, 4, 14])
    assert_digits(one(tanh(z1) ** 2), sympy.Float(truth, 40), 30)
    with mpmath.workdps(30):
        s = mpmath.sqrt(3) / 2
        step = mpmath.quad(lambda x: mpmath.tanh(x) * mpmath.ncdf(x / 2 / s) * mpmath.npdf(x), [-11, -4, 0, 4, 11])
    assert_digits(pair(tanh(z1) * Heaviside(z2)), sympy.Float(step, 30), 20)


def test_floor_against_its_sum():
    with mpmath.workdps(30):
        truth = mpmath.fsum(k * k * (mpmath.ncdf(k + 1) - mpmath.ncdf(k)) for k in range(-14, 15))
    assert_digits(one(floor(z1) ** 2), sympy.Float(truth, 25), 15)


def test_three_gaussians_split_or_in_doubles():
    truth = pair(tanh(z1) * tanh(z2)).evalf(20) * one(tanh(z1) ** 2).evalf(20)
    cov = ((1, F(1, 2), 0), (F(1, 2), 1, 0), (0, 0, 1))
    assert_digits(Expect(tanh(z1) * tanh(z2) * tanh(z3) ** 2, ZS, (0, 0, 0), cov), truth, 17)
    together = ((1, F(1, 2), F(1, 2)), (F(1, 2), 1, F(1, 2)), (F(1, 2), F(1, 2), 1))
    orthant = Expect(Heaviside(z1) * Heaviside(z2) * Heaviside(z3), ZS, (0, 0, 0), together)
    assert float(orthant) == pytest.approx(0.25, abs=1e-8)
    assert_digits(Expect(cos(z1) + cos(z2) + cos(z3), ZS, (0, 0, 0), together), 3 * exp(-Rational(1, 2)), 25)


def test_numpy_functions_in_doubles():
    f = implemented_function("f", lambda x: np.maximum(np.asarray(x, float), 0))
    assert float(one(f(z1))) == pytest.approx(0.3989422804014327, abs=1e-12)
    assert str(one(f(z1))) == "E[f(z1)]"


def slope(make, at, h=1e-3):
    """The derivative of a double-precision expectation by differences of order 4."""
    v = [float(make(F(at) + F(k) * F(h))) for k in (-2, -1, 1, 2)]
    return (v[0] - 8 * v[1] + 8 * v[2] - v[3]) / (12 * h)


@pytest.mark.parametrize("expr, at", [
    (tanh(z1) * tanh(z2), {}),
    (Max(0, z1) * tanh(z2), {}),
    (Max(0, z1) * Heaviside(z2 - b), {}),
    (sympy.sign(z1 - b) * z2, {}),
    (Piecewise((z1, z1 > 1), (z1**2, True)) * cos(b * z2), {}),
    (sympy.Abs(z1 + 2 * z2 - b), {}),
])
@pytest.mark.parametrize("s", [a, b, q, r])
def test_derivatives_against_differences(expr, at, s):
    values = {a: F(3, 10), b: F(2, 5), q: F(6, 5), r: F(1, 5)}
    e = Expect(expr, (z1, z2), (r, 0), ((q, a), (a, 1)))
    others = {k: Rational(v.numerator, v.denominator) for k, v in values.items()}
    wanted = slope(lambda x: e.subs({**others, s: Rational(x.numerator, x.denominator)}).evalf(15), values[s])
    assert float(e.diff(s).subs(others).evalf(15)) == pytest.approx(wanted, abs=2e-9)


def test_a_wrong_covariance_gives_another_slope():
    e = pair(tanh(z1) * tanh(z2), a)
    right, wrong = (float(e.diff(a).subs(a, Rational(x)).evalf()) for x in ("1/2", "2/5"))
    assert right == pytest.approx(slope(lambda x: e.subs(a, Rational(x.numerator, x.denominator)).evalf(), F(1, 2)))
    assert abs(right - wrong) > 1e-3


def test_delta_functions():
    assert expectation(DiracDelta(z1 - 1), (z1,), (0,), ((1,),)) == exp(-Rational(1, 2)) / sqrt(2 * pi)
    given = expectation(DiracDelta(z1) * cos(z2), (z1, z2), (0, 0), HALF)
    assert given == one(cos(z1), 0, F(3, 4)) / sqrt(2 * pi)
    # delta' integrates by parts: E[delta'(z) f(z)] = -(f p)'(0) = -f'(0) p(0).
    assert expectation(DiracDelta(z1, 1) * sin(z1), (z1,), (0,), ((1,),)) == -1 / sqrt(2 * pi)
    with pytest.raises(NotCoveredError):
        expectation(DiracDelta(z1**2 - 1), (z1,), (0,), ((1,),))


@pytest.mark.parametrize("node", [one(exp(z1**2), 0, F(1, 2)), one(exp(z1**2), 0, 1), one(1 / z1), one(sympy.log(z1)),
                                  one(exp(z1**4), 0, F(1, 100)), pair(exp(z1 * z2)), pair(z1 * z2 * exp(z1 * z2), 2)])
@pytest.mark.parametrize("n", [15, 30])
def test_no_number_where_there_is_none(node, n):
    with pytest.raises(NotCoveredError):
        node.evalf(n)


def test_estimates_have_errors():
    e = pair(tanh(z1) * Max(0, z2)).estimate()
    rng = np.random.default_rng(0).standard_normal((200_000, 2))
    x, y = rng[:, 0], rng[:, 0] / 2 + np.sqrt(0.75) * rng[:, 1]
    sample = np.tanh(x) * np.maximum(y, 0)
    assert abs(sample.mean() - e.value) < 4 * sample.std() / 447 and e.error < 1e-12
    wrong = pair(tanh(z1) * Max(0, z2), F(2, 5)).estimate()
    assert abs(sample.mean() - wrong.value) > 4 * sample.std() / 447
