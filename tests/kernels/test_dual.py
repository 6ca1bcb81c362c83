"""Dual activations against published formulas, quadrature in the plane, mpmath; composed networks layer by layer."""

import math
import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
import sympy

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.gauss.quadrature import expect
from tensorprog.kernels import closed, moments, numeric, rows
from tensorprog.kernels.compose import compose
from tensorprog.kernels.dual import dual, mean
from tensorprog.kernels.lookup import Lookup

POINTS = [(1.0, 1.0, 0.5), (1.3, 0.7, -0.4), (2.0, 0.5, 0.9), (1.0, 1.0, 0.0)]
PROBIT = Nonlinearity.from_sympy(lambda x: (1 + sympy.erf(x / sympy.sqrt(2))) / 2, "probit")
ELU = Nonlinearity.from_sympy(lambda x: sympy.Piecewise((x, x > 0), (sympy.exp(x) - 1, True)), "elu")
MISH = Nonlinearity.from_sympy(lambda x: x * sympy.tanh(sympy.log(1 + sympy.exp(x))), "mish")
SOFTSIGN = Nonlinearity.from_callable(lambda x: x / (1 + np.abs(x)), "softsign", kinks=(0,),
                                      derivative=lambda x: 1 / (1 + np.abs(x)) ** 2)
AWRY = Nonlinearity.from_callable(lambda x: np.abs(x - 0.5) / (1 + np.abs(x)), "awry", kinks=(0, 0.5))


def root(q1, q2):
    return math.sqrt(q1 * q2)


def angle(q1, q2, c):
    return math.acos(c / root(q1, q2))


def relu(q1, q2, c):
    t = angle(q1, q2, c)
    return root(q1, q2) / (2 * math.pi) * (math.sin(t) + (math.pi - t) * math.cos(t))


def step(q1, q2, c):
    return (math.pi - angle(q1, q2, c)) / (2 * math.pi)


def arcsine(q1, q2, c):
    return 2 / math.pi * math.asin(c / root(q1, q2))


def damped(a, b):
    return math.exp(-(a + b) / 2)


def bell(a, b, c):
    return a * b - c * c


#: By record: the kernel and that of the derivative, as in the known answers B.K.* (Cho and Saul, Williams, Daniely).
PUBLISHED = {
    "identity": (lambda a, b, c: c, lambda a, b, c: 1.0),
    "relu": (relu, step),
    "leaky_relu(1/10)": (lambda a, b, c: 0.1 * c + 0.81 * relu(a, b, c), lambda a, b, c: 0.1 + 0.81 * step(a, b, c)),
    "abs": (lambda a, b, c: 4 * relu(a, b, c) - c, arcsine),
    "step": (step, None),
    "sign": (arcsine, None),
    "erf": (lambda a, b, c: 2 / math.pi * math.asin(2 * c / math.sqrt((1 + 2 * a) * (1 + 2 * b))),
            lambda a, b, c: 4 / math.pi / math.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c)),
    "sin": (lambda a, b, c: damped(a, b) * math.sinh(c), lambda a, b, c: damped(a, b) * math.cosh(c)),
    "cos": (lambda a, b, c: damped(a, b) * math.cosh(c), lambda a, b, c: damped(a, b) * math.sinh(c)),
    "exp": (lambda a, b, c: math.exp((a + b) / 2 + c),) * 2,
    "gaussian": (lambda a, b, c: bell(1 + a, 1 + b, c) ** -0.5, lambda a, b, c: c * bell(1 + a, 1 + b, c) ** -1.5),
    "monomial(2)": (lambda a, b, c: a * b + 2 * c * c, lambda a, b, c: 4 * c),
    "monomial(3)": (lambda a, b, c: 9 * a * b * c + 6 * c**3, lambda a, b, c: 9 * (a * b + 2 * c * c)),
    "monomial(4)": (lambda a, b, c: 9 * a * a * b * b + 72 * a * b * c * c + 24 * c**4, None),
}


