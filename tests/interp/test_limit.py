"""From a program to its limit: fixed axes written out, normal form, hats and dots, degenerate and Gaussian cases."""

from fractions import Fraction as F

import numpy as np
import pytest
import sympy
from scipy import special, stats

import tensorprog as tp
from tensorprog.atoms.optimizers import optimizer
from tensorprog.errors import NoClosedFormError, NotCoveredError, ProgramError
from tensorprog.finite.limit import limit
from tensorprog.finite.numpy_backend import run
from tensorprog.interp.limit import Limits
from tensorprog.interp.normal import NormalForm
from tensorprog.interp.scalarize import Scalarized
from tensorprog.interp.unroll import unroll
from tensorprog.program.text import parse
from tensorprog.scaling.assign import assign


def trained(optimizer_name="sgd", parametrization="mup", depth=2, activation="relu", **options):
    network = tp.nets.mlp(depth=depth, activation=activation, bias=depth > 1)
    run_ = unroll(network, optimizer_name, steps=1, **options)
    return run_.program, assign(network, parametrization, optimizer(optimizer_name))


# ------------------------------------------------------------------------------------------- fixed axes


@pytest.mark.parametrize("name", ["sgd", "momentum", "signsgd"])
def test_fixed_axes_written_out_have_the_same_law(name):
    """Kolmogorov-Smirnov on the trained network's output at n = 16, over seeds."""
    program, values = trained(name)
    data = {x: [F(1), F(-1, 2), F(2)][: 3 if x == "xi" else 1] for x in ("xi", "target.f")}
    given = parse_with(program, data)
    flat = Scalarized(given)
    (out,) = flat.of["f@1"]
    draws = [[float(np.ravel(run(p, 16, seed, values=values, keep=[x])[x])[0]) for seed in range(s, s + 300)]
             for p, x, s in ((given, "f@1", 0), (flat.program, out, 1000))]
    assert stats.ks_2samp(*draws).pvalue > 1e-3
    assert stats.ks_2samp(draws[0], np.array(draws[1]) + np.std(draws[0])).pvalue < 1e-3  # and it could tell


def parse_with(program, data):
    """Return the program with generic data replaced by these numbers."""
    from dataclasses import replace

    from tensorprog.program.instructions import Data, Input
    from tensorprog.program.program import Program

    lines = [replace(x, law=Data(tuple(data[x.out]))) if isinstance(x, Input) and x.out in data else x
             for x in program.lines]
    return Program(program.dims.values(), lines, outputs=program.outputs, unknowns=program.unknowns)


def test_zero_coordinates_and_one_hot_data_cost_nothing():
    s = Scalarized(parse("dim n\ndim d = 1000\nmatrix E : n x d ~ N(0, 1)\ninput t : d onehot 3\nx = E @ t"))
    assert s.program.names == ("x",)
    s = Scalarized(parse("dim n\ndim d = 1000\nmatrix E : n x d ~ N(0, 1)\ninput t : d onehot 3\nx = E @ t\n"
                         "vector y : n\ng = E.T @ y"))  # its columns are needed one by one
    assert [line.args for line in s.program.lines if line.out == "x"] == [("E[3]",)]


# ------------------------------------------------------------------------------------------- normal form


@pytest.mark.parametrize(("text", "exponents"), [
    ("matrix W : n x n ~ N(0, 1)\nvector x : n\nh = W @ x\ny = relu(h)/n", {"h": F(1, 2), "y": F(-1, 2)}),
    ("vector x : n\nh = n^(-1/2)*x\ny = tanh(h)\nz = cos(h)", {"y": F(-1, 2), "z": F(0)}),
    ("vector x, y : n ~ N(0, [[1, 0], [0, 1]])\ns = sum(x*y)\nt = sum(x*x)", {"s": F(1, 2), "t": F(1)}),
])
def test_normal_form_finds_powers_of_n(text, exponents):
    form = NormalForm(parse("dim n\n" + text))
    assert {x: form.exponents[x] for x in exponents} == exponents
    assert all(not scale.powers or form.program.type_of(line.out) for line in form.program.lines
               for scale, _ in getattr(getattr(line, "fn", None), "terms", ()))


