"""The Python surface: what operators write, and how they refuse."""

from fractions import Fraction

import numpy as np
import pytest
import sympy

import tensorprog.program.build as build
from tensorprog.errors import ProgramError, TensorProgError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import Scale
from tensorprog.program.build import apply, diag, relu, tanh, trace
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import Constant, Data, Input, MatMul, Moment, Nonlin, Outer
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell
from tensorprog.program.text import parse, to_text
from tensorprog.testing import assert_round_trip, market, random_program

from .naive import run


@pytest.fixture
def p():
    return Program()


@pytest.fixture
def world(p):
    n = p.dim("n")
    return p, n, p.matrix("W", n, n), p.vector("x", n), p.vector("y", n), p.scalar("t", Fraction(1, 3))


def test_the_first_example_of_the_documentation(world):
    p, n, W, x, y, t = world
    s = p.mean((W.T @ relu(W @ x)) * x)
    p.output(s)
    assert [spell(line) for line in p.lines[4:]] == [
        "_1 = W @ x",
        "_2 = relu(_1)",
        "_3 = W.T @ _2",
        "_4 = mean(_3 * x)",
    ]


def test_a_polynomial_is_one_line_however_many_operators(world):
    p, n, W, x, y, t = world
    z = p.let("z", 2 * x - y * x / 3 + t * (x + y) * (x - y) - n ** Fraction(-1, 2) * y + 1)
    assert len(p.lines) == 5
    env = run(p, 9, np.random.default_rng(0))
    a, b = env["x"], env["y"]
    assert np.allclose(env[z.name], 2 * a - a * b / 3 + (a + b) * (a - b) / 3 - b / 3 + 1)


def test_equal_lines_are_written_once(world):
    p, n, W, x, y, t = world
    first, second = tanh(W @ x), tanh(W @ x)
    assert first.name == second.name
    assert (W @ x).name == (W @ x).name != (W.T @ x).name
    assert p.mean(x * y).name == p.mean(x * y).name
    assert p.let("again", W @ x).name == "again"  # a name asked for is a line of its own


def test_large_products_are_not_multiplied_out(world):
    p, n, W, x, y, t = world
    z = x + y + 1
    for _ in range(40):
        z = z * (x - y + t)
    z.named("z")
    assert len(p.lines) < 60
    assert all(len(line.fn.terms) <= build.MAX_TERMS for line in p.lines if isinstance(line, Nonlin))
    env = run(p, 3, np.random.default_rng(0))
    assert np.allclose(env["z"], (env["x"] + env["y"] + 1) * (env["x"] - env["y"] + 1 / 3) ** 40)


def test_sums_products_and_diagonals_of_matrices(world):
    p, n, W, x, y, t = world
    A = (W + W.T) / sympy.sqrt(2)
    p.let("a", A @ x)
    p.let("b", (A @ diag(y) @ W - 2 * W) @ x)
    p.let("c", (t * W).T @ x)
    p.let("d", p.mean(trace(W @ W.T)))
    env = run(p, 6, np.random.default_rng(0))
    w, u, v = env["W"], env["x"], env["y"]
    sym = (w + w.T) / 2**0.5
    assert np.allclose(env["a"], sym @ u)
    assert np.allclose(env["b"], sym @ (v * (w @ u)) - 2 * w @ u)
    assert np.allclose(env["c"], w.T @ u / 3)
    assert_round_trip(p)


def test_division_and_powers(world):
    p, n, W, x, y, t = world
    p.let("a", x / y)
    p.let("b", 1 / (1 + x**2))
    p.let("c", (x * x) ** Fraction(3, 2))
    p.let("d", t ** Fraction(1, 2) * x / t)
    p.let("e", x**0)
    env = run(p, 6, np.random.default_rng(0))
    u, v = env["x"], env["y"]
    for name, value in {"a": u / v, "b": 1 / (1 + u**2), "c": np.abs(u) ** 3, "d": u * 3**0.5, "e": 1 + 0 * u}.items():
        assert np.allclose(env[name], value)
    assert_round_trip(p)


def test_dimensions_make_coefficients():
    n, m = Dim("n"), Dim("m", 1, 2)
    assert n**-1 == 1 / n == Scale.power("n", -1)
    assert n * m / n == Scale.power("m", 1)
    assert 3 * n == n * 3 == Scale.power("n", 1) * 3
    assert n / 2 * Fraction(2) == n * 1
    assert n ** -Affine.symbol("alpha") == Scale.power("n", -Affine.symbol("alpha"))
    with pytest.raises(ProgramError, match=r"write Fraction\(1, 2\)"):
        n**0.5