def one(d, q1, q2, c, slope=False):
    """Return one entry, and with ``slope`` that of the derivative."""
    args = np.array([q1]), np.array([q2]), np.array([[c]])
    return tuple(float(x[0, 0]) for x in d.with_slope(*args)) if slope else float(d.matrix(*args)[0, 0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formulas(name):
    d, (value, slope) = dual(nonlinearity(name)), PUBLISHED[name]
    assert d.method == "closed form"
    for point in POINTS:
        k, dot = one(d, *point, slope=True)
        assert k == pytest.approx(value(*point), rel=1e-12, abs=1e-15)
        assert one(d, *point) == k
        if slope is not None:
            assert dot == pytest.approx(slope(*point), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("slope", [False, True])
def test_the_distribution_function(slope):
    for a, b, c in POINTS:
        k, dot = one(dual(PROBIT), a, b, c, slope=True)
        assert k == pytest.approx(0.25 + math.asin(c / root(1 + a, 1 + b)) / (2 * math.pi), rel=1e-12)
        assert dot == pytest.approx(1 / (2 * math.pi * math.sqrt(bell(1 + a, 1 + b, c))), rel=1e-12)


def test_powers_of_relu_and_mixed_moments_and_hermite():
    square = Nonlinearity.from_sympy(lambda x: sympy.Max(x, 0) ** 2, "relu2")
    for a, b, c in POINTS:
        t = angle(a, b, c)
        j = 3 * math.sin(t) * math.cos(t) + (math.pi - t) * (1 + 2 * math.cos(t) ** 2)
        assert one(dual(square), a, b, c) == pytest.approx(a * b * j / (2 * math.pi), rel=1e-12)
        mixed = dual(nonlinearity("square"), nonlinearity("monomial", 4))
        assert one(mixed, a, b, c) == pytest.approx(3 * a * b * b + 12 * b * c * c, rel=1e-12)
    for j, k, value in ((3, 3, 6 * 0.6**3), (4, 4, 24 * 0.6**4), (2, 4, 0.0)):
        mixed = dual(nonlinearity("hermite", j), nonlinearity("hermite", k))
        assert one(mixed, 1.0, 1.0, 0.6) == pytest.approx(value, rel=1e-12, abs=1e-14)


def quadrature(phi, psi, q1, q2, rho):
    """Return E phi(g) psi(g') and its error, at correlation rho, by the other engine."""
    kinks = [tuple(map(float, f.kinks)) for f in (phi, psi)]
    if abs(rho) == 1:
        s, r = math.sqrt(q1), rho * math.sqrt(q2)
        both = tuple(k / s for k in kinks[0]) + tuple(k / r for k in kinks[1])
        found = expect(lambda x: phi(s * x) * psi(r * x), [0], [[1.0]], [both])
    else:
        c = rho * root(q1, q2)
        found = expect(lambda x, y: phi(x) * psi(y), [0, 0], [[q1, c], [c, q2]], kinks, 1e-11)
    return found


CLOSED = ["gelu", "d_gelu", "d2_gelu", "d_erf", "d2_erf", "d_gaussian", "hard_tanh", "d_hard_tanh", "quantizer(3)",
          "quantizer(16)", "d_leaky_relu(1/5)", "hermite(3)", ELU]
NUMERIC = ["tanh", "sigmoid", "d_tanh", "silu", "softplus", "gelu_tanh", "d_silu", MISH]


@pytest.mark.parametrize("phi", CLOSED + NUMERIC, ids=str)
def test_against_quadrature_in_the_plane(phi):
    phi = nonlinearity(phi) if isinstance(phi, str) else phi
    d = dual(phi)
    assert d.method == ("closed form" if phi.pieces is not None else "quadrature")
    q1, q2, rho = np.array([0.3, 2.0]), np.array([0.7, 5.0, 2.0]), np.array([[0.6, -0.95, 1.0], [-1.0, 0.999, 0.0]])
    k = d.matrix(q1, q2, rho * np.sqrt(q1[:, None] * q2))
    for i, j in np.ndindex(*rho.shape):
        found = quadrature(phi, phi, q1[i], q2[j], rho[i, j])
        size = math.sqrt(d.diagonal(q1)[i] * d.diagonal(q2)[j])
        assert abs(k[i, j] - found.value) <= found.error + (1e-12 if d.method == "closed form" else 1e-9) * size


@pytest.mark.parametrize("pair", [("relu", "erf"), ("gelu", "step"), ("tanh", "identity"), ("exp", "relu"),
                                  ("sin", "exp"), ("gaussian", "gelu"), ("d_relu", "relu")])
def test_mixed_pairs_both_ways(pair):
    phi, psi = map(nonlinearity, pair)
    for rho in (0.6, -0.3):
        found, c = quadrature(phi, psi, 0.4, 1.7, rho), rho * root(0.4, 1.7)
        assert abs(one(dual(phi, psi), 0.4, 1.7, c) - found.value) < found.error + 1e-10
        assert abs(one(dual(psi, phi), 1.7, 0.4, c) - found.value) < found.error + 1e-10


@pytest.mark.parametrize("phi", [SOFTSIGN, pytest.param(AWRY, marks=pytest.mark.slow)], ids=str)
def test_users_kinks_from_a_table_at_one_variance(phi):
    rho = np.linspace(-1, 1, numeric.FEW + 1)
    k = dual(phi).matrix(np.ones(1), np.ones(len(rho)), rho[None])[0]
    for i in (-1, -2, 300, 100):
        assert k[i] == pytest.approx(quadrature(phi, phi, 1.0, 1.0, rho[i]).value, rel=1e-9)


@pytest.mark.parametrize("phi", [SOFTSIGN, AWRY], ids=str)
def test_users_kinks_pair_by_pair(phi):
    assert one(dual(phi), 0.3, 2.0, -0.5) == pytest.approx(
        quadrature(phi, phi, 0.3, 2.0, -0.5 / root(0.3, 2.0)).value, rel=1e-9)


@pytest.mark.slow
def test_users_kinks_at_0_by_octaves():
    q = np.tile([0.3, 2.0], 12)
    k = dual(SOFTSIGN).matrix(q, q, np.where(np.eye(24), q, -0.5))
    assert k[0, 1] == pytest.approx(quadrature(SOFTSIGN, SOFTSIGN, 0.3, 2.0, -0.5 / root(0.3, 2.0)).value, rel=1e-9)
    assert k.diagonal() == pytest.approx(dual(SOFTSIGN).diagonal(q), rel=1e-9)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "sin", "leaky_relu(1/5)", "hard_tanh", "tanh", "silu"])
def test_price(name):
    """E phi' psi' is the derivative with respect to the covariance."""
    phi = nonlinearity(name)
    h, second = 1e-4, dual(phi).slope
    for q1, q2, c in POINTS:
        up, down = (one(dual(phi), q1, q2, c + s * h) for s in (1, -1))
        far_up, far_down = (one(dual(phi), q1, q2, c + 2 * s * h) for s in (1, -1))
        fit = (8 * (up - down) - (far_up - far_down)) / (12 * h)
        assert one(second, q1, q2, c) == pytest.approx(fit, abs=1e-8 if "tanh" in name or name == "silu" else 1e-10)


@pytest.mark.parametrize("name", ["erf", "gelu", "tanh"])
def test_price_for_the_mixed_pair(name):
    """d/dc E phi phi' = E phi' phi''."""
    phi = nonlinearity(name)
    first = phi.partial()
    q1, q2, c, h = 1.3, 0.7, -0.4, 1e-4
    fit = (one(dual(phi, first), q1, q2, c + h) - one(dual(phi, first), q1, q2, c - h)) / (2 * h)
    assert one(dual(first, first.partial()), q1, q2, c) == pytest.approx(fit, abs=1e-8)


SMOOTH_OR_NOT = ["relu", "leaky_relu(1/5)", "abs", "erf", "gelu", "sign", "step", "hard_tanh", "quantizer(5)", "tanh"]


@pytest.mark.parametrize("name", SMOOTH_OR_NOT)
def test_correlation_one_is_exact(name):
    """Up to rounding, also where a covariance exceeds what it can be; by the second moment, found in one dimension."""
    d = dual(nonlinearity(name))
    q = np.array([0.3, 1.0, 7.7, *((1e-9, 1e4) if d.method == "closed form" else ())])
    for nudge in (0, 1e-16, 4e-16, -2e-16):
        k, dot = d.with_slope(q, q, np.diag(q * (1 + nudge)))
        for f, seen in ((d.phi, k.diagonal()), (d.phi.partial(), dot.diagonal())):
            if f is not None:
                for v, x in zip(q, seen, strict=True):
                    s = math.sqrt(v)
                    kinks = [[0.0, *(float(t) / s for t in f.kinks)]]
                    exact = expect(lambda x, f=f, s=s: f(s * x) ** 2, [0], [[1.0]], kinks)
                    assert x == pytest.approx(exact.value, rel=1e-12 if d.method == "closed form" else 1e-8), (f, v)
    assert np.array_equal(d.matrix(q, q, np.diag(q)).diagonal(), d.diagonal(q)) or d.method == "quadrature"


def test_the_slope_at_the_diagonal_is_not_an_arccosine_near_one():
    """Taken of 1 - 1e-16, the angle would be wrong by 1e-8."""
    x = np.random.default_rng(0).standard_normal((300, 17))
    c = x @ x.T
    k, dot = dual(nonlinearity("relu")).with_slope(c.diagonal(), c.diagonal(), c)
    assert np.all(dot.diagonal() == 0.5)
    assert k.diagonal() == pytest.approx(c.diagonal() / 2, rel=1e-15)


@pytest.mark.parametrize("name", ["relu", "abs", "erf", "gelu", "hard_tanh", "step", "sign", "tanh", "silu", "cos"])
def test_variance_zero(name):
    """A Gaussian of variance 0 is 0: exactly phi(0) E phi."""
    phi = nonlinearity(name)
    q = np.array([0.0, 2.0])
    k, dot = dual(phi).with_slope(q, q, np.diag(q))
    assert np.all(np.isfinite(k)) and np.all(np.isfinite(dot))
    assert k[0, 0] == pytest.approx(phi(0.0) ** 2, rel=1e-12) and k[0, 1] == pytest.approx(
        phi(0.0) * mean(phi, np.array(2.0)), rel=1e-9, abs=1e-300 if name in ("relu", "abs", "step", "sign") else 1e-15)
    slope = phi.partial()
    if slope is not None:
        assert dot[0, 0] == pytest.approx(slope(0.0) ** 2, rel=1e-12)
        assert dot[1, 0] == pytest.approx(slope(0.0) * mean(slope, np.array(2.0)), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "sin", "step", "tanh", "hard_tanh"])