@pytest.mark.parametrize(("text", "value"), [
    ("vector x : n\ny = tanh(n^(-1/2)*x)\ns = n*mean(y*y)", 1),                       # first Taylor term
    ("vector x : n\ny = 1 - cos(n^(-1/2)*x)\ns = n^2*mean(y*y)", None),                # cancellation: refused
    ("vector x : n\ny = square(n^(-1/4)*x)\ns = n*mean(y*y)", 3),
    ("vector x : n\ny = x + n^(-1/2)*x^2\ns = mean(y*y)", 1),                          # the smaller term drops out
    ("vector x : n\none = n^(1/2)*x\ny = relu(one)\ns = mean(y*y)/n", F(1, 2)),        # homogeneous at any size
    ("dim m ~ 3*n\nvector x : m\ns = sum(x*x)/n", 3),
    ("dim m ~ 3*n\nmatrix W : m x n ~ N(0, 1/m)\nvector x : n\nh = W @ x\ns = sum(h*h)/n", 1),
    ("dim h ~ n^(1/2)\nmatrix W : h x n\nvector x : n\ny = W @ x\ns = mean(y*y)", 1),
])
def test_explicit_powers_of_n(text, value):
    p = parse("dim n\n" + text)
    if value is None:
        with pytest.raises(NotCoveredError, match="leading terms cancel|vanishes"):
            p.limit("s")
    else:
        assert p.limit("s").exact == sympy.Rational(F(value).numerator, F(value).denominator)


def test_what_grows_has_no_limit_unless_asked_for():
    p = parse("dim n\nmatrix W : n x n ~ N(0, 1)\nvector x : n\nh = W @ x\ns = mean(h*h)")
    with pytest.raises(NotCoveredError, match=r"grows like n\^\(1\)"):
        p.limit("s")
    found = p.limit("s", strict=False)
    assert (found.exponent, found.leading) == (1, 1)


# ------------------------------------------------------------------------------------------ hats and dots


@pytest.mark.parametrize("again", ["W @ x", "W @ (2*x)", "W @ (x + 0*x)", "W @ (x + y) - W @ y"])
def test_repeated_and_dependent_vectors_have_dependent_products(again):
    p = parse(f"dim n\nmatrix W : n x n\nvector x : n\nvector y : n\nh = W @ x\nk = W @ y\ng = {again}\n"
              "s = mean(g*g)\nt = mean(g*h)\nr = mean(relu(h)*relu(g))")
    c = 2 if "2*x" in again else 1
    assert [p.limit(q).exact for q in "str"] == [c * c, c, sympy.Rational(c, 2)]


@pytest.mark.parametrize("zero", ["0*x", "x - x", "W.T @ (0*x)"])
def test_zero_vectors(zero):
    p = parse(f"dim n\nmatrix W : n x n\nvector x : n\nz = {zero}\nh = W @ z\ns = mean((h + x)*(W.T @ h + x))")
    assert p.limit("s").exact == 1


def test_a_jump_has_its_dot_by_stein():
    """W^T sign(W x): E delta-like derivative sqrt(2/pi), also with two correlated uses."""
    p = parse("dim n\nmatrix W : n x n\nvector x, y : n ~ N(0, [[1, 1/2], [1/2, 1]])\nh = W @ x\nk = W @ y\n"
              "g = W.T @ sign(h + k)\ns = mean(g*x)\nt = mean(g*y)")
    # E[sign'(h + k)] = sqrt(2/pi)/sqrt(3), and Zdot is that times (x + y)
    for name in "st":
        assert p.limit(name).value == pytest.approx(np.sqrt(2 / np.pi / 3) * 1.5, abs=1e-12)


def test_a_product_that_comes_again_has_one_dot():
    """step^2 = step: the second use of W.T has the hat of the first, and Stein's lemma counts it once."""
    p = parse("dim n\nmatrix W : n x n\nvector x : n\nd = step(W @ x)\nu = W.T @ d\nv = W.T @ (d*d)\n"
              "g = W @ sign(u + v + x)\ns = mean(g*d)\nt = mean(u*x)\nr = mean(v*x)")
    c = 1 / np.sqrt(2 * np.pi)
    assert [p.limit(q).value for q in "tr"] == pytest.approx([c, c])
    # u = v = hat + c x, so E sign(2 hat + (1 + 2c) x) has slope 4 density at 0 in u + v, of variance 2 + (1 + 2c)^2
    slope = 2 * 2 / np.sqrt(2 * np.pi * (4 / 2 + (1 + 2 * c) ** 2))
    overlap = (1 + 2 * c) * np.sqrt(2 / np.pi) / np.sqrt(2 + (1 + 2 * c) ** 2)  # E sign(.) x, and E h step(h) = c
    assert p.limit("s").value == pytest.approx(slope / 2 + overlap * c, abs=1e-12)


