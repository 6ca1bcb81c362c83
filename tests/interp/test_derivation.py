"""Derivations: the words are those of the papers, helper lines do not show, and the LaTeX is LaTeX."""

import re

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

import tensorprog as tp
from tensorprog.interp.derivation import derivation
from tensorprog.interp.limit import Limits
from tensorprog.interp.notation import Writer

THREE = """
dim n
matrix W : n x n
vector x : n
h = W @ x
u = relu(h)
y = W.T @ u
v = relu(y)
z = W @ v
a = mean(z * z)
"""

#: What has to be sayable: a name and a program each, every rule and every kind of row among them.
PROGRAMS = {
    "three uses of relu": (THREE, "a"),
    "nothing has a name": ("dim n\nmatrix W : n x n\nvector x : n\ns = mean((W.T @ relu(W @ x)) * (x + W @ x))", "s"),
    "a trace": ("dim n\nmatrix W, g : n x n\nt = mean(trace(W.T @ g @ W.T @ W @ g.T @ W))", "t"),
    "a trace of both": ("dim n\nmatrix W : n x n\nt = mean(trace((W + W.T) @ (W + W.T)))", "t"),
    "a jump": ("dim n\nmatrix W : n x n ~ N(0, 2/n)\nvector x : n\ns = mean(x * (W.T @ sign(W @ x)))", "s"),
    "no closed form": ("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ tanh(W @ x)\ns = mean(y * y)", "s"),
    "a rectangle": ("dim n\ndim m ~ 3*n\nmatrix W : m x n ~ N(0, 1/n)\nvector x : n\n"
                    "s = mean((W.T @ relu(W @ x)) * x)", "s"),
    "central limit": ("dim n\nmatrix W : n x n\nvector x, v : n\nf = sum(v * relu(W @ x)) / n^(1/2)", "f"),
    "a small weight": ("dim n\nvector x : n\nvector v : n ~ N(0, 4/n^2)\nf = sum(v * x)*3", "f"),
    "two outputs": ("dim n\nvector x, v : n\nf = sum(v * x) / n^(1/2)\ng = sum(v * x**2) / n^(1/2)\nk = f + 2*g", "k"),
    "powers of n": ("dim n\nmatrix W : n x n ~ N(0, 1)\nvector x : n\nh = relu(W @ x)\nq = mean(h * h)/n", "q"),
    "given together": ("dim n\nvector u, v : n ~ N([1, 0], [[1, 1/2], [1/2, 1]])\ns = mean(u * v * relu(u))", "s"),
    "the same again": ("dim n\nmatrix W : n x n\nvector x : n\na = W @ x\nb = a + W @ (2*x)\ns = mean(a * b)", "s"),
    "long lines": ("dim n\nmatrix W : n x n\nvector first, second : n\n"
                   "s = mean(relu(W @ tanh(first + 2*second - first*second + 3*first**2)))", "s"),
    "columns": ("dim n\ndim d = 2\nmatrix U : n x d ~ N(0, 1)\nmatrix W : n x n\ninput xi : d = [1, 2]\n"
                "q = mean(relu(W @ relu(U @ xi))**2)", "q"),
    "data": ("dim n\ndim d = 2\nmatrix U : n x d ~ N(0, 1)\ninput xi : d = [3.14159265358979, 1/3]\n"
             "q = mean(relu(U @ xi)**2)", "q"),
    "no dot": ("dim n\nmatrix W : n x n\nvector x, v : n\nh = W @ x\ny = W.T @ (v * step(h))\nq = mean(y * y)", "q"),
    "strange names": ("dim n\nmatrix W_out : n x n\nvector x_1_b : n\nalpha = W_out @ x_1_b\nq = mean(alpha**2)", "q"),
    "a vector": (THREE, "z"),
    "derivatives": ("dim n\nvector x : n\ny = d_tanh(x) + d2_tanh(x)*x\nq = mean(y * y)", "q"),
}
KNOWN = {"in", "mathbb", "text", "mathcal", "left", "right", "hat", "dot", "mathring", "quad", "frac", "top", "sim",
         "sqrt", "operatorname", "mathrm", "partial", "odot", "approx", "times", "tanh", "mathtt", "alpha", "pi", "xi",
         "log", "exp", "erf", "sin", "cos", "theta", "{", "}", ",", "_"}


def limits(text):
    return Limits(tp.parse(text))


def told(text, name, format="text"):
    return derivation(limits(text), name, format)


@pytest.mark.parametrize("case", PROGRAMS)
def test_helper_lines_do_not_show(case):
    text, name = PROGRAMS[case]
    found = limits(text)
    helpers = [x for x in found.program.names if re.fullmatch("_[a-z0-9]*[0-9]", x)]
    words = "\n".join(derivation(found, name))
    for helper in helpers:
        assert not re.search(rf"(?<!\w){helper}(?!\w)", words), words
    latex = "\n".join(derivation(found, name, "latex"))
    assert not re.search(r"(?<!\w)\\_[0-9]|tilde", latex), latex