def test_float32_in_float32_out(name):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 9))
    c = x @ x.T / 9
    q = c.diagonal().copy()
    d = dual(nonlinearity(name))
    wide, narrow = d.with_slope(q, q, c), d.with_slope(*(a.astype(np.float32) for a in (q, q, c)))
    off = ~np.eye(40, dtype=bool)
    for a, b in zip(wide, narrow, strict=True):
        assert b.dtype == np.float32
        assert np.allclose(a[off], b[off], rtol=3e-5, atol=1e-6)
    assert np.allclose(wide[0], narrow[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "exp", "sin", "abs", "step", "tanh", "identity"])
def test_blocks_threads_and_writing_in_place(name):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((700, 5)), rng.standard_normal((300, 5))
    c, q1, q2 = x @ y.T / 5, (x * x).sum(1) / 5, (y * y).sum(1) / 5
    d = dual(nonlinearity(name))
    k, dot = d.with_slope(q1, q2, c)
    rows_, columns = [0, 399, 699], [0, 1, 299]
    few = d.with_slope(q1[rows_], q2[columns], c[np.ix_(rows_, columns)])
    assert np.allclose(few[0], k[np.ix_(rows_, columns)], rtol=1e-14, atol=1e-15)
    assert np.allclose(few[1], dot[np.ix_(rows_, columns)], rtol=1e-14, atol=1e-15)
    again, slope = c.copy(), np.empty_like(c)
    d.with_slope(q1, q2, again, again, slope)
    assert np.array_equal(again, k) and np.array_equal(slope, dot)
    again = c.copy()
    assert d.matrix(q1, q2, again, again) is again and np.allclose(again, k, rtol=1e-15)