def test_the_dot_of_a_tall_matrix_has_the_ratio():
    a = sympy.Symbol("a", positive=True)
    p = parse("dim n\ndim m ~ 2*n\nmatrix W : m x n ~ N(0, 1/n)\nvector x : n\ns = mean(x * (W.T @ relu(W @ x)))\n"
              "t = mean((W.T @ relu(W @ x))^2)")
    assert [p.limit("s").exact, p.limit("t").exact] == [1, 2]
    found = p.limit("t", ratios={"m": a}).exact
    assert sympy.expand(found - (a / 2 + a**2 / 4)) == 0


def test_scalars_feed_back_as_their_limits():
    p = parse("dim n\nmatrix W : n x n\nvector x : n\nq = mean(relu(x)*relu(x))\nh = W @ (x/(q + 1/2))\n"
              "s = mean(relu(q*h)*h)")
    assert p.limit("s").exact == sympy.Rational(1, 4)


def test_both_evaluators_and_runs_agree_on_a_network_in_training():
    program, values = trained(depth=1, activation="tanh")
    exact, sampled = (limit(program, "f@1", values=values, method=m, tol=1e-3) for m in ("auto", "sampled"))
    assert (exact.method, sampled.method) == ("quadrature", "sampled")
    assert abs(sampled.value - exact.value) <= 2 * sampled.error
    seen = [np.ravel(run(program, 4096, s, values=values, keep=["f@1"])["f@1"])[0] for s in range(24)]
    assert exact.value == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / 24**0.5)


# ------------------------------------------------------------------------------------------ Gaussian sums


def test_outputs_are_a_gaussian_process():
    p = parse("dim n\nmatrix W : n x n ~ N(0, 2/n)\nvector x, y : n ~ N(0, [[1, 1/2], [1/2, 1]])\nvector v, w : n ~ "
              "N(0, [[1, 1/3], [1/3, 1]])\nf = sum(v*(W @ x))/n^(1/2)\ng = sum(w*(W @ y))/n^(1/2)\nh = 2*f - g + 1")
    f, g, h = limit(p, ["f", "g", "h"]).values()
    assert (f.kind, f.value, f.variance) == ("gaussian", 0.0, 2.0)
    assert f.covariance(g) == sympy.Rational(1, 3)
    assert (h.value, h.covariance(h)) == (1.0, 8 + 2 - sympy.Rational(4, 3))
    with pytest.raises(ProgramError, match="two calls"):
        f.covariance(p.limit("g"))


def test_sums_that_depend_on_each_others_vectors():
    """v.w is w.v: their sum is twice the one, and its variance four times."""
    head = "dim n\nvector v : n\nvector w : n\nf = sum(v*w)/n^(1/2)\n"
    twice = limit(parse(head + "g = sum(w*v)/n^(1/2)\nh = f + g"), "h")
    assert twice.variance == 4
    signs = limit(parse(head + "s = sign(w)\ng = sum(s*v)/n^(1/2)"), ["f", "g"])  # E v^2 |w|
    assert abs(float(signs["f"].covariance(signs["g"])) - np.sqrt(2 / np.pi)) < 1e-12
    text = "dim n\nmatrix W : n x n\nvector v : n\nvector w : n\nx = relu(W @ v)\ny = relu(W.T @ w)\n"
    both = parse(text + "f = sum(w*x)/n^(1/2)\ng = sum(v*y)/n^(1/2)\nh = f + g")  # w.relu(W v), v.relu(W' w)
    assert limit(both, "f").variance == limit(both, "g").variance == pytest.approx(0.5)
    with pytest.raises(NotCoveredError, match="covariance is not known"):
        limit(both, "h")


def test_a_matrix_used_one_way_carries_no_dependence():
    """Readouts tied to what the network starts from: covariances of runs in plain numpy."""
    p = parse("""
        dim n
        matrix W : n x n
        matrix U : n x n
        vector v, w : n ~ N(0, [[1, 1/2], [1/2, 1]])
        a = sum(v * erf(W @ sin(v)))/n^(1/2)
        b = sum(w * erf(W @ sin(v + w)))/n^(1/2)
        c = sum(v * erf(U @ w))/n^(1/2)""")
    found = limit(p, ["a", "b", "c"])
    claim = np.array([[float(x.covariance(y)) for y in found.values()] for x in found.values()])
    n, samples = 200, []
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        W, U = rng.standard_normal((2, n, n)) / np.sqrt(n)
        v, e = rng.standard_normal((2, n))
        w = v / 2 + np.sqrt(3) / 2 * e
        samples.append([v @ special.erf(W @ np.sin(v)), w @ special.erf(W @ np.sin(v + w)), v @ special.erf(U @ w)])
    samples = np.array(samples) / np.sqrt(n)
    products = samples[:, :, None] * samples[:, None]
    half = stats.t.ppf(0.9995, 1999) * stats.sem(products) + 0.01
    assert np.all(np.abs(products.mean(0) - claim) < half)
    assert np.any(np.abs(products.mean(0) - 1.4 * claim) > half)
    assert np.all(np.abs(stats.kurtosis(samples)) < 0.5)


