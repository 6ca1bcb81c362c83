"""Random matrix theory by other means: pairings counted one by one, free cumulants, densities in closed form."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np


def catalan(k: int) -> int:
    """Return the number of ways to multiply k + 1 factors, by its recurrence."""
    row = [1]
    for i in range(k):
        row.append(sum(row[j] * row[i - j] for j in range(i + 1)))
    return row[k]


@cache
def pairings(word: str) -> int:
    """Return tau of a word of a square Gaussian matrix of variance 1/n: noncrossing pairings with transposes.

    "W" is a matrix, "w" its transpose.
    """
    if not word:
        return 1
    return sum(pairings(word[1:k]) * pairings(word[k + 1:]) for k in range(1, len(word), 2)
               if word[k] == word[0].swapcase())


def wishart(k: int, ratio: Fraction) -> Fraction:
    """Return the k-th Marchenko-Pastur moment: a factor ``ratio`` for every loop of rows in a noncrossing pairing."""

    @cache
    def total(length: int, rows_first: bool) -> Fraction:
        # the first letter is paired with one of the other kind; the region between has the index next to it
        if length == 0:
            return Fraction(1)
        inner = Fraction(ratio if not rows_first else 1)
        return sum((inner * total(j - 1, not rows_first) * total(length - j - 1, rows_first)
                    for j in range(1, length, 2)), Fraction(0))

    return total(2 * k, False)


def from_free_cumulants(kappa) -> list:
    """Return the moments m_0, m_1, ... of free cumulants kappa_1, kappa_2, ...: sums over noncrossing partitions.

    ``m_n = sum_s kappa_s sum_{i_1 + ... + i_s = n - s} m_{i_1} ... m_{i_s}``: the block of 1 has s members.
    """
    m = [kappa[0] * 0 + 1]
    for n in range(1, len(kappa) + 1):
        power, total = [1] + [0] * (n - 1), 0
        for s in range(1, n + 1):
            power = [sum(power[j] * m[i - j] for j in range(i + 1)) for i in range(n)]
            total += kappa[s - 1] * power[n - s]
        m.append(total)
    return m


def relu_jacobian(depth: int, k: int, weight: Fraction = Fraction(2)) -> Fraction:
    """Return ``tau((J^T J)^k)`` of a deep ReLU network, freeness assumed: Lagrange inversion of the S-transform.

    Every layer has ``S = 1 / (sigma^2 (1/2 + chi))``, so
    ``m_k = (1/k) [chi^(k-1)] (1 + chi)^k (sigma^2 (1/2 + chi))^(L k)``.
    """
    p = [Fraction(1)]
    for factor, power in (([Fraction(1), Fraction(1)], k), ([weight / 2, weight], depth * k)):
        for _ in range(power):
            p = [sum((factor[i] * p[j - i] for i in (0, 1) if 0 <= j - i < len(p)), Fraction(0))
                 for j in range(len(p) + 1)]
    return p[k - 1] / k


def semicircle(x):
    return np.sqrt(np.maximum(4 - np.asarray(x, float) ** 2, 0)) / (2 * np.pi)


def marchenko_pastur(x, ratio: float):
    """Return the density of X^T X, X of ratio n x n with entries of variance 1/n."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    return np.sqrt(np.maximum((high - x) * (x - low), 0)) / (2 * np.pi * x)


def product_of_two(x):
    """Return the Fuss-Catalan density of order 2 (Penson and Zyczkowski 2011, equation 25)."""
    root = 27 + 3 * np.sqrt(np.maximum(81 - 12 * x, 0))
    return (2 ** (1 / 3) * 3**0.5 / (12 * np.pi)) * (2 ** (1 / 3) * root ** (2 / 3) - 6 * x ** (1 / 3)) / (
        x ** (2 / 3) * root ** (1 / 3))
