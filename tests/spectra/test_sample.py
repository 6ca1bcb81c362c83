"""Eigenvalues at finite width against spectra; every confirmation has a twin that is refuted."""

from fractions import Fraction as F

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import RunError
from tensorprog.finite.fit import Verdict
from tensorprog.program.build import apply, diag
from tensorprog.spectra.density import spectrum
from tensorprog.spectra.moments import Gram, eigenvalues, singular_values
from tensorprog.spectra.network import feedforward, jacobian
from tensorprog.spectra.sample import WIDTHS, distance, judge_spectrum, sample_eigenvalues, vanishing


def semicircle():
    p = tp.Program()
    n = p.dim("n")
    W = p.matrix("W", n, n, variance=n**-1 / 2)
    return W + W.T


def wishart(ratio):
    p = tp.Program()
    X = p.matrix("X", p.dim("m", factor=F(ratio)), p.dim("n"))
    return X.T @ X


def compound():
    p = tp.Program()
    n = p.dim("n")
    W, x = p.matrix("W", n, n), p.vector("x", n)
    h = W @ x
    return W.T @ diag(F(17, 8) + F(15, 8) * apply("sign", h)) @ W  # values 1/4 and 4


def relu(depth):
    return Gram(jacobian(feedforward(depth, "relu", weight=2)))


def tanh():
    return jacobian(feedforward(1, "tanh"))


def test_distances_are_those_of_kolmogorov_and_smirnov():
    from scipy.stats import kstest

    law = eigenvalues(semicircle(), 8)
    x = np.random.default_rng(0).uniform(-2.2, 1.9, 100)
    assert distance(x, law) == pytest.approx(kstest(x, law.cdf).statistic, abs=1e-9)


def test_an_atom_is_no_distance():
    law = spectrum([1, *[F(1, 3)] * 6])  # 1 with probability 1/3, else 0
    assert distance(np.array([0.0, 1e-15, 1.0]), law) == pytest.approx(0, abs=1e-12)
    assert distance(np.array([0.0, 1.0, 1.0]), law) == pytest.approx(1 / 3)


def test_zeros_of_a_rectangular_gram_matrix_are_counted():
    x = sample_eigenvalues(wishart(F(1, 2)), 40)
    assert (np.abs(x) < 1e-12).sum() == 20
    p = tp.Program()
    X = p.matrix("X", p.dim("m", factor=F(1, 2)), p.dim("n"))
    assert sample_eigenvalues(Gram(X), 40) == pytest.approx(sample_eigenvalues(X.T @ X, 40), abs=1e-10)
    with pytest.raises(RunError, match="not symmetric"):
        sample_eigenvalues(X, 40)


@pytest.mark.parametrize("exponent, verdict", [(-1, "CONFIRMED"), (-0.5, "CONFIRMED"), (0, "REFUTED")])
def test_what_vanishes(exponent, verdict):
    noise = np.random.default_rng(1).standard_normal((7, 1000))
    samples = {16 * 2**k: z * (16 * 2**k) ** exponent for k, z in enumerate(noise)}
    assert vanishing("x", samples).verdict.name == verdict


def test_sizes_below_the_error_of_the_spectrum_say_nothing():
    samples = {n: [1e-3] * 8 for n in (16, 32, 64, 128, 256)}
    assert vanishing("x", samples, error=1e-2).verdict is Verdict.CONFIRMED
    assert vanishing("x", samples).verdict is Verdict.REFUTED


CASES = {
    "semicircle": (semicircle, lambda: eigenvalues(semicircle(), 10)),
    "Marchenko-Pastur 1/2": (lambda: wishart(F(1, 2)), lambda: eigenvalues(wishart(F(1, 2)), 12)),
    "Marchenko-Pastur 3": (lambda: wishart(3), lambda: eigenvalues(wishart(3), 12)),
    "two intervals": (compound, lambda: eigenvalues(compound(), 16)),
    "relu, two layers": (lambda: relu(2), lambda: eigenvalues(relu(2), 16)),
    "tanh": (lambda: Gram(tanh()), lambda: singular_values(tanh(), 10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_are_those_of_the_spectrum(name):
    make, law = CASES[name]
    found = law()
    assert found.converged
    matrix = make()
    samples = {n: [sample_eigenvalues(matrix, n, seed) for seed in range(64)] for n in WIDTHS}
    result = judge_spectrum(samples, found)
    assert result.verdict is Verdict.CONFIRMED, str(result)
    # the twin: all eigenvalues twice as large
    twin = spectrum([m * 2**k for k, m in enumerate(found.moments)])
    assert judge_spectrum(samples, twin).verdict is Verdict.REFUTED