def test_long_rows_and_pairs_one_by_one():
    q = np.full(2 * rows.BLOCK + 7, 1.5)
    c = np.linspace(-1.5, 1.5, len(q))
    for name in ("relu", "gelu", "tanh"):
        d = dual(nonlinearity(name))
        wide, column = d.matrix(q[:1], q, c[None])[0], np.empty((len(q), 1))
        d.block(q[:, None], q[:, None], c[:, None], column, None)
        assert np.allclose(wide, column[:, 0], rtol=1e-13, atol=1e-15)
        assert wide[-1] == pytest.approx(d.diagonal(q)[0], rel=1e-9)


def test_many_pairs_of_one_variance_are_read_from_a_table():
    """Of a closed form that is slow: it agrees with itself pair by pair, which quadrature confirms above."""
    d, q = dual(nonlinearity("quantizer", 5)), np.full(65, 1.3)
    c = np.linspace(-1.3, 1.3, 65 * 65).reshape(65, 65)
    k, few = d.matrix(q, q, c), [(0, 0), (10, 3), (40, 40), (64, 63), (64, 64)]
    for i, j in few:
        assert k[i, j] == pytest.approx(one(d, 1.3, 1.3, c[i, j]), abs=1e-9)


@pytest.mark.slow
def test_variances_beyond_hermite_series():
    tanh, q = nonlinearity("tanh"), np.array([0.3, 60.0])
    k = dual(tanh).matrix(q, q, np.array([[0.3, 1.7], [1.7, 60.0]]))
    found = expect(lambda x, y: np.tanh(x) * np.tanh(y), [0, 0], [[0.3, 1.7], [1.7, 60.0]], [(0,), (0,)])
    assert k[0, 1] == pytest.approx(found.value, rel=1e-8)
    assert k[1, 1] == pytest.approx(quadrature(tanh, tanh, 60.0, 60.0, 1.0).value, rel=1e-8)


