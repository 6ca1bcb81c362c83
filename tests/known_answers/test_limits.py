"""Published and derived limits: exact cases equal symbolically, numeric ones to the stated tolerance."""

import json
import math
from fractions import Fraction as F
from pathlib import Path

import pytest
import sympy
from sympy import Rational as R

from tensorprog.atoms.optimizers import optimizer
from tensorprog.finite.limit import limit
from tensorprog.interp.unroll import unroll
from tensorprog.nets import mlp
from tensorprog.program.build import function
from tensorprog.program.instructions import Data
from tensorprog.program.program import Program
from tensorprog.program.text import parse
from tensorprog.scaling.assign import assign

tanh = function("tanh")
PROGRAMS = json.loads((Path(__file__).parent / "programs.json").read_text())


def assert_equal(found, exact):
    """The closed form of a limit is this expression, by algebra; and the value is its value."""
    assert found.method == "exact", found
    difference = (found.exact - exact).rewrite(sympy.exp)
    assert sympy.simplify(sympy.expand(difference)) == 0, (found.exact, exact)
    assert found.value == pytest.approx(float(exact), abs=1e-12)


def limits(text, names, **options):
    p = parse(text)
    return [p.limit(name, **options) for name in names.split()]


def written(program) -> str:
    lines = ["dim n", *(f"matrix {m} : n x n ~ N(0, 1/n)" for m in program["matrices"])]
    laws = {x: "= 1" if law == "ones" else f"~ {law}" for x, law in program["init"].items()}
    lines += [f"vector {x} : n {law}" for x, law in laws.items()]
    lines += [f"scalar {s} = {v}" for s, v in program["scalars"].items()]
    for name, kind, *what in program["code"]:
        lines.append(f"{name} = " + (f"{what[0]} @ {what[1]}" if kind == "MatMul" else
                                     f"mean({what[0]})" if kind == "Moment" else what[0]))
    return "\n".join(lines + [f"q{i} = mean({m['expr']})" for i, m in enumerate(program["moments"])])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p["id"])
def test_known_programs(program):
    p = parse(written(program))
    for i, moment in enumerate(program["moments"]):
        found = p.limit(f"q{i}")
        assert_equal(found, sympy.sympify(moment["exact"]))  # the reference's text, not a user's
        if moment["naive_GIA"] not in (None, moment["exact"]):
            assert abs(found.value - float(sympy.sympify(moment["naive_GIA"]))) > 1e-3 or \
                sympy.sympify(moment["naive_GIA"]) == sympy.sympify(moment["exact"])


Y = "dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ {phi}\ns = mean(x*y)\nt = mean(y*y)"
THIRD = sympy.sqrt(3 * sympy.pi)


@pytest.mark.parametrize(("phi", "dot", "square"), [
    ("(W @ x)", 1, 1),
    ("relu(W @ x)", R(1, 2), R(1, 2)),
    ("erf(W @ x)", 2 / THIRD, 2 / sympy.pi * sympy.asin(R(2, 3))),
    ("sin(W @ x)", sympy.exp(-R(1, 2)), sympy.exp(-1) * (sympy.E - sympy.exp(-1)) / 2),
    ("sign(W @ x)", sympy.sqrt(2 / sympy.pi), 1),
    ("square(W @ x)", 0, 3),
])
def test_transpose_after_nonlinearity(phi, dot, square):
    """y = W^T phi(W x): <x, y> = E phi', <y, y> = E phi^2 + (E phi')^2."""
    s, t = limits(Y.format(phi=phi), "s t")
    assert_equal(s, sympy.sympify(dot))
    assert_equal(t, square + sympy.sympify(dot) ** 2)


def test_transpose_after_tanh_by_quadrature():
    s, t = limits(Y.format(phi="tanh(W @ x)"), "s t")
    assert (s.method, t.method, s.exact) == ("quadrature", "quadrature", None)
    assert s.value == pytest.approx(0.6057055096021519, abs=1e-10) and s.error < 1e-10
    assert t.value == pytest.approx(0.7611736547602506, abs=1e-10)


@pytest.mark.parametrize(("text", "names", "exact"), [
    ("vector one : n = 1\ny = W.T @ relu(W @ one)\nm = mean(y)\ns = mean(y*y)", "m s", [R(1, 2), R(3, 4)]),
    ("vector x : n\nh = W @ x\nz = W @ (W.T @ h)\ns = mean(z*z)\nt = mean(z*h)", "s t", [5, 2]),
    ("vector u : n\nvector one : n = 1\nz = W @ cos(W.T @ u + one)\ns = mean(u*z)\nt = mean(z*z)", "s t",
     [-sympy.exp(-R(1, 2)) * sympy.sin(1),
      (1 + sympy.exp(-2) * sympy.cos(2)) / 2 + sympy.exp(-1) * sympy.sin(1) ** 2]),
    ("vector h1 : n\nx1 = h1**2/2\nd = (W.T @ (W @ x1))*h1\ns = mean(d*d)", "s", [R(9, 2)]),
    ("vector x, v : n ~ N(0, [[1, 0], [0, 1]])\nd = W.T @ (v*step(W @ x))\ns = mean(d*d)\nt = mean(d*x)", "s t",
     [R(1, 2), 0]),
])
def test_gradient_independence_fails_or_holds(text, names, exact):
    for found, value in zip(limits("dim n\nmatrix W : n x n\n" + text, names), exact, strict=True):
        assert_equal(found, sympy.sympify(value))