def test_coefficients_on_the_left_reach_the_handle(world):
    p, n, W, x, y, t = world
    for c in (
        n ** Fraction(-1, 2),
        n,
        Fraction(1, 2),
        3,
        sympy.sqrt(2),
        sympy.pi,
        np.int64(2),
        Scale.power("n", -1),
        t,
    ):
        assert isinstance(c * x, build.Vector)
        assert (c * x).named(p.fresh("z")).type == x.type
        assert isinstance(c * W, build.Matrix)


@pytest.mark.parametrize("wrong, message", [
    (lambda p, n, W, x, y, t: 0.1 * x, r"write Fraction\(1, 10\)"),
    (lambda p, n, W, x, y, t: x + 0.5, r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: x * 2.0, r"write 2"),
    (lambda p, n, W, x, y, t: x * float("nan"), "finite exact number"),
    (lambda p, n, W, x, y, t: x ** 0.5, r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: np.float64(0.5) * x, r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: np.float32(0.5) * x, r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: x * sympy.Float("0.5"), r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: x * sympy.sin(1), "no exact spelling"),
    (lambda p, n, W, x, y, t: x * sympy.I, "no exact spelling"),
    (lambda p, n, W, x, y, t: x * sympy.oo, "no exact spelling"),
    (lambda p, n, W, x, y, t: x * True, "is a number"),
    (lambda p, n, W, x, y, t: x * "2", "is an exact number"),
    (lambda p, n, W, x, y, t: x * np.ones(3), "is an exact number"),
    (lambda p, n, W, x, y, t: x / 0, "division by zero"),
    (lambda p, n, W, x, y, t: x @ y, r"mean\(x \* y\)"),
    (lambda p, n, W, x, y, t: x @ W, "the left side of @ is a matrix"),
    (lambda p, n, W, x, y, t: x * W @ y, r"in parentheses: x \* \(W @ v\)"),
    (lambda p, n, W, x, y, t: W * x, "write W @ x"),
    (lambda p, n, W, x, y, t: W + x, "is a matrix, not a vector"),
    (lambda p, n, W, x, y, t: W @ t, "the right side of @ is a vector"),
    (lambda p, n, W, x, y, t: W**2, "write W @ W"),
    (lambda p, n, W, x, y, t: relu(W), "is a matrix, not a vector"),
    (lambda p, n, W, x, y, t: relu(1), "no argument is a variable"),
    (lambda p, n, W, x, y, t: relu(x, x), "rational"),
    (lambda p, n, W, x, y, t: p.mean(t), "mean takes a vector"),
    (lambda p, n, W, x, y, t: p.sum(1), "sum takes a vector"),
    (lambda p, n, W, x, y, t: p.let("W2", W), "only vectors and scalars are lines"),
    (lambda p, n, W, x, y, t: (W + W).name, "this matrix is not a variable"),
    (lambda p, n, W, x, y, t: trace(x), "square matrix"),
    (lambda p, n, W, x, y, t: diag(t), "diag takes a vector"),
    (lambda p, n, W, x, y, t: x**65, "powers go up to"),
    (lambda p, n, W, x, y, t: x**x, "exact number"),
    (lambda p, n, W, x, y, t: x ** sympy.sqrt(2), "a rational number"),
    (lambda p, n, W, x, y, t: x + p.vector("v", p.dim("m", factor=2)), "one runs along n, the other along m"),
    (lambda p, n, W, x, y, t: x + Program().vector("v", n), "not declared"),
    (lambda p, n, W, x, y, t: p.vector("x", n), "taken already"),
    (lambda p, n, W, x, y, t: p.vector("v", "n"), "an axis is a dimension"),
    (lambda p, n, W, x, y, t: p.vector("v", n, variance=-1), "not negative"),
    (lambda p, n, W, x, y, t: p.vectors("a b", n, covariance=[[1, 2], [2, 1]]), "semidefinite"),
    (lambda p, n, W, x, y, t: p.vectors("a b", n, covariance=[[1]]), "2 x 2 covariance"),
    (lambda p, n, W, x, y, t: p.vectors("a b", n, covariance=[[1, sympy.sqrt(2)], [sympy.sqrt(2), 1]]), "semidefinite"),
    (lambda p, n, W, x, y, t: p.vector("v", n, variance=1 - sympy.sqrt(2)), "not negative"),
    (lambda p, n, W, x, y, t: p.data("a", n), "fixed size"),
    (lambda p, n, W, x, y, t: p.data("a", p.dim("d", 2), values=[1, 0.5]), r"write Fraction\(1, 2\)"),
    (lambda p, n, W, x, y, t: p.param("V", n, n, a="half"), "not a rational number"),
    (lambda p, n, W, x, y, t: p.param("V", n, n, init="two"), "init=zero"),
    (lambda p, n, W, x, y, t: p.exponent("x"), "taken already"),
    (lambda p, n, W, x, y, t: p.output("zz"), "no such variable"),
    (lambda p, n, W, x, y, t: p["zz"], "no such variable"),
    (lambda p, n, W, x, y, t: p.freeze().let("z", x + 1), "the program is frozen"),
    (lambda p, n, W, x, y, t: apply("rellu", x), "did you mean relu"),
])
def test_what_does_not_fit_is_refused(world, wrong, message):
    with pytest.raises(TensorProgError, match=message) as caught:
        wrong(*world)
    assert caught.value.fix