def test_the_first_error_of_a_thread_is_raised():
    def fail(block):
        raise ProgramError("x", 1, "because", "do not")

    with pytest.raises(ProgramError, match="because"):
        rows.share(fail, 1000, 1000)


@pytest.mark.parametrize("name, text", [("log", "not defined"), ("rsqrt", "not defined")])
def test_what_is_not_defined_is_refused(name, text):
    with pytest.raises(NotCoveredError, match=text):
        dual(nonlinearity(name))


def test_an_infinite_expectation_is_refused():
    up = Nonlinearity.from_sympy(lambda x: sympy.exp(x**2 / 2), "up")
    assert one(dual(up), 0.25, 0.25, 0.1) == pytest.approx((0.75**2 - 0.01) ** -0.5, rel=1e-12)
    with pytest.raises(NotCoveredError, match="infinite at this variance"):
        one(dual(up), 2.0, 2.0, 0.1)


def test_shapes_that_do_not_fit():
    with pytest.raises(ProgramError, match="do not fit"):
        dual(nonlinearity("relu")).matrix(np.ones(2), np.ones(3), np.ones((3, 2)))


# Compositions


def recursion(up, down, rho, depth):
    """Return the NNGP and the NTK of a homogeneous network at variance 1, layer by layer to 40 digits."""
    with mp.workdps(40):
        a, b, k = mp.mpf(up), mp.mpf(down), mp.mpf(rho)
        m, odd, tau = (a * a + b * b) / 2, (a + b) ** 2 / (2 * mp.pi), mp.mpf(rho)
        for _ in range(depth):
            t = mp.acos(k)
            slope = 1 - odd * t / m
            k = k * slope + odd * mp.sin(t) / m
            tau = k + slope * tau
        return float(k), float(tau)


RHO = [1.0, 1 - 1e-15, 1 - 1e-9, 1 - 1e-5, 0.99, 0.6, 0.1, 0.0, -0.3, -0.9, -1 + 1e-9, -1.0]


@pytest.mark.parametrize("depth", [1, 3, 30, 100])
@pytest.mark.parametrize("name, up, down", [("relu", 1, 0), ("abs", 1, 1), ("leaky_relu(1/5)", 1, "-0.2")])
def test_composition_is_the_recursion(name, up, down, depth):
    deep, rho = compose(dual(nonlinearity(name)), depth), np.array(RHO)
    exact = np.array([recursion(up, mp.mpf(down), x, depth) for x in RHO])
    assert np.max(np.abs(deep.nngp(rho) - exact[:, 0])) < 1e-12
    assert np.max(np.abs(deep.ntk(rho) - exact[:, 1])) < 1e-12 * (depth + 1)
    assert deep.nngp(np.array([1.0]))[0] == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("depth", [3, 30])
def test_composition_is_the_product_of_layers(depth):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 6))
    c = x @ x.T / 6
    q = c.diagonal().copy()
    d = dual(nonlinearity("relu"))
    k, v, tau = c.copy(), q.copy(), c.copy()
    for _ in range(depth):
        k, slope = d.with_slope(v, v, k)
        k, v, tau = 1.7 * k, 1.7 * d.diagonal(v), 1.7 * slope * tau
        tau += k
    deep = compose([d] * depth)
    assert deep.kernel(q, q, c, (1.7 / 2) ** depth) == pytest.approx(k, rel=1e-12)
    assert deep.kernel(q, q, c, (1.7 / 2) ** depth, ntk=True) == pytest.approx(tau, rel=1e-12)


