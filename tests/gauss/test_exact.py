"""Closed forms against formulas of the literature and against quadrature, symbolically and at exact points."""

import itertools
from fractions import Fraction as F

import mpmath
import numpy as np
import pytest
import scipy.stats
import sympy
from sympy import Rational, acos, asin, cosh, exp, pi, sin, sinh, sqrt

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearity as N
from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Chain, exact
from tensorprog.gauss.exact import expect
from tensorprog.gauss.wick import moment

from .oracle import plane, space

q1, q2 = sympy.symbols("q1 q2", positive=True)
c = sympy.Symbol("c", real=True)
ROOT = sqrt(q1 * q2)
ANGLE = acos(c / ROOT)
PROBIT = Nonlinearity.from_sympy(lambda x: (1 + sympy.erf(x / sqrt(2))) / 2, "probit")


def pair(f, g, q1, q2, c, chain=None, powers=(0, 0)):
    return expect([0, 0], [[q1, c], [c, q2]], powers, [f, g], chain or Chain())


# ------------------------------------------------------------------------------------------ known kernels

J1 = sin(ANGLE) + (pi - ANGLE) * sympy.cos(ANGLE)
J2 = 3 * sin(ANGLE) * sympy.cos(ANGLE) + (pi - ANGLE) * (1 + 2 * sympy.cos(ANGLE) ** 2)
KERNELS = {
    "linear": (("identity",), c),
    "relu": (("relu",), ROOT * J1 / (2 * pi)),
    "leaky": (("leaky_relu(1/10)",), c / 10 + Rational(81, 100) * ROOT * J1 / (2 * pi)),
    "abs": (("abs",), 4 * ROOT * J1 / (2 * pi) - c),
    "step": (("step",), (pi - ANGLE) / (2 * pi)),
    "sign": (("sign",), 2 / pi * asin(c / ROOT)),
    "erf": (("erf",), 2 / pi * asin(2 * c / sqrt((1 + 2 * q1) * (1 + 2 * q2)))),
    "erf.dot": (("d_erf",), 4 / pi / sqrt((1 + 2 * q1) * (1 + 2 * q2) - 4 * c**2)),
    "sin": (("sin",), exp(-(q1 + q2) / 2) * sinh(c)),
    "cos": (("cos",), exp(-(q1 + q2) / 2) * cosh(c)),
    "exp": (("exp",), exp((q1 + q2) / 2 + c)),
    "gauss": (("gaussian",), 1 / sqrt((1 + q1) * (1 + q2) - c**2)),
    "gauss.dot": (("d_gaussian",), c * ((1 + q1) * (1 + q2) - c**2) ** Rational(-3, 2)),
    "probit": ((PROBIT,), Rational(1, 4) + asin(c / sqrt((1 + q1) * (1 + q2))) / (2 * pi)),
    "probit.dot": ((PROBIT.partial(0),), 1 / (2 * pi * sqrt((1 + q1) * (1 + q2) - c**2))),
    "arccos2": (("relu", "relu"), q1 * q2 * J2 / (2 * pi)),
}
POINTS = [(F(1), F(1), F(1, 2)), (F(13, 10), F(7, 10), F(-2, 5)), (F(2), F(1, 2), F(9, 10)), (F(1), F(1), F(0))]


def records(names):
    return tuple(N(f) if isinstance(f, str) else f for f in names)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_with_symbols(name):
    fs, want = records(KERNELS[name][0]), KERNELS[name][1]
    assert sympy.simplify((exact(pair(fs, fs, q1, q2, c)) - want).rewrite(asin)) == 0


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_kernels_at_exact_points(name, point):
    fs, want = records(KERNELS[name][0]), KERNELS[name][1]
    chain = Chain()
    at = want.subs(dict(zip((q1, q2, c), map(exact, point), strict=True)))
    assert chain.is_zero(exact(pair(fs, fs, *point, chain)) - at)


@pytest.mark.parametrize("i, j, want", [
    (2, 2, q1 * q2 + 2 * c**2), (3, 3, 9 * q1 * q2 * c + 6 * c**3), (1, 3, 3 * q2 * c),
    (4, 4, 9 * q1**2 * q2**2 + 72 * q1 * q2 * c**2 + 24 * c**4), (2, 4, 3 * q1 * q2**2 + 12 * q2 * c**2),
])
def test_monomials(i, j, want):
    f, g = N("monomial", i), N("monomial", j)
    assert sympy.expand(pair((f,), (g,), q1, q2, c) - want) == 0
    assert sympy.expand(pair((), (g,), q1, q2, c, powers=(i, 0)) - want) == 0
    assert pair((), (), *POINTS[2], powers=(i, j)) == want.subs({q1: 2, q2: F(1, 2), c: F(9, 10)})