def test_a_sum_that_is_not_known_to_be_gaussian_is_refused_and_its_mean_is_zero():
    p = parse("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ x\ns = sum(x*(W @ x))/n^(1/2)\nt = mean(x*(W @ x))\n"
              "r = s + mean(y*y)")
    with pytest.raises(NotCoveredError, match="known to be Gaussian"):
        p.limit("r")
    assert p.limit("t").exact == 0
    assert p.limit("s").variance == 1  # W one way only: given x, the coordinates of W x are independent


@pytest.mark.parametrize("text", [
    "x = u + n^(-1/2)*v\ns = sum(v*x)/n^(1/2)",                # v.u/sqrt(n) is Gaussian, v.v/n adds 1
    "w = v + n^(-1/2)\ns = sum(w*exp(u))/n^(1/2)",             # a mean that is small adds E exp(u)
    "q = mean(v*u)\nx = u + q*v\ns = sum(v*x)/n^(1/2)",        # through a scalar
])
def test_what_is_smaller_in_a_vector_is_not_smaller_in_a_sum(text):
    p = parse("dim n\nvector u, v : n ~ N(0, [[1, 0], [0, 1]])\n" + text)
    with pytest.raises(NotCoveredError, match="known to be Gaussian"):
        p.limit("s")
    p = parse("dim n\nvector v : n ~ N(n^(-1/2), 1)\nvector u : n\ns = sum(v*exp(u))/n^(1/2)")
    with pytest.raises(NotCoveredError, match="known to be Gaussian"):
        p.limit("s")


def test_kernel_regime_is_affine_in_the_initial_output():
    program, values = trained(parametrization="ntp")
    f0, f1 = limit(program, ["f@0", "f@1"], values=values, data={"xi": [1, 0, 0], "target.f": [2]}).values()
    ratio = f1.covariance(f0) / f0.covariance(f0)  # 1 - eta K, so that f_1 = 2 + (f_0 - 2)(1 - eta K)
    assert f1.value == pytest.approx(2 * (1 - float(ratio)), abs=1e-12)
    assert f1.variance == pytest.approx(float(ratio) ** 2 * f0.variance, abs=1e-12)


# --------------------------------------------------------------------------------------------- the object


def test_vectors_have_a_law():
    y = parse("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ relu(W @ x) + 1").limit("y")
    assert (y.kind, y.value, y.variance) == ("vector", 1.0, 0.75)
    assert str(y.exact) == "Z^{x}/2 + Ẑ^{y}" or len(y.exact.free_symbols) == 2


def test_exact_only_says_when_there_is_no_closed_form():
    text = "dim n\nmatrix W : n x n\nvector x : n\nx0 = x\n" + "\n".join(
        f"x{k} = tanh(W @ x{k - 1} + W.T @ x{k - 1} + x{k - 1})" for k in range(1, 5)) + "\nq = mean(x4*x4)"
    with pytest.raises(NoClosedFormError, match="sampled"):
        parse(text).limit("q", method="exact", budget=1)
    found = parse(text).limit("q", tol=2e-2, budget=1)
    assert found.method == "sampled" and found.exact is None and found.error < 5e-2


def test_wrong_names_and_methods():
    p = parse("dim n\nmatrix W : n x n\nvector x : n\ny = W @ x")
    with pytest.raises(ProgramError, match="no such variable"):
        p.limit("z")
    with pytest.raises(ProgramError, match="a matrix has no limit"):
        p.limit("W")
    with pytest.raises(ProgramError, match="no such method"):
        p.limit("y", method="guess")
    with pytest.raises(ProgramError, match="no outputs"):
        p.limit()


def test_the_interpreter_says_what_it_is_missing():
    from tensorprog.interp.covered import covered
    from tensorprog.interp.limit import limit as table
    from tensorprog.interp.normal import normal
    from tensorprog.interp.scalarize import scalarize

    assert [t.missing() for t in (table, normal, scalarize, covered)] == [[], [], [], []]
    assert Limits(parse("dim n\nvector x : n")).space.atoms[0].label == "x"