def test_rates_and_mixed_layers():
    layers = [dual(nonlinearity(name)) for name in ("relu", "identity", "abs")]
    rho, rates = 0.3, [2.0, 0.0, 0.5, 3.0]
    t = math.acos(rho)
    first = (math.sin(t) + (math.pi - t) * math.cos(t)) / math.pi
    u = math.acos(first)
    last = 2 / math.pi * (math.sin(u) + (math.pi / 2 - u) * math.cos(u))
    tau = (2 * rho * (1 - t / math.pi) + 0 + 0.5 * first) * (1 - 2 * u / math.pi) + 3 * last
    deep = compose(layers, rates=rates)
    assert deep.nngp(np.array([rho]))[0] == pytest.approx(last, rel=1e-12)
    assert deep.ntk(np.array([rho]))[0] == pytest.approx(tau, rel=1e-12)


def test_a_lookup_refuses_what_it_cannot_resolve():
    with pytest.raises(NotCoveredError, match="do not resolve"):
        Lookup.fit(lambda x: np.sign(x - 0.3), 1e-6)


# Parts


def test_two_gaussians_below():
    """Against the integral of a density times a distribution function, to 20 digits."""
    for h, k, rho in ((0.3, -1.2, 0.5), (-2.0, -1.0, -0.8), (1.0, 1.0, 0.999), (0.0, 0.7, 0.2), (2.0, -2.0, -0.9)):
        with mp.workdps(20):
            s = mp.sqrt(1 - mp.mpf(rho) ** 2)
            exact = mp.quad(lambda x, s=s, k=k, rho=rho: mp.npdf(x) * mp.ncdf((k - rho * x) / s), [-12, -3, h])
        seen = moments.both_below(np.array(h), np.array(k), math.copysign(1, rho), math.sqrt(1 - rho**2))
        assert float(seen) == pytest.approx(float(exact), abs=3e-16 + 1e-13 * float(exact))


def test_rungs_agree():
    """The formulas that are written out against the general engines."""
    q1, q2 = np.array([[0.2], [3.0]]), np.array([[0.5, 1.1, 4.0]])
    c = np.array([[0.5], [-0.9]]) * np.sqrt(q1 * q2) * np.array([[1, 0.1, -1]])
    for name in ("relu", "erf", "gelu", "exp", "sin", "cos", "abs"):
        phi = nonlinearity(name)
        a, b, other = (np.empty_like(c) for _ in range(3))
        closed.find(phi)[0](q1, q2, c, a, None)
        moments.find(phi, phi)[1](q1, q2, c, b, None)
        assert np.allclose(a, b, rtol=1e-12, atol=1e-14)
        if name in ("erf", "gelu"):
            numeric.find(phi, phi)(q1, q2, c, other, None)
            assert np.allclose(a, other, rtol=1e-9, atol=1e-10)


def test_a_first_kernel_loads_neither_sympy_nor_scipy():
    code = ("import sys, numpy as np; from tensorprog.atoms.registry import nonlinearity as f; "
            "from tensorprog.kernels.dual import dual; from tensorprog.kernels.compose import compose\n"
            "q = np.ones(4)\n"
            "for name in ('relu', 'erf', 'gelu'): dual(f(name)).with_slope(q, q, np.eye(4))\n"
            "compose(dual(f('relu')), 3).kernel(q, q, np.eye(4), ntk=True)\n"
            "sys.exit(bool({'sympy', 'scipy'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_even_function_and_an_odd_one_have_nothing_in_common():
    c = np.array([[0.3, -0.1]])
    for phi, psi in (("square", "tanh"), ("tanh", "cos"), ("hard_tanh", "square")):
        assert np.abs(dual(nonlinearity(phi), nonlinearity(psi)).matrix(np.ones(1), np.ones(2), c)).max() < 1e-15
    assert np.abs(dual(nonlinearity("tanh"), nonlinearity("sin")).matrix(np.ones(1), np.ones(2), c)).min() > 0.01