@pytest.mark.parametrize("j", range(1, 7))
@pytest.mark.parametrize("k", range(1, 7))
def test_hermite_polynomials_are_orthogonal(j, k):
    value = pair((N("hermite", j),), (N("hermite", k),), F(1), F(1), F(3, 5))
    assert value == (sympy.factorial(k) * F(3, 5) ** k if j == k else 0) and isinstance(value, F)


def test_numbers_come_out_tidy():
    relu, erf = N("relu"), N("erf")
    assert pair((relu,), (relu,), F(1), F(1), F(1, 2)) == Rational(1, 6) + sqrt(3) / (4 * pi)
    assert pair((relu,), (relu,), F(3), F(3), F(3)) == F(3, 2)
    assert pair((relu,), (relu,), F(3), F(3), F(-3)) == 0
    assert pair((erf,), (erf,), F(1, 2), F(1, 2), F(1, 2)) == F(1, 3)
    assert str(pair((N("sin"),), (N("sin"),), q1, q2, c)) == "exp(-q1/2 - q2/2)*sinh(c)"
    gelu = expect([0], [[F(1)]], [0], [(N("gelu"), N("gelu"))], Chain())
    assert gelu == Rational(1, 3) + sqrt(3) / (6 * pi)


def test_relu_with_sin_is_real():
    # E relu(x) sin(y): Stein twice over, with E step(x) sin(y) = exp(-q2/2) erfi(c / sqrt(2 q1)) / 2.
    value = pair((N("step"),), (N("sin"),), q1, q2, c)
    assert sympy.simplify(value - exp(-q2 / 2) * sympy.erfi(c / sqrt(2 * q1)) / 2) == 0
    assert not exact(pair((N("relu"),), (N("sin"),), *POINTS[0])).has(sympy.I)


def test_price_theorem():
    # d/dc E f(x) g(y) = E f'(x) g'(y), by differentiation of the closed form.
    for f, df in (("relu", "step"), ("erf", "d_erf"), ("gelu", "d_gelu"), ("sin", "d_sin"), ("gaussian", "d_gaussian")):
        value, slope = (exact(pair((N(x),), (N(x),), q1, q2, c)) for x in (f, df))
        at = {q1: Rational(13, 10), q2: Rational(7, 10), c: Rational(-2, 5)}
        assert abs((value.diff(c) - slope).subs(at).evalf(30)) < 1e-28, f


# --------------------------------------------------------------------------------------------- quadrature

NAMES = ("relu", "step", "sign", "abs", "leaky_relu(1/5)", "hard_tanh", "d_hard_tanh", "quantizer(3)", "erf", "d_erf",
         "d2_erf", "gelu", "d_gelu", "d2_gelu", "sin", "cos", "exp", "gaussian", "d_gaussian", "hermite(3)", "square")
GENERIC = [[F(4, 5), F(1, 3)], [F(-1, 2), F(1)]]
PARALLEL, OPPOSITE = ([[F(7, 8), F(0)], [F(k), F(0)]] for k in (1, -2))
CASES = {
    # loadings of the two forms, means, powers, how many of the 231 pairs have no closed form
    "centred": (GENERIC, [F(0), F(0)], (0, 0), 20),
    "powers": (GENERIC, [F(0), F(0)], (2, 1), 17),
    "means": (GENERIC, [F(1, 3), F(-1, 2)], (0, 0), 88),
    "independent": ([[F(4, 5), F(1, 3)], [F(1, 3), F(-4, 5)]], [F(1, 3), F(-1, 2)], (0, 1), 0),
    "equal": (PARALLEL, [F(0), F(0)], (0, 0), 9),
    "opposite": (OPPOSITE, [F(0), F(0)], (1, 2), 7),
    "opposite with means": (OPPOSITE, [F(1, 2), F(1, 3)], (0, 0), 52),
    "constant": ([[F(4, 5), F(0)], [F(0), F(0)]], [F(0), F(0)], (1, 0), 0),
}


def gram(loadings):
    return [[sum(x * y for x, y in zip(r, s, strict=True)) for s in loadings] for r in loadings]


