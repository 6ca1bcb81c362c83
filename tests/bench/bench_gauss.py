"""Gaussian expectations against their peers: python tests/bench/bench_gauss.py

Closed forms and quadrature of this library against scipy's adaptive quadrature of the same integral, and exact moments
against the sum over pairings; CPU seconds of the best of a few runs and the ratio of the two. Not a timed test.
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from bench_derive import cpu_seconds  # the folder of a script is on its path
from scipy import integrate

from tensorprog.atoms.registry import nonlinearity
from tensorprog.gauss import quadrature
from tensorprog.gauss.chain import Chain
from tensorprog.gauss.exact import expect
from tensorprog.gauss.wick import moment


def plane(f, g, rho: float) -> float:
    """Return E f(x) g(y) at correlation rho, by scipy."""
    root = math.sqrt(1 - rho * rho)

    def integrand(v, u):
        return f(u) * g(rho * u + root * v) * math.exp(-(u * u + v * v) / 2) / (2 * math.pi)

    return integrate.dblquad(integrand, -9, 9, -9, 9, epsabs=1e-9, epsrel=1e-9)[0]


def pairings(indices: tuple[int, ...], cov) -> Fraction:
    """Return E prod x_i, the sum over all pairings."""
    if not indices:
        return Fraction(1)
    first, rest = indices[0], indices[1:]
    return sum((cov[first][j] * pairings(rest[:i] + rest[i + 1:], cov) for i, j in enumerate(rest)), Fraction(0))


def main() -> None:
    rho = Fraction(3, 5)
    exact_cov, cov = [[Fraction(1), rho], [rho, Fraction(1)]], np.array([[1, 0.6], [0.6, 1]])
    rows = []
    for name in ("relu", "erf", "gelu", "tanh"):
        phi = nonlinearity(name)
        kinks = [[float(k) for k in phi.kinks]] * 2
        peer = cpu_seconds(lambda phi=phi: plane(phi, phi, 0.6), repeat=1)
        if name != "tanh":
            ours = cpu_seconds(lambda phi=phi: expect([0, 0], exact_cov, [0, 0], [(phi,), (phi,)], Chain()))
            rows.append((f"E {name} {name}, closed form", ours, peer))
        ours = cpu_seconds(lambda phi=phi, kinks=kinks: quadrature.expect(
            lambda x, y: phi(x) * phi(y), [0, 0], cov, kinks))
        rows.append((f"E {name} {name}, quadrature", ours, peer))
    six = [[Fraction(1, 1 + abs(i - j)) for j in range(6)] for i in range(6)]
    ours = cpu_seconds(lambda: moment([2] * 6, [Fraction(0)] * 6, six))
    twelve = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
    rows.append(("degree 12 in 6 forms, Wick", ours, cpu_seconds(lambda: pairings(twelve, six), repeat=1)))
    for name, ours, peer in rows:
        print(f"{name:28s} seconds {ours:.2e}  peer {peer:.2e}  ratio {ours / peer:.1e}")


if __name__ == "__main__":
    main()
