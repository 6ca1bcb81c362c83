"""Free independence: what is free, what is not, and what finite matrices say."""

from fractions import Fraction as F

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.finite.fit import Verdict
from tensorprog.program.build import apply, diag
from tensorprog.spectra.freeness import _words, confirm_free, free
from tensorprog.spectra.sample import Realization

from .oracle import catalan, pairings


def weights():
    p = tp.Program()
    n = p.dim("n")
    return p, p.matrix("W", n, n), p.matrix("V", n, n), p.vector("x", n)


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_weights_are_free_of_their_own_activations(name):
    p, W, V, x = weights()
    found = free(W @ W.T, diag(apply(name, W @ x)), 5)
    assert found.free and len(found.moments) == 13
    assert set(found.moments.values()) == {0}


@pytest.mark.parametrize("name", ["step", "sign"])
def test_also_if_they_jump(name):
    p, W, V, x = weights()
    assert free(W @ W.T, diag(apply(name, W @ x)), 5 if name == "sign" else 4).free


def test_also_of_the_next_layers_and_one_way():
    p, W, V, x = weights()
    y = apply("relu", W @ x)
    D = diag(apply("relu", V @ y))
    assert free(V @ W @ W.T @ V.T, D, 4).free
    assert free(W, diag(y), 3).free  # words in W and its transpose
    assert free(W + W.T, diag(apply("erf", W @ apply("erf", W @ x))), 4).free


def test_a_matrix_is_not_free_of_itself():
    p, W, V, x = weights()
    A = W.T @ W
    found = free(A, A, 4)
    m = [F(catalan(k)) for k in range(5)]
    assert not found.free and str(found).startswith("not free: tau(")
    assert found.moments["A B"] == m[2] - m[1] ** 2
    assert found.moments["A^2 B"] == m[3] - m[2] * m[1]
    assert found.moments["A B A B"] == m[4] - 4 * m[3] * m[1] + 6 * m[2] - 4 * m[1] + 1


def test_values_against_pairings_counted_one_by_one():
    p, W, V, x = weights()
    A, B = W + W.T, W.T @ W
    found = free(A, B, 4).moments

    def tau(*factors):
        words = {""}
        words = [""]
        for factor in factors:
            words = [w + f for w in words for f in (("W", "w") if factor == "A" else ("wW",))]
        return sum(pairings(w) for w in words)

    assert found["A B"] == tau("A", "B") - tau("A") * tau("B")
    assert found["A^2 B"] == tau("A", "A", "B") - tau("A", "A") * tau("B") == 1
    assert found["A^2 B^2"] == tau("A", "A", "B", "B") - tau("A", "A") * tau("B", "B")
    assert found["A B A B"] == tau(*"ABAB") - 2 * tau(*"ABA") * tau("B") + tau(*"AA") * tau("B") ** 2


def test_diagonals_commute_and_are_not_free():
    p, W, V, x = weights()
    y = apply("relu", W @ x)
    assert not free(diag(y), diag(apply("step", W @ x)), 2).free
    # independent diagonals have independent entries, which is not free independence either
    D, E = diag(x), diag(p.vector("z", x.dim))
    found = free(D, E, 4)
    assert {w for w, m in found.moments.items() if m != 0} == {"A B A B"} and found.moments["A B A B"] == 1


def test_words_are_counted_once():
    p, W, V, x = weights()
    A = W.T @ W
    # necklaces of pairs (i, j) of positive degrees: one pair, or two up to rotation
    assert [len(_words((A, A), k)) for k in (2, 3, 4, 5)] == [1, 3, 7, 13]


def test_requests_without_an_answer():
    p, W, V, x = weights()
    X = p.matrix("X", p.dim("m"), x.dim)
    with pytest.raises(ProgramError, match="along one axis"):
        free(X, W)
    with pytest.raises(ProgramError, match="of one program"):
        free(W, weights()[1])
    with pytest.raises(NotCoveredError, match="more than 400"):
        free(W, V, 9)


def test_entries_are_those_of_the_program():
    p, W, V, x = weights()
    X = p.matrix("X", p.dim("m", factor=F(1, 2)), x.dim)
    y = p.let("y", apply("relu", W @ x))
    s = p.let("s", p.mean(y * y))
    M = 2 * (X @ diag(y) @ W.T) + s * X
    p.let("Mx", M @ x)
    from tensorprog.finite.numpy_backend import run

    r = run(p, 30, 5, keep=["Mx", "x"])
    dense = Realization(p, ["X", "W", "y", "s"], 30, 5).dense(M)
    assert dense.shape == (15, 30)
    assert dense @ r["x"] == pytest.approx(r["Mx"], abs=1e-12)


@pytest.mark.slow
def test_freeness_is_seen_at_finite_width_and_its_absence_too():
    p, W, V, x = weights()
    D = diag(apply("relu", W @ x))
    assert confirm_free(W @ W.T, D, 4, seeds=96).verdict is Verdict.CONFIRMED
    twin = confirm_free(W @ W.T, W @ W.T, 3)
    assert twin.verdict is Verdict.REFUTED
    assert {c.verdict for c in twin.checks} == {Verdict.REFUTED}


@pytest.mark.slow
def test_commuting_diagonals_are_refuted_by_the_one_word_that_tells():
    p, W, V, x = weights()
    found = confirm_free(diag(x), diag(p.vector("z", x.dim)), 4, seeds=200)
    assert found["tau(A B A B)"].verdict is Verdict.REFUTED
    assert found["tau(A B)"].verdict is not Verdict.REFUTED
    assert np.isfinite(found["tau(A B)"].fit.slope)
