"""What a text means: declarations by their laws, expressions by their values at a finite width."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given, settings

from tensorprog.atoms.diff import Diff
from tensorprog.atoms.multivariate import Multivariate, Softmax
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import Scale
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    Param,
    ScalarType,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program
from tensorprog.program.text import parse, quoted, to_text
from tensorprog.testing import assert_round_trip, market, programs, random_program

from .naive import run

ZERO, ONE, HALF = Scale(Fraction(0)), Scale(), Scale(Fraction(1, 2))
N = Dim("n")

LANGUAGE = """
dim n                                   # a width: grows like n
dim m ~ 2*n                             # m/n -> 2
dim h ~ n^(1/2)                         # growth 1/2
dim d = 3                               # fixed

matrix W : n x n ~ N(0, 1/n)            # iid Gaussian entries: mean, variance
matrix B : m x n ~ N(0, 4/n)
vector x : n ~ N(0, 1)                  # iid standard Gaussian coordinates
vector u, v : n ~ N(0, [[1, 1/2], [1/2, 1]])   # coordinates of (u, v) jointly Gaussian, iid over the axis
vector one : n = 1                      # constant coordinates
scalar t = 1/3

y = relu(W @ x) + t*one
z = W.T @ y
q = mean(z * x)
g = sum(u * (W @ v)) / n^(1/2)
w = (W + W.T)/sqrt(2) @ x
output q, g
"""
NETWORK = """
dim n
dim d = 3
param W1 : n x d                        # W = n^-a w, w ~ N(0, n^-2b), learning rate n^-c; all three unknown
param W2 : n x n  [a=0, b=1/2, c=1]     # or given, in any combination
param b2 : n x 1  [init=zero]           # a bias; init=zero and init=one for biases and gains
param V  : 1 x n
input xi : d
x1 = tanh(W1 @ xi)
h2 = W2 @ x1 + b2
f = V @ tanh(h2)
output f
loss squared                            # squared (default), logistic, cross_entropy
"""


def test_the_language_of_random_matrices():
    p = parse(LANGUAGE)
    assert list(p.dims.values()) == [N, Dim("m", 1, 2), Dim("h", Fraction(1, 2)), Dim.fixed("d", 3)]
    assert p.line_of("W") == Input("W", MatrixType(N, N), Normal(ZERO, Scale.power("n", -1)))
    assert p.line_of("B").law == Normal(ZERO, 4 * Scale.power("n", -1))
    assert p.line_of("x") == Input("x", VectorType(N), Normal(ZERO, ONE))
    assert p.line_of("v").law == Joint(("u", "v"), 1, (ZERO, ZERO), ((ONE, HALF), (HALF, ONE)))
    assert p.line_of("one").law == Constant(ONE)
    assert p.line_of("t") == Input("t", ScalarType(), Constant(Scale(Fraction(1, 3))))
    assert p.line_of("z") == MatMul("z", "W", "y", transposed=True)
    assert p.line_of("q") == Moment("q", ("z", "x"))
    assert p.outputs == ("q", "g")
    assert len(p.lines) == 17  # 7 inputs, 3 lines for y, z, q, 3 for g, 2 for w: W @ x is there already
    env = run(p, 5, np.random.default_rng(0))
    W, x = env["W"], env["x"]
    assert np.allclose(env["y"], np.maximum(W @ x, 0) + 1 / 3)
    assert np.allclose(env["w"], (W + W.T) @ x / 2**0.5)
    assert np.isclose(env["g"], env["u"] @ W @ env["v"] / 5**0.5)
    assert np.isclose(env["q"], (W.T @ env["y"]) @ x / 5)


def test_the_language_of_networks():
    p = parse(NETWORK)
    laws = {line.out: line.law for line in p.params}
    assert laws["W1"].variance == Scale.power("n", -2 * Affine.symbol("a[W1]") - 2 * Affine.symbol("b[W1]"))
    assert laws["W2"] == Normal(ZERO, Scale.power("n", -1))
    assert laws["b2"] == Constant(ZERO)
    assert p.line_of("W2").param == Param(Fraction(0), Fraction(1, 2), Fraction(1))
    assert p.line_of("xi") == Input("xi", VectorType(Dim.fixed("d", 3)), Data())
    assert p.type_of("f") == VectorType(Dim.fixed("1", 1))
    assert (p.loss, p.outputs) == ("squared", ("f",))
    values = {f"{s}[{w}]": Fraction(0) for s in "ab" for w in ("W1", "W2", "V")}
    env = run(p, 6, np.random.default_rng(0), values)
    assert np.allclose(env["f"], env["V"] @ np.tanh(env["W2"] @ np.tanh(env["W1"] @ env["xi"])))


def test_extensions():
    p = parse("dim n\ndim m ~ 2*n\ndim k ~ 3*m\ndim r ~ m*k/n\ndim vocab = 4\n"
              "input tok : vocab onehot 3\ninput y : vocab = [1, -1/2, 0.25, 0]\n"
              "input s\ninput e = 2/3\nparam G : n x 1 [init=one, role=gain]")
    assert p.dims["k"] == Dim("k", 1, 6)
    assert p.dims["r"] == Dim("r", 1, 12)
    assert p.line_of("tok").law == Data(None, 3)
    assert p.line_of("y").law == Data((Fraction(1), Fraction(-1, 2), Fraction(1, 4), Fraction(0)))
    assert p.line_of("s") == Input("s", ScalarType(), Data())
    assert p.line_of("e").law == Data((Fraction(2, 3),))
    assert p.line_of("G").param == Param(init="one", role="gain")


@pytest.mark.parametrize(
    "text, value",
    [
        ("-3^2", -9),
        ("2^-1/2", Fraction(1, 4)),
        ("2^-1^2", Fraction(1, 2)),
        ("2^3^2", 512),
        ("2**-2", Fraction(1, 4)),
        ("1 - 2 - 3", -4),
        ("8/4/2", 1),
        ("2/3*3", 2),
        ("-(1 + 2)*3", -9),
        ("1 - -1", 2),
        ("+3", 3),
        ("0.1", Fraction(1, 10)),
        ("1.50e-1", Fraction(3, 20)),
        (".5", Fraction(1, 2)),
        ("(1/2)^-3", 8),
        ("4^(1/2)", 2),
        ("sqrt(9)/2", Fraction(3, 2)),
        ("sqrt(2)*sqrt(2)", 2),
        ("sqrt(2)*pi", sympy.sqrt(2) * sympy.pi),
        ("2^(1/2)", sympy.sqrt(2)),
        ("1 + sqrt(2)", 1 + sympy.sqrt(2)),
        ("(1 + sqrt(2))*(1 - sqrt(2))", -1),
        ("2*3 + 4*5", 26),
        ("(2)", 2),
        ("1/3 + 1/6", Fraction(1, 2)),
        ("--2", 2),
    ],
)
def test_numbers_are_exact(text, value):
    assert parse(f"scalar t = {text}").line_of("t").law.value == Scale.of(value)


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("-x^2", lambda x, y, W, t: -(x**2)),
        ("x - y - x/2", lambda x, y, W, t: x / 2 - y),
        ("x*y^3*2", lambda x, y, W, t: 2 * x * y**3),
        ("W @ x * y", lambda x, y, W, t: (W @ x) * y),
        ("2*W @ x", lambda x, y, W, t: 2 * W @ x),
        ("x*(W @ y)", lambda x, y, W, t: x * (W @ y)),
        ("W.T @ W @ x", lambda x, y, W, t: W.T @ (W @ x)),
        ("(W - W.T)/2 @ (x + y)", lambda x, y, W, t: (W - W.T) @ (x + y) / 2),
        ("-W @ x", lambda x, y, W, t: -W @ x),
        ("t*W.T @ x", lambda x, y, W, t: t * W.T @ x),
        ("W @ x / t", lambda x, y, W, t: W @ x / t),
        ("diag(x) @ W @ diag(y) @ x", lambda x, y, W, t: x * (W @ (y * x))),
        ("(diag(x) @ W).T @ y", lambda x, y, W, t: W.T @ (x * y)),
        ("x/(1 + y^2)", lambda x, y, W, t: x / (1 + y**2)),
        ("(x + y)^2 - x^2 - y^2", lambda x, y, W, t: 2 * x * y),
        ("1 + 0*x", lambda x, y, W, t: np.ones_like(x)),
        ("x - x", lambda x, y, W, t: 0 * x),
        ("x^0", lambda x, y, W, t: x**0),
        ("exp(-x^2/2)", lambda x, y, W, t: np.exp(-(x**2) / 2)),
        ("x*mean(x)*sum(y)", lambda x, y, W, t: x * x.mean() * y.sum()),
        ("x - mean(x)", lambda x, y, W, t: x - x.mean()),
        ("x/sum(x^2)^(1/2)", lambda x, y, W, t: x / np.linalg.norm(x)),
        ("n^(-1/2)*x*t", lambda x, y, W, t: x * t / 7**0.5),
        ("x*n/n^2*pi", lambda x, y, W, t: np.pi * x / 7),
        ("softmax_1(x, y, 0)", lambda x, y, W, t: np.exp(y) / (np.exp(x) + np.exp(y) + 1)),
        ("sin(t)*x", lambda x, y, W, t: np.sin(t) * x),
        ("d_tanh(x)", lambda x, y, W, t: 1 / np.cosh(x) ** 2),
        ("diff_sin(x, y)", lambda x, y, W, t: np.sin(x + y) - np.sin(x)),
        ("hermite(x, 2)*leaky_relu(y, 1/5)", lambda x, y, W, t: None),
        ("mean((W - t*W) @ x * x)*y", lambda x, y, W, t: (1 - t) * (x @ W @ x) / 7 * y),
        ("abs(x)^(2/3)", lambda x, y, W, t: np.abs(x) ** (2 / 3)),
        ("sqrt(x^2)", lambda x, y, W, t: np.abs(x)),
    ],
)
def test_expressions_mean_what_numpy_means(text, meaning):
    p = parse(f"dim n\nmatrix W : n x n\nvector x, y : n\nscalar t = 2/3\nz = {text}")
    env = run(p, 7, np.random.default_rng(1))
    expected = meaning(env["x"], env["y"], env["W"], 2 / 3)
    assert expected is None or np.allclose(env["z"], expected)
    assert_round_trip(p)


def test_names_of_matrix_expressions():
    p = parse(
        "dim n\ndim m ~ 2*n\nmatrix A : m x n\nvector x : n\nvector y : m\n"
        "D = diag(y)\nG = A.T @ D @ A - A.T @ A/2\nz = G @ x"
    )
    env = run(p, 4, np.random.default_rng(0))
    A, y = env["A"], env["y"]
    assert np.allclose(env["z"], (A.T @ np.diag(y) @ A - A.T @ A / 2) @ env["x"])
    assert_round_trip(p)


def test_the_normalized_trace_is_probed():
    p = parse("dim n\ndim m ~ 2*n\nmatrix A : m x n\nt = mean(trace(A.T @ A))\noutput t")
    env = run(p, 400, np.random.default_rng(0))
    assert abs(env["t"] - np.trace(env["A"].T @ env["A"]) / 400) < 0.5
    assert_round_trip(p)


def test_one_line_per_polynomial_and_equal_lines_once():
    p = parse(
        "dim n\nmatrix W : n x n\nvector x, y : n\na = 2*W @ x - y*x/3 + (x + y)^2 - 1\nb = tanh(W @ x) - W @ x\n"
    )
    assert [type(line).__name__ for line in p.lines[3:]] == ["MatMul", "Nonlin", "Nonlin", "Nonlin"]


def test_unknown_exponents():
    p = parse("exponent alpha, beta\ndim n\nparam W : n x n\nvector x : n\n"
              "y = n^-alpha*x\nz = (n^2)^(alpha/2 - 2*beta + 1/2)*x/n\nw = n^(a[W] - c[W])*x\n")
    alpha, beta = Affine.symbol("alpha"), Affine.symbol("beta")
    assert p.unknowns == ("alpha", "beta")
    assert p.line_of("y").fn.terms[0][0] == Scale.power("n", -alpha)
    assert p.line_of("z").fn.terms[0][0] == Scale.power("n", alpha - 4 * beta)
    assert p.line_of("w").fn.terms[0][0] == Scale.power("n", Affine.symbol("a[W]") - Affine.symbol("c[W]"))
    assert_round_trip(p)


@pytest.mark.parametrize("name", sorted(market()))
def test_the_market_round_trips(name):
    assert_round_trip(market()[name])


@pytest.mark.parametrize("text", [LANGUAGE, NETWORK, "", "dim n", "# nothing\n\n"])
def test_texts_have_a_normal_form(text):
    assert_round_trip(parse(text))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_round_trip_and_run(seed):
    p = random_program(np.random.default_rng(seed), steps=12, powers=seed % 2 == 0)
    assert_round_trip(p)
    env = run(p, 64, np.random.default_rng(seed))
    assert all(np.all(np.isfinite(x)) and np.max(np.abs(x), initial=0) < 1e9 for x in env.values())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(programs(powers=True))
def test_programs_of_the_strategy_round_trip(program):
    assert_round_trip(program)
    program.verify()


@pytest.mark.parametrize(
    "name", ["h@1", "dW#2.x", "mean", "dim", "a b", "é", "λ1", "2x", "x.T", "diff_tanh", "x", "N", "T"]
)
def test_every_name_can_be_spelled(name):
    p = Program()
    x = p.vector(name, p.dim("n"))
    p.output(p.let(name + "'", x * 2))
    assert_round_trip(p)


def test_words_that_are_plain_and_words_that_are_not():
    assert [quoted(x) for x in ("x_1", "λ", "sum", "1x")] == ["x_1", "λ", "`sum`", "`1x`"]


@pytest.mark.parametrize(
    "fn, args",
    [
        (Softmax(3, 2), "xyz"),
        (Softmax(2, 0, (0, 1)), "xy"),
        (Diff(nonlinearity("tanh")), "xy"),
        (Diff(Softmax(2, 1)), "xyzw"),
        (nonlinearity("hermite", 3), "x"),
        (nonlinearity("d2_gelu"), "x"),
        (nonlinearity("power", Fraction(-3, 2)), "x"),
        (nonlinearity("leaky_relu", Fraction(1, 5)).partial(0), "x"),
        (Diff(nonlinearity("hermite", 2)), "xy"),
        (Poly(2, ((ONE, (1, 1)), (Scale(sympy.sqrt(2) + 1, ()), (2, 0)), (Scale.power("n", -1), (0, 0)))), "xy"),
        (Poly(2, ((-ONE, (1, 0)), (Scale(1 + sympy.pi) * Scale.power("n", Fraction(-1, 2)), (0, 3)))), "xy"),
        (Poly(1, ()), "x"),
        (Poly(1, ((ONE, (0,)),)), "x"),
        (Poly(1, ((ONE, (1,)),)), "x"),
        (Poly(1, ((-ONE, (1,)),)), "x"),
    ],
)
def test_every_function_is_spelled(fn, args):
    p = Program()
    n = p.dim("n")
    for a in "xyzw":
        p.vector(a, n)
    p.add(Nonlin("out", fn, tuple(args)))
    assert_round_trip(p)


def test_what_has_no_words_is_refused():
    p = Program()
    n = p.dim("n")
    x = p.vector("x", n)
    p.add(Outer("dW", object(), ((("x", "x"),),)))
    with pytest.raises(NotCoveredError, match="no optimizer steps"):
        to_text(p)
    q = Program()
    x = q.vector("x", q.dim("n"))
    q.add(Nonlin("y", Multivariate.from_callable(lambda u, v: u * v, 2, "mine"), (x.name, x.name)))
    with pytest.raises(NotCoveredError, match="no word for this function"):
        to_text(q)
    r = Program()
    r.vector("alpha", r.dim("n"))
    r.unknowns = ("alpha",)
    with pytest.raises(NotCoveredError, match="name of a dimension or exponent"):
        to_text(r)


def test_a_law_of_its_own_is_kept_for_a_parameter():
    p = Program()
    m = p.dim("m", factor=2)
    p.param("W", m, m, a=0)
    p.dim("n")  # declared later: the law above is in powers of m
    assert "~ N(0, m^(-2*b[W]))" in to_text(p)
    assert_round_trip(p)


def test_temporaries_do_not_take_the_names_of_later_lines():
    p = parse("dim n\nmatrix W : n x n\nvector x : n\ny = tanh(W @ x)\n_1 = x + 1\nz = tanh(W.T @ x)\n")
    assert p.line_of("_1").fn.arity == 1
    assert_round_trip(p)
