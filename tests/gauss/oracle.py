"""Gaussian expectations by brute force: Gauss-Legendre panels that end at every kink."""

import itertools

import numpy as np
from numpy.polynomial.legendre import leggauss

NODES, WEIGHTS = leggauss(12)
GRID = np.arange(-9.0, 9.5, 1.0)


def panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the standard Gaussian on panels with these (sorted) edges along the last axis."""
    low, half = edges[..., :-1, None], np.diff(edges)[..., None] / 2
    x = low + half * (1 + NODES)
    w = half * WEIGHTS * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return x.reshape(*edges.shape[:-1], -1), w.reshape(*edges.shape[:-1], -1)


def plane(factors, loadings, mean) -> float:
    """Return E prod_i factors_i(l_i), l = loadings z + mean, z two independent standard Gaussians.

    A factor is a pair of a numpy function and its kinks.
    """
    a, m = np.asarray(loadings, float), np.asarray(mean, float)
    lines = [(*a[i], k - m[i]) for i, (_, kinks) in enumerate(factors) for k in map(float, kinks)]
    upright = [c / p for p, q, c in lines if q == 0 and p != 0]
    crossings = [(c * s - d * q) / (p * s - q * r) for (p, q, c), (r, s, d) in itertools.combinations(lines, 2)
                 if abs(p * s - q * r) > 1e-12]
    x, w = panels(np.sort(np.clip(np.concatenate([GRID, upright, crossings]), -9, 9)))
    if not np.any(a[:, 1]):
        flat = [fn(p * x + shift) for (fn, _), p, shift in zip(factors, a[:, 0], m, strict=True)]
        return float(w @ np.prod(flat, axis=0))
    cuts = [(c - p * x) / q for p, q, c in lines if q != 0]
    edges = np.concatenate([np.broadcast_to(GRID, (len(x), len(GRID))), *(c[:, None] for c in cuts)], axis=1)
    y, v = panels(np.sort(np.clip(edges, -9, 9), axis=1))
    total = np.ones_like(y)
    for (fn, _), row, shift in zip(factors, a, m, strict=True):
        total = total * fn(row[0] * x[:, None] + row[1] * y + shift)
    return float(w @ np.sum(total * v, axis=1))


def space(factors, loadings, mean) -> float:
    """Return the same for three independent Gaussians, kinks smoothed by the other coordinates."""
    a = np.asarray(loadings, float)
    z, w = panels(np.arange(-8.0, 8.5, 1.0))
    return sum(u * plane(factors, a[:, 1:], a[:, 0] * t + np.asarray(mean, float)) for t, u in zip(z, w, strict=True))