def assert_close(value, chain, want):
    assert abs(float(chain.value(value)) - want) < 1e-9 * max(1, abs(want)), value


@pytest.mark.parametrize("case", CASES)
def test_pairs_against_quadrature(case):
    loadings, mean, powers, without = CASES[case]
    missing, cov = 0, gram(loadings)
    for f, g in itertools.combinations_with_replacement(map(N, NAMES), 2):
        chain = Chain()
        value = expect(mean, cov, powers, [(f,), (g,)], chain)
        if value is None:
            missing += 1
            continue
        factors = [(lambda x, h=h, p=p: h(x) * x**p, h.kinks) for h, p in zip((f, g), powers, strict=True)]
        want = plane(factors, loadings, mean)
        assert_close(value, chain, want)
        assert f == g or abs(want) < 1e-9 or abs(float(chain.value(value)) + want) > 1e-9  # it can fail
    assert missing == without


@pytest.mark.parametrize("names, powers", [
    (("relu", "relu", "sign"), (0, 0, 0)), (("relu", "erf", "step"), (1, 0, 2)), (("gelu", "abs", "sin"), (0, 0, 1)),
    (("relu", "relu", "square"), (0, 0, 0)), (("erf", "erf", "erf"), (1, 0, 0)), (("exp", "relu", "sin"), (0, 0, 0)),
    (("gaussian", "relu", "leaky_relu(1/5)"), (0, 2, 0)), (("cos", "sin", "sin"), (0, 1, 1)),
    (("d_gelu", "gaussian", "relu"), (1, 0, 0)), (("exp", "gaussian", "cos"), (0, 1, 0)),
])
def test_three_forms_in_a_plane(names, powers):
    loadings = [[F(1), F(0)], [F(1, 2), F(2, 3)], [F(-1, 3), F(1)]]
    chain, fs = Chain(), [N(n) for n in names]
    value = expect([0, 0, 0], gram(loadings), powers, [(f,) for f in fs], chain)
    if value is None:
        assert "sin" in names  # a wave shifts a gate that is not centred, or two gates
        return
    factors = [(lambda x, h=h, p=p: h(x) * x**p, h.kinks) for h, p in zip(fs, powers, strict=True)]
    assert_close(value, chain, plane(factors, loadings, [0, 0, 0]))


def test_three_forms_in_space():
    loadings = [[F(1), F(0), F(0)], [F(1, 2), F(2, 3), F(0)], [F(-1, 3), F(1, 4), F(1)]]
    fs, chain = [N("erf"), N("gelu"), N("erf")], Chain()
    value = expect([0, 0, 0], gram(loadings), [0, 0, 1], [(f,) for f in fs], chain)
    factors = [(fs[0], ()), (fs[1], ()), (lambda x: x * fs[2](x), ())]
    assert_close(value, chain, space(factors, loadings, [0, 0, 0]))


def test_orthants_against_scipy():
    cov = gram([[F(1), F(0), F(0)], [F(1, 2), F(2, 3), F(0)], [F(-1, 3), F(1, 4), F(1)]])
    chain, step = Chain(), N("step")
    want = scipy.stats.multivariate_normal(cov=np.array(cov, float)).cdf([0, 0, 0])
    assert float(chain.value(expect([0] * 3, cov, [0] * 3, [(step,)] * 3, chain))) == pytest.approx(want, abs=1e-5)


def test_several_functions_on_a_form_and_repeated_forms():
    chain, q = Chain(), F(3, 4)
    fs = [N("relu"), N("erf"), N("quantizer(3)"), N("sin"), N("exp")]
    for f, g in itertools.combinations_with_replacement(fs, 2):
        once = expect([0], [[q]], [1], [(f, g)], chain)
        twice = expect([0, 0], [[q, q], [q, q]], [1, 0], [(f,), (g,)], chain)
        if once is None:
            assert twice is None
            continue
        want = plane([(lambda x, f=f, g=g: x * f(x) * g(x), (*f.kinks, *g.kinks))], [[0.75**0.5, 0]], [0])
        assert_close(once, chain, want)
        assert_close(twice, chain, want)


def test_a_wide_quantizer_of_one_form():
    chain, f = Chain(), N("quantizer", 16)
    assert_close(expect([F(1, 5)], [[F(1, 4)]], [1], [(f, f, f)], chain), chain,
                 plane([(lambda x: x * f(x) ** 3, f.kinks)], [[0.5, 0]], [0.2]))


