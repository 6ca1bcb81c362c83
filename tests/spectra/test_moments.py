"""Moments of matrix expressions against pairings counted one by one."""

import time
from fractions import Fraction as F
from math import comb

import pytest
import sympy

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.program.build import apply, diag
from tensorprog.program.text import parse, to_text
from tensorprog.spectra.moments import Gram, excerpt, is_symmetric, moment_program, moments

from .oracle import catalan, from_free_cumulants, pairings, wishart


def program():
    p = tp.Program()
    n = p.dim("n")
    return p, n


def test_the_oracles_agree_among_themselves():
    assert [catalan(k) for k in range(6)] == [1, 1, 2, 5, 14, 42]
    assert [pairings("Ww" * k) for k in range(8)] == [catalan(k) for k in range(8)]
    assert [wishart(k, F(1)) for k in range(8)] == [catalan(k) for k in range(8)]
    assert [wishart(k, F(1, 2)) for k in range(1, 5)] == [F(1, 2), F(3, 4), F(11, 8), F(45, 16)]
    assert from_free_cumulants([F(1, 2)] * 6)[1:] == [wishart(k, F(1, 2)) for k in range(1, 7)]


def test_catalan_numbers_to_order_20_in_seconds():
    p, n = program()
    W = p.matrix("W", n, n)
    start = time.monotonic()
    found = moments((W + W.T) / sympy.sqrt(2), 40)
    assert time.monotonic() - start < 20
    assert all(isinstance(m, F) for m in found)
    assert found[0::2] == tuple(F(catalan(k)) for k in range(21))
    assert not any(found[1::2])


def test_marchenko_pastur_to_order_12_as_polynomials_in_the_ratio():
    p, n = program()
    X, c = p.matrix("X", p.dim("m"), n), sympy.Symbol("c", positive=True)
    found = moments(X.T @ X, 12, ratios={"m": c})
    for k in range(1, 13):
        poly = sympy.Poly(found[k], c)
        assert poly.degree() == k
        for ratio in (F(1, 3), F(2), F(7, 5), F(1)):
            assert poly.eval(sympy.Rational(ratio.numerator, ratio.denominator)) == wishart(k, ratio)


@pytest.mark.parametrize("ratio", [F(1, 2), F(3)])
def test_a_ratio_can_be_that_of_the_program(ratio):
    p, n = program()
    X = p.matrix("X", p.dim("m", factor=ratio), n)
    assert list(moments(X.T @ X, 6)) == [wishart(k, ratio) for k in range(7)]
    # the other way round there are as many eigenvalues besides zeros
    assert list(moments(X @ X.T, 6))[1:] == [wishart(k, ratio) / ratio for k in range(1, 7)]


def test_words_in_one_matrix():
    p, n = program()
    W = p.matrix("W", n, n)
    M = W @ W @ W.T + 2 * W.T
    spelled = ["".join(x) for x in (("WWw",), ("w",))]
    for k in range(1, 5):
        total = 0
        for choice in range(2**k):
            bits = [(choice >> i) & 1 for i in range(k)]
            total += 2 ** sum(bits) * pairings("".join(spelled[b] for b in bits))
        assert moments(M, k)[k] == total


@pytest.mark.parametrize("factors", [2, 3])
def test_products_are_fuss_catalan(factors):
    p, n = program()
    M = p.matrix("W1", n, n)
    for i in range(2, factors + 1):
        M = M @ p.matrix(f"W{i}", n, n)
    s = factors
    assert list(moments(Gram(M), 8)) == [F(comb((s + 1) * k, k), s * k + 1) for k in range(9)]
    assert moments(Gram(M), 4) == moments(M.T @ M, 4)


@pytest.mark.parametrize("name, law", [("step", [F(1, 2)] * 6), ("sign", [F(k % 2 == 0) for k in range(1, 7)])])
def test_diagonals_of_the_same_weights_act_as_free_ones(name, law):
    p, n = program()
    W, x = p.matrix("W", n, n), p.vector("x", n)
    D = diag(apply(name, W @ x))
    # W^T D W with D free of W is free compound Poisson: its free cumulants are the moments of D
    assert list(moments(W.T @ D @ W, 6)) == from_free_cumulants(law)


def test_irrational_moments_are_exact_too():
    p, n = program()
    W, x = p.matrix("W", n, n), p.vector("x", n)
    D = diag(apply("relu", W @ x))
    half = [2 ** sympy.Rational(k, 2) * sympy.gamma(sympy.Rational(k + 1, 2)) / (2 * sympy.sqrt(sympy.pi))
            for k in range(1, 6)]  # E relu(Z)^k
    for found, wanted in zip(moments(W.T @ D @ W, 5)[1:], from_free_cumulants(half)[1:], strict=True):
        assert sympy.simplify(sympy.sympify(found) - wanted) == 0


def test_symmetry_is_seen_in_the_expression():
    p, n = program()
    W, V, x, y = p.matrix("W", n, n), p.matrix("V", n, n), p.vector("x", n), p.vector("y", n)
    D, E = diag(x), diag(y)
    yes = [W + W.T, W @ V + V.T @ W.T, W.T @ D @ W, D @ E, E @ D - D @ E + D, W - W + D, W @ D @ E @ W.T]
    no = [W, W @ V, W + V.T, D @ W @ E, W - W.T]
    assert [is_symmetric(m) for m in yes] == [True] * len(yes)
    assert [is_symmetric(m) for m in no] == [False] * len(no)
    assert is_symmetric(Gram(W @ V))


def test_symmetric_matrices_need_half_the_products():
    p, n = program()
    W = p.matrix("W", n, n)
    q, scalars = moment_program(W + W.T, 10)
    assert sum("@" in str(line) for line in str(q).splitlines()) == 10  # five products with W, five with W.T
    assert [name for name, _ in scalars] == list(q.outputs)
    assert parse(to_text(q)).outputs == q.outputs
    assert sum("@" in line for line in str(moment_program(W, 10)[0]).splitlines()) == 10


def test_the_users_program_is_left_alone():
    p, n = program()
    W, x = p.matrix("W", n, n), p.vector("x", n)
    p.let("unrelated", apply("tanh", W @ x))
    D = diag(p.let("moment2", x * x))
    before = str(p)
    p.freeze()
    assert moments(D, 3) == (1, 1, 3, 15)
    assert str(p) == before
    assert "unrelated" not in excerpt(p, ["moment2"])


def test_requests_without_an_answer():
    p, n = program()
    X, W = p.matrix("X", p.dim("m"), n), p.matrix("W", n, n, variance=1)
    with pytest.raises(ProgramError, match="only a square matrix has powers"):
        moments(X, 2)
    with pytest.raises(ProgramError, match="counted from 1"):
        moments(X.T @ X, 0)
    with pytest.raises(NotCoveredError, match="grows like"):
        moments(W.T @ W, 2)