def test_tied_autoencoder_of_ratio_one_half():
    s, t = limits("dim n\ndim m ~ 1/2*n\nmatrix W : m x n ~ N(0, 1/n)\nvector x : n\ny = W.T @ relu(W @ x)\n"
                  "s = mean(x*y)\nt = mean(y*y)", "s t")
    assert_equal(s, R(1, 4))
    assert_equal(t, R(5, 16))


def powers(matrix: str, k: int) -> str:
    return "\n".join(f"m{j} = mean(trace({' @ '.join([matrix] * j)}))" for j in range(1, k + 1))


def test_semicircle_marchenko_pastur_and_products():
    semicircle = "dim n\nmatrix W : n x n ~ N(0, 1/n)\nvector x : n\ny0 = x\n" + "\n".join(
        f"y{k} = (W @ y{k - 1} + W.T @ y{k - 1})/sqrt(2)\nm{k} = mean(x*y{k})" for k in range(1, 9))
    for k, exact in zip((2, 3, 4, 6, 8), (1, 0, 2, 5, 14), strict=True):
        assert_equal(parse(semicircle).limit(f"m{k}"), sympy.Integer(exact))
    for found, exact in zip(limits("dim n\nmatrix W : n x n\n" + powers("W.T @ W", 4), "m1 m2 m3 m4"), (1, 2, 5, 14),
                            strict=True):
        assert_equal(found, sympy.Integer(exact))
    a = sympy.Symbol("a", positive=True)
    narayana = [a, a + a**2, a + 3 * a**2 + a**3, a + 6 * a**2 + 6 * a**3 + a**4]
    text = "dim n\ndim m ~ 1/2*n\nmatrix W : m x n ~ N(0, 1/n)\n" + powers("W.T @ W", 4)
    for k, exact in enumerate(narayana, 1):
        assert sympy.expand(parse(text).limit(f"m{k}", ratios={"m": a}).exact - exact) == 0
        assert_equal(parse(text).limit(f"m{k}"), exact.subs(a, R(1, 2)))
    product = "dim n\nmatrix A : n x n\nmatrix B : n x n\n" + powers("B.T @ A.T @ A @ B", 3)
    for found, exact in zip(limits(product, "m1 m2 m3"), (1, 3, 12), strict=True):
        assert_equal(found, sympy.Integer(exact))


def test_weights_are_free_of_their_own_activations():
    text = "dim n\nmatrix W : n x n\nvector x : n\nh = W @ x\nd = step(h)\n" + powers("W.T @ diag(d) @ W", 4)
    for found, exact in zip(limits(text, "m1 m2 m3 m4"), (R(1, 2), R(3, 4), R(11, 8), R(45, 16)), strict=True):
        assert_equal(found, exact)


def test_two_layer_relu_kernel_and_its_diagonal():
    """The NNGP of a relu network, sigma_w^2 = 2: K(x, x) stays; off the diagonal as published."""
    text = """
dim n
dim d = 4
matrix U : n x d ~ N(0, 1/2)
matrix W : n x n ~ N(0, 2/n)
input x : d = [1, 0, 1, -1]
input y : d = [1/2, 1, 0, 1]
a = W @ relu(U @ x)
b = W @ relu(U @ y)
q1 = 2*mean(relu(a)*relu(a))
q2 = 2*mean(relu(a)*relu(b))
q3 = 2*mean(relu(b)*relu(b))"""
    found = limits(text, "q1 q2 q3")
    assert [q.value for q in found] == pytest.approx([1.5, 0.5723803353784849, 1.125], abs=1e-12)
    assert [q.method for q in found] == ["exact"] * 3


def test_recurrent_network_with_shared_weights():
    text = """
dim n
dim d = 2
matrix W : n x n ~ N(0, 6/5/n)
matrix U : n x d ~ N(0, 1/2)
vector b : n ~ N(0, 1/10)
input e1 : d = [1, 0]
input e2 : d = [0, 1]
s1 = erf(U @ e1 + b)
s2 = erf(W @ s1 + U @ e2 + b)
s3 = erf(W @ s2 + U @ e1 + U @ e2 + b)
""" + "\n".join(f"k{i}{j} = mean(s{i}*s{j})" for i in (1, 2, 3) for j in (1, 2, 3) if i <= j)
    found = limits(text, "k11 k12 k13 k22 k23 k33")
    assert [k.value for k in found] == pytest.approx(
        [0.3672859016761556, 0.04894932136120253, 0.2541240484816183, 0.4721281572009205, 0.23482091975905287,
         0.5587087186647488], abs=1e-9)