def test_handles_of_two_programs_do_not_mix(world):
    p, n, W, x, y, t = world
    q = Program()
    z = q.vector("z", q.dim("n"))
    with pytest.raises(ProgramError, match="two programs"):
        x + z
    with pytest.raises(ProgramError, match="two programs"):
        W @ z


def test_a_matrix_of_one_column_stands_for_a_vector(p):
    n, one = p.dim("n"), p.dim("one", 1)
    W, b, x = p.matrix("W", n, n), p.param("b", n, one, a=0, b=0), p.vector("x", n)
    p.let("h", W @ x + b)
    p.let("g", tanh(b) * b)
    env = run(p, 5, np.random.default_rng(0))
    assert np.allclose(env["h"], env["W"] @ env["x"] + env["b"][:, 0])
    assert np.allclose(env["g"], np.tanh(env["b"][:, 0]) * env["b"][:, 0])
    assert sum(isinstance(line, Input) and line.law == Constant() for line in p.lines) == 1


def test_declarations(p):
    n, d = p.dim("n"), p.dim("d", 2)
    p.vectors("u v", n, covariance=[[1, 0], [0, 2]], means=[0, sympy.sqrt(2)])
    p.constant("c", n, value=Fraction(1, 2))
    p.data("xi", d, values=[1, "1/2"])
    p.data("tok", d, onehot=1)
    p.param("W", n, d, a=0, b="1/2", c=1, role="input", trainable=False)
    alpha = p.exponent("alpha")
    p.let("y", n**-alpha * p["u"])
    p.let("k", 3 * n)
    assert p.line_of("xi").law == Data((Fraction(1), Fraction(1, 2)))
    assert p.line_of("k") == Input("k", p.type_of("k"), Constant(3 * n))
    assert_round_trip(p)


def test_moments_take_scalars_and_coefficients_to_the_front(world):
    p, n, W, x, y, t = world
    p.let("a", p.mean(3 * t * x * y))
    p.let("b", p.sum(x * x * y))
    p.let("c", p.mean(x + y))
    p.let("d", p.sum(0 * x + 2))
    assert [line.args for line in p.lines if isinstance(line, Moment)][:2] == [("x", "y"), ("x", "x", "y")]
    env = run(p, 6, np.random.default_rng(0))
    u, v = env["x"], env["y"]
    assert np.allclose([env[k] for k in "abcd"], [(u * v).mean(), (u * u * v).sum(), (u + v).mean(), 12])


def test_functions_by_name(world):
    p, n, W, x, y, t = world
    assert build.hermite(x, 3).named("h").type == x.type
    assert spell(p.line_of("h")) == "h = hermite(x, 3)"
    assert build.function("tanh").__name__ == "tanh"
    with pytest.raises(AttributeError, match="rellu"):
        build.rellu  # noqa: B018
    assert apply("softmax_1", x, y, 0).named("s").type == x.type


def test_lines_of_other_authors_are_reused(world):
    p, n, W, x, y, t = world
    p.add(MatMul("mine", "W", "x"))
    assert (W @ x).name == "mine"


def test_the_core_is_checked_line_by_line(p):
    n, m = p.dim("n"), p.dim("m", factor=2)
    p.matrix("B", m, n)
    p.vector("x", n)
    for bad in (
        MatMul("y", "B", "x", True),
        MatMul("y", "x", "x"),
        MatMul("y", "B", "B"),
        Moment("y", ()),
        Moment("y", ("B",)),
        Nonlin("y", Poly.product(2), ("x",)),
        Nonlin("y", Poly.linear([1]), ("B",)),
        MatMul("x", "B", "x"),
        Outer("y", None, ()),
        MatMul("y", "B", "zz"),
    ):
        with pytest.raises(ProgramError):
            p.add(bad)
    assert p.names == ("B", "x")
    p.verify()


@pytest.mark.parametrize(
    "program", [*market().values(), *(random_program(np.random.default_rng(s)) for s in range(5))], ids=repr
)
def test_programs_copy_compare_and_freeze(program):
    again = program.copy()
    assert again == program
    assert hash(again) == hash(program)
    assert not again.is_frozen
    assert again.verify() is again
    again.vector("one_more", again.add_dim(Dim("n")))
    assert again != program


def test_scalars_without_variables_are_constants(world):
    p, n, W, x, y, t = world
    p.let("k", apply("sin", t) * 0 + n**2)
    assert to_text(p).splitlines()[-1] == "scalar k = n^2"
    assert parse(to_text(p)) == p