def assert_latex(row):
    depth = 0
    for sign in re.findall(r"\\.|[{}]", row):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0, row
    assert depth == 0, row
    assert row.count(r"\left") == row.count(r"\right"), row
    assert set(re.findall(r"\\([A-Za-z]+|.)", row)) <= KNOWN, row
    parser = MathTextParser("agg")
    for part in row.split("&&"):
        if part.strip():
            parser.parse(f"${part}$")


@pytest.mark.parametrize("case", PROGRAMS)
def test_latex_compiles(case):
    text, name = PROGRAMS[case]
    rows = told(text, name, "latex")
    assert all(row.count("&&") == 1 for row in rows)
    for row in rows:
        assert_latex(row)


@pytest.mark.parametrize("row", ["x}", r"\frac{1}{2", r"\left(x", r"\nosuch x", "x^1^2"])
def test_latex_that_does_not_compile_is_seen(row):
    with pytest.raises((AssertionError, ValueError)):
        assert_latex(row)


def test_the_whole_story():
    """Derived by hand: Var Zhat^z = E relu(Z^y)^2 = 3/8, Cov = E[relu(Z^y) Z^x] = 1/4, and a dot from y."""
    assert told(THREE, "a") == [
        "W : n x n       entries N(0, 1/n)",
        "x               Z^x ~ N(0, 1)",
        "h = Wx          Z^h = Ẑ^h ~ N(0, 1), variance E[(Z^x)^2]",
        "u = relu(h)     Z^u = relu(Z^h) = relu(Ẑ^h)",
        "y = Wᵀu         Z^y = Ẑ^y + Ż^y",
        "                Ẑ^y ~ N(0, 1/2), variance E[(Z^u)^2]",
        "                Ż^y = E[∂Z^u/∂Ẑ^h] Z^x = 1/2 Z^x, from the earlier h = Wx",
        "v = relu(y)     Z^v = relu(Z^y) = relu(Ẑ^y + 1/2 Z^x)",
        "z = Wv          Z^z = Ẑ^z + Ż^z",
        "                Ẑ^z ~ N(0, 3/8), variance E[(Z^v)^2]",
        "                Cov(Ẑ^z, Ẑ^h) = E[Z^v Z^x] = 1/4",
        "                Ż^z = E[∂Z^v/∂Ẑ^y] Z^u = 1/2 Z^u, from the earlier y = Wᵀu",
        "a = mean(z*z)   a° = E[(Z^z)^2] = 5/8",
    ]


def row(case, start):
    """Return what a derivation says behind a definition."""
    found = [r[len(start):].strip() for r in told(*PROGRAMS[case]) if r.startswith(start + " ")]
    assert found, told(*PROGRAMS[case])
    return found[0]


def rows(case):
    return "\n".join(told(*PROGRAMS[case]))


def test_products_without_a_name_are_written_out():
    assert row("nothing has a name", "Wx") == "Z^{Wx} = Ẑ^{Wx} ~ N(0, 1), variance E[(Z^x)^2]"
    assert "Ż^{Wᵀ relu(Wx)} = E[∂relu(Z^{Wx})/∂Ẑ^{Wx}] Z^x = 1/2 Z^x, from the earlier Wx" in rows("nothing has a name")


def test_a_vanishing_dot_is_told_with_its_reason():
    assert "Ż^y = 0, as E[∂(Z^v step(Z^h))/∂Ẑ^h] = 0 for the earlier h = Wx" in rows("no dot")
    assert "Ż^h" not in rows("no dot"), "nothing came before"


def test_variance_and_shape_of_a_matrix_are_factors():
    assert "Ẑ^{Wᵀ relu(Wx)} ~ N(0, 3/2), variance 3 E[relu(Z^{Wx})^2]" in rows("a rectangle")
    assert "= 3 E[∂relu(Z^{Wx})/∂Ẑ^{Wx}] Z^x = 3/2 Z^x" in rows("a rectangle")
    assert "(by Stein's lemma)" in rows("a jump") and "Stein" not in rows("a rectangle")


def test_integrals_are_shown_by_their_digits():
    assert row("no closed form", "s = mean(y*y)") == "s° = E[(Z^y)^2] ≈ 0.761174"
    assert "≈ 0.605706 Z^x" in rows("no closed form")


def test_a_gaussian_output():
    assert "≈ n^(1/2) G1, G1 ~ N(0, 1/2), variance E[(Z^v)^2] E[relu(Z^{Wx})^2]" in rows("central limit")
    assert row("a small weight", "sum(v*x)") == (
        "≈ n^(-1/2) G1, G1 ~ N(0, 4), variance E[(Z^v)^2] E[(Z^x)^2], by the central limit theorem")
    assert "Cov(G1, G2)" not in rows("two outputs"), "E[x x^2] = 0"
    both = told("dim n\nvector x, v : n\nf = sum(v*x)/n^(1/2)\ng = sum(v*x**3)/n^(1/2)\nk = f + g", "k")
    assert any("Cov(G1, G2) = 3" in r for r in both)