# ------------------------------------------------------------------------------- constants, parity, blocks

def test_constant_forms_are_exact():
    zero = [[F(0)]]
    for name, x, want in (("relu", 0, 0), ("sign", 0, 0), ("step", 0, 0), ("step", 2, 1), ("sign", -3, -1),
                          ("quantizer(3)", 0, 0), ("exp", 0, 1), ("hermite(3)", 2, 2), ("tanh", 0, 0)):
        value = expect([x], zero, [0], [(N(name),)], Chain())
        assert value == want and isinstance(value, F), name
    assert expect([F(1, 2)], zero, [2], [(N("tanh"),)], Chain()) == sympy.tanh(Rational(1, 2)) / 4
    assert expect([F(0)], zero, [0], [(N("reciprocal"),)], Chain()) is None
    custom = Nonlinearity.from_callable(np.arctan, "mine")
    assert expect([F(1)], zero, [0], [(custom,)], Chain()) is None


def test_odd_blocks_vanish_whatever_their_functions():
    tanh, relu, half = N("tanh"), N("relu"), F(1, 2)
    eye = [[F(1), half, F(0)], [half, F(1), F(0)], [F(0), F(0), F(1)]]
    assert expect([0] * 3, eye, [0, 0, 0], [(tanh,), (tanh, tanh), ()], Chain()) == 0
    assert expect([0] * 3, eye, [0, 0, 1], [(tanh,), (tanh,), (N("cos"),)], Chain()) == 0
    assert expect([0] * 3, eye, [0, 0, 1], [(tanh,), (tanh,), (relu,)], Chain()) is None
    assert expect([half, 0, 0], eye, [0, 0, 0], [(tanh,), (), ()], Chain()) is None
    assert expect([0], [[F(1)]], [0], [(N("reciprocal"),)], Chain()) is None  # odd, but it has no expectation


def test_independent_blocks_multiply():
    relu, erf = N("relu"), N("erf")
    cov = [[F(2), F(0), F(0)], [F(0), F(1), F(1, 2)], [F(0), F(1, 2), F(1)]]
    value = expect([F(0)] * 3, cov, [0] * 3, [(relu,), (erf,), (erf,)], Chain())
    assert sympy.simplify(value - 2 / pi * asin(Rational(1, 3)) / sqrt(pi)) == 0


def test_without_closed_form():
    half = F(1, 2)
    for f, g in (("tanh", "relu"), ("hard_tanh", "hard_tanh"), ("quantizer(3)", "erf"), ("hard_tanh", "sin")):
        assert pair((N(f),), (N(g),), F(1), F(1), half) is None
    four = [[F(1) if i == j else half for j in range(4)] for i in range(4)]
    assert expect([0] * 4, four, [0] * 4, [(N("sign"),)] * 4, Chain()) is None


def test_divergence_is_an_error():
    fast = Nonlinearity.from_sympy(lambda x: exp(x**2 / 4), "fast")
    assert fast.growth == "faster"
    assert expect([0], [[F(1)]], [0], [(fast,)], Chain()) == sqrt(2)
    for cov in ([[F(2)]], [[F(3)]]):
        with pytest.raises(NotCoveredError, match="diverges"):
            expect([0], cov, [0], [(fast,)], Chain())
    # E exp((x^2 + y^2)/4) exists at variance 1 unless x = y.
    assert pair((fast,), (fast,), F(1), F(1), F(1, 2)) == 4 * sqrt(3) / 3  # det(1 - C/2) = 3/16
    with pytest.raises(NotCoveredError, match="diverges"):
        pair((fast,), (fast,), F(1), F(1), F(1))


# ------------------------------------------------------------------------------------------------- deltas