def test_attention_with_logits_over_d():
    text = """
dim n
matrix Q : n x n
matrix K : n x n
vector x, y : n ~ N(0, [[1, 3/10], [3/10, 1]])
one = mean((Q @ x)*({k} @ x))
two = mean((Q @ x)*({k} @ y))
a = exp(one)/(exp(one) + exp(two))
out = a*x + (1 - a)*y
q = mean(out*out)"""
    (tied,) = limits(text.replace("{k}", "Q"), "q")
    assert tied.value == pytest.approx(0.6896019773896475, abs=1e-12)
    (untied,) = limits(text.replace("{k}", "K"), "q")
    assert_equal(untied, R(65, 100))


# ------------------------------------------------------------------------------------------------ training


def trained(depth, activation, eta, steps, *, rule="sgd", parametrization="mup"):
    """Return f_0, ..., f_T of an MLP on the sample (xi, y) = (1, 1)."""
    network = mlp(depth=depth, activation=activation, d_in=1)
    run = unroll(network, rule, steps=steps, batch=[{"xi": Data(values=(F(1),))}], lr=F(eta))
    values = assign(network, parametrization, optimizer(rule))
    return [limit(run.program, f"f@{t}", values=values, data={"target.f": [1]}) for t in range(steps + 1)]


@pytest.mark.parametrize(("depth", "eta", "exact"), [
    (1, F(1, 4), ["0", "1/2", "99/128", "30612411/33554432", "586061202112696984940739/604462909807314587353088"]),
    (1, F(1, 2), ["0", "1", "1"]),
    (2, F(1, 4), ["0", "3/4", "65345/65536", "77406838775220181866406847/77371252455336267181195264"]),
    (2, F(1, 7), ["0", "3/7"]),
    (3, F(1, 4), ["0", "1"]),
    (4, F(1, 4), ["0", "5/4"]),
])
def test_feature_learning_of_linear_networks_in_rationals(depth, eta, exact):
    found = trained(depth, "identity", eta, len(exact) - 1)
    assert [F(str(f.exact)) for f in found] == [F(x) for x in exact]


def test_decoupled_backpropagation_is_another_limit():
    """An independent copy of W^T in the backward pass, as gradient independence has it: f_1 = 2 eta, not 3 eta."""
    text = """
dim n
vector U : n
vector V : n
matrix W : n x n
matrix C : n x n
x1 = U
h0 = W @ x1
f0 = mean(V*h0)
chi = f0 - 1
b = C.T @ V
U1 = U - 1/4*chi*b
V1 = V - 1/4*chi*h0
h1 = W @ U1 - 1/4*chi*V*mean(x1*U1)
f1 = mean(V1*h1)"""
    assert_equal(parse(text).limit("f1"), R(1, 2))


@pytest.mark.parametrize("eta", [F(1, 2), F(1), F(2)])
def test_feature_learning_of_a_relu_network(eta):
    (_, f1) = trained(1, "relu", eta, 1)
    x = R(eta.numerator, eta.denominator)
    exact = x * (sympy.pi - sympy.atan(x)) / sympy.pi + x**2 / (2 * sympy.pi)
    assert f1.method == "exact"
    assert f1.value == pytest.approx(float(exact), abs=1e-12)
    assert abs(sympy.N(f1.exact - exact, 40)) < 1e-35


def test_feature_learning_of_a_tanh_network():
    found = trained(1, "tanh", F(1), 3)
    values = [0.0, 0.7081913462324176, 0.8995888827380969, 0.9688575972705749]
    assert [f.value for f in found] == pytest.approx(values, abs=1e-6)
    assert all(f.method == "quadrature" and f.error < 1e-10 for f in found[1:])


def test_sign_descent_of_a_linear_network():
    (_, f1) = trained(1, "identity", F(3, 10), 1, rule="signsgd")
    assert_equal(f1, 2 * R(3, 10) * sympy.sqrt(2 / sympy.pi))


def test_kernel_regime_of_a_relu_network():
    """f_t = 1 - (1 - eta)^t (1 - f_0) with f_0 ~ N(0, 1/2): a Gaussian whose mean and variance follow."""
    for t, f in enumerate(trained(1, "relu", F(3, 10), 3, parametrization="ntp")):
        assert f.kind == "gaussian"
        assert f.value == pytest.approx(1 - 0.7**t, abs=1e-12)
        assert f.variance == pytest.approx(0.7 ** (2 * t) / 2, abs=1e-12)


def test_identical_features_stay_identical():
    """No Gaussian matrix: no hats, no dots, every Z a constant; the width drops out."""
    p = Program()
    n = p.dim("n")
    W, u = p.matrix("W", n, n, mean=n**-1, variance=0), p.vector("u", n, mean=F(1, 2), variance=0)
    x = tanh(W @ tanh(u))
    k = p.limit(p.mean(x * x))
    assert k.value == pytest.approx(math.tanh(math.tanh(0.5)) ** 2, abs=1e-14)