def test_sizes_are_told():
    assert "(h is n^(1/2) times this)" in row("powers of n", "h = relu(Wx)")
    assert "times this" not in rows("no dot")


def test_the_rest_of_the_rules():
    assert row("the same again", "W (2*x)") == \
        "Z^{W (2*x)} = Ẑ^{W (2*x)} = 2 Ẑ^a, since the vector is a combination of earlier ones"
    assert row("given together", "u") == "Z^u = Ẑ^u + 1"
    assert "Cov(Z^v, Ẑ^u) = 1/2" in rows("given together")
    twice = told("dim n\nmatrix W : n x n\nvector x : n\na = W @ x\nb = 2*x\nc = W @ (b/2)\ns = mean(a*c)", "s")
    assert any(r.startswith("c = W (1/2*b)") and "Z^c = Z^a, the same product as a = Wx" in r for r in twice)


def test_the_probe_of_a_trace_has_a_name_that_is_free():
    assert row("a trace of both", "g") == "Z^g ~ N(0, 1)"
    assert row("a trace", "g1") == "Z^g1 ~ N(0, 1)", "g is a matrix there"


def test_long_lines_get_a_name():
    words = told(*PROGRAMS["long lines"])
    assert any(r.startswith("v1 = tanh(first") for r in words)
    assert any(r.startswith("W v1 ") for r in words)
    assert max(len(r) for r in words) < 140


def test_numbers_without_end_are_rounded():
    assert row("data", "U xi") == "Z^{U xi} ~ N(0, 9.98072)", "pi^2 + 1/9"
    assert "q° = E[relu(Z^{U xi})^2] ≈ 4.99036" in rows("data")
    words = told("dim n\nvector x, y : n\nz = 3.14159265358979*x + y/3\nq = mean(z*z*z*z)", "q")
    assert "z = 3.14159*x + 1/3*y   Z^z = 3.14159 Z^x + 1/3 Z^y" in words


def test_products_with_data():
    words = told("dim n\ndim d = 2\nmatrix U : n x d ~ N(0, 1)\ninput a : d = [1, 2]\ninput b : d = [1, 0]\n"
                 "h = U @ a\ns = mean(relu(h) * (U @ b))", "s")
    assert [r.split("   ")[0] for r in words[:2]] == ["h = Ua", "Ub"]
    assert [r.split("   ")[-1].strip() for r in words[:3]] == [
        "Z^h ~ N(0, 5)", "Z^{Ub} ~ N(0, 1)", "Cov(Z^{Ub}, Z^h) = 1"]


def test_names_in_latex():
    w = Writer(limits(PROGRAMS["columns"][0]), "latex")
    assert [w.label(x) for x in ("U[0]", "xi", "h1", "h2@0", "_W_")] == [
        "{U}_{[0]}", r"\xi", "h_{1}", r"\mathtt{h2@0}", r"\mathtt{\_W\_}"]


def test_only_what_is_needed_is_told():
    text = THREE + "unused = tanh(x)\nb = mean(unused * h)"
    assert not any("unused" in r for r in told(text, "a"))
    assert [r.split()[0] for r in told(text, "h")] == ["W", "x", "h"]


def test_named_quantities_are_explained_last():
    text = "dim n\nvector x : n\ny = sin(x) + exp(x/3) + erf(x)*x + cos(2*x)\ns = mean(y*y)\nt = mean(y*y*(x + s))"
    words = told(text, "t")
    mentioned = {x for r in words for x in re.findall("theta_[0-9]", r)}
    explained = {r.split()[1] for r in words if r.startswith("where ")}
    assert mentioned == explained != set()
    assert "operations)" in words[-1] and "≈" in words[-1]
    assert max(map(len, words)) < 260


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed):
    from tensorprog.errors import NotCoveredError
    from tensorprog.testing.limits import random_limit_program

    program = random_limit_program(np.random.default_rng(seed), steps=8)
    try:
        found = Limits(program, budget=5)
    except NotCoveredError:
        return  # nothing to tell
    for name in program.outputs:
        for latex in derivation(found, found.names(name), "latex"):
            assert_latex(latex)
        assert not any(re.search(r"(?<!\w)_[a-z0-9]*[0-9]", r) for r in derivation(found, found.names(name)))


def test_what_is_not_known_is_told():
    words = told("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ x\nh = W @ x\ns = mean(x * h)", "s")
    assert words == ["s = mean(x*h)", "tends to 0, and its leading order is not known"] or \
        words == ["s = mean(x*h)   tends to 0, and its leading order is not known"]


def test_a_sum_that_is_exactly_zero_is_told():
    p = tp.parse("dim n\nvector x : n\nz = 0*x\ns = mean(z*x)\nt = s + 1")
    assert p.limit("t").exact == 1
    for format in ("text", "latex"):
        assert p.limit("t").explain(format)