def test_deltas():
    step, sign, relu, tanh, none = N("step"), N("sign"), N("relu"), N("tanh"), ()
    cov, chain = [[q1, c], [c, q2]], Chain()
    both = expect([0, 0], cov, [0, 0], [none, none], chain, deltas=[(F(0),), (F(0),)])
    kernel = pair((sign,), (sign,), q1, q2, c)
    assert sympy.simplify(4 * both - sympy.diff(kernel, c)) == 0  # Price's theorem: sign' = 2 delta
    at_one = expect([0], [[F(1)]], [2], [(tanh,)], chain, deltas=[(F(1),)])
    assert at_one == sympy.tanh(1) * exp(-Rational(1, 2)) / sqrt(2 * pi)
    # d/dc E step(x) relu(y) = E delta(x) step(y)
    mixed = expect([0, 0], cov, [0, 0], [none, (step,)], chain, deltas=[(F(0),), ()])
    assert sympy.simplify(mixed - sympy.diff(pair((step,), (relu,), q1, q2, c), c)) == 0
    # d/dx step(x)^2 = 2 step(x) delta(x): half the jump, as E delta says.
    one = expect([0], [[F(1)]], [0], [(step,)], chain, deltas=[(F(0),)])
    assert one == 1 / (2 * sqrt(2 * pi))
    with pytest.raises(NotCoveredError, match="no product"):
        expect([0, 0], [[F(1), F(1)], [F(1), F(1)]], [0, 0], [none, none], chain, deltas=[(F(0),), (F(0),)])
    with pytest.raises(NotCoveredError, match="constant"):
        expect([0], [[F(0)]], [0], [none], chain, deltas=[(F(0),)])


# --------------------------------------------------------------------------------------------------- Wick

def pairings(indices):
    if not indices:
        yield ()
    for i in range(1, len(indices)):
        for rest in pairings(indices[1:i] + indices[i + 1:]):
            yield ((indices[0], indices[i]), *rest)


def test_wick_against_all_pairings():
    rng = np.random.default_rng(0)
    loadings = [[F(int(x), 6) for x in row] for row in rng.integers(-9, 10, (4, 3))]
    cov, mean = gram(loadings), [F(int(x), 5) for x in rng.integers(-5, 6, 4)]
    for powers in ((2, 2, 2, 2), (1, 1, 3, 1), (6, 0, 0, 0), (0, 3, 1, 0), (1, 2, 0, 0), (0, 0, 0, 0)):
        letters = tuple(i for i, p in enumerate(powers) for _ in range(p))
        centred = sum((np.prod([cov[i][j] for i, j in p]) for p in pairings(letters)), F(0))
        assert moment(powers, [F(0)] * 4, cov) == centred
        shifted = F(0)
        for chosen in itertools.product((0, 1), repeat=len(letters)):
            inside = tuple(x for x, k in zip(letters, chosen, strict=True) if k)
            outside = [mean[x] for x, k in zip(letters, chosen, strict=True) if not k]
            shifted += np.prod(outside or [F(1)]) * sum((np.prod([cov[i][j] for i, j in p]) if p else F(1)
                                                         for p in pairings(inside)), F(0))
        assert moment(powers, mean, cov) == shifted


# ---------------------------------------------------------------------------------- chains, custom, speed

def test_a_chain_of_layers_stays_exact():
    # NNGP of three relu layers: cos t -> (sin t + (pi - t) cos t)/pi, at 30 digits.
    chain, relu, c = Chain(), N("relu"), F(1, 3)
    with mpmath.workdps(40):
        want = mpmath.mpf(1) / 3
        for _ in range(3):
            c = chain.name(2 * exact(pair((relu,), (relu,), F(1), F(1), c, chain)), "rho")
            t = mpmath.acos(want)
            want = (mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / mpmath.pi
        assert abs(chain.value(c, 30) - want) < mpmath.mpf(10) ** -29
    (rho,) = chain.definitions  # a name in a covariance: its minors cancel where they should
    value = pair((relu,), (relu,), F(1, 2), F(1, 2), rho, chain)
    assert value == rho * (asin(2 * rho) / (2 * pi) + Rational(1, 4)) + sqrt(Rational(1, 4) - rho**2) / (2 * pi)


def test_formulas_of_the_user():
    elu = Nonlinearity.from_sympy(lambda x: sympy.Piecewise((x, x > 0), (exp(x) - 1, True)), "elu")
    quad = Nonlinearity.from_sympy(lambda x: sympy.Max(x, 0) ** 2 + sympy.Min(x, 1), "quad")
    wave = Nonlinearity.from_sympy(lambda x: x * sin(2 * x) ** 2 * exp(-x / 3), "wave")
    assert elu.growth == quad.growth == "polynomial" and wave.growth == "exponential"
    for f in (elu, elu.partial(0), quad, quad.partial(0), wave, wave.partial(0)):
        chain = Chain()
        value = expect([0, 0], gram(GENERIC), [1, 1], [(f,), ()], chain)
        assert_close(value, chain, plane([(lambda x, f=f: x * f(x), f.kinks), (lambda x: x, ())], GENERIC, [0, 0]))
