r"""Batch normalization before the nonlinearity, ``h^{l+1} = W phi(BN(h^l)) + b``, in the limit of infinite width.

If a batch's covariance treats its members alike (BSB1: ``q ((1 - c) I + c 1 1^T)``), normalized preactivations are
sqrt(B) times a uniform point on the unit sphere of the vectors of mean zero, whatever q and c: the fixed point is
reached in one layer, and everything is an expectation on that sphere. Two coordinates have correlation -1/(B - 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import NotCoveredError, UnsolvableError
from tensorprog.gauss.quadrature import expect
from tensorprog.kernels.variances import named

#: Nodes of one panel of angles, and panels that a sphere without kinks is cut into.
_NODES, _PANELS = 24, 8


@dataclass(frozen=True)
class BatchNorm:
    r"""The fixed point of a deep network with batch normalization, and how its gradients explode.

    Args:
        phi: a nonlinearity or its name.
        batch: the size B of the batch, at least 3; ``math.inf`` for the limit of large batches (after infinite width).
        sigma_w2: variance of the weights, times the width.
        sigma_b2: variance of the biases.

    Raises:
        UnsolvableError: the batch is too small, or a variance is negative.

    Example:
        >>> net = BatchNorm("relu", 4)
        >>> round(net.q, 12), round(net.c, 12)
        (0.5, 0.169496588042)
        >>> round(BatchNorm("identity", 8).gradient_factor, 12), BatchNorm("relu", math.inf).gradient_factor
        (1.2, 1.46694...)

    The symmetric fixed point is computed, not its stability: some quickly growing functions break the symmetry.

    Source: yang2019batchnorm.
    """

    phi: Nonlinearity
    batch: float
    sigma_w2: float = 1.0
    sigma_b2: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "phi", named(self.phi))
        if not (self.batch == math.inf or self.batch == int(self.batch)) or self.batch < 3:
            raise UnsolvableError(f"BatchNorm({self.phi}, {self.batch})", self.batch, "no batch of this size has a law "
                                  "of its own: two members are normalized to 1 and -1", "a whole number from 3 on")
        if self.sigma_w2 < 0 or self.sigma_b2 < 0:
            raise UnsolvableError(f"BatchNorm({self.phi}, ...)", (self.sigma_w2, self.sigma_b2), "variances",
                                  "give numbers >= 0")

    @cached_property
    def q(self) -> float:
        """The variance of the preactivations, ``sigma_w2 E phi(x_a)^2 + sigma_b2``."""
        return self.sigma_w2 * self._same + self.sigma_b2

    @cached_property
    def c(self) -> float:
        """The correlation of two members, ``(sigma_w2 E phi(x_a) phi(x_b) + sigma_b2) / q``.

        >>> [round(BatchNorm("relu", b).c, 9) for b in (10**6, math.inf)], round(1 / math.pi, 9)
        ([0.31830..., 0.318309886], 0.318309886)
        """
        return (self.sigma_w2 * self._cross + self.sigma_b2) / self.q

    @cached_property
    def gradient_factor(self) -> float:
        r"""By which the mean square of a gradient grows in one layer backwards, at the fixed point:

        .. math:: \frac{(B-1) E d_a^2 + E d_a d_b - E x_a^2 d_a^2 + E x_a d_a x_b d_b}
                       {(B-3) (E \phi(x_a)^2 - E \phi(x_a) \phi(x_b))}, \quad d = \phi'(x).

        The scale of the weights drops out. (B - 2)/(B - 3) for the identity, pi/(pi - 1) for relu as B grows.

        Raises:
            NotCoveredError: B = 3 (the expectation diverges), or phi jumps.

        >>> round(BatchNorm("relu", 12).gradient_factor, 4)
        1.6449
        """
        if self.phi.jumps:
            raise NotCoveredError(f"BatchNorm({self.phi}, ...)", self.phi.name, "it jumps: backpropagation does not "
                                  "see its slope", "a continuous nonlinearity")
        if self.batch <= 3:
            raise NotCoveredError(f"BatchNorm({self.phi}, {self.batch:g})", self.batch, "the gradient's mean square is "
                                  "infinite: E 1/chi^2 with two degrees of freedom", "a batch of at least 4")
        if self.phi.slope is None:
            return 0.0
        d, power = self.phi.slope, None if self.phi.degree is None else 2 * float(self.phi.degree)
        square = self._expect(lambda x, y: d(x) ** 2, power and power - 2)
        if math.isinf(self.batch):
            return square / (self._same - self._cross)
        rest = self._expect(lambda x, y: d(x) * d(y), power and power - 2)
        rest += self._expect(lambda x, y: x * d(x) * y * d(y) - (x * d(x)) ** 2, power)
        return ((self.batch - 1) * square + rest) / ((self.batch - 3) * (self._same - self._cross))

    def gradient(self, depth: float) -> float:
        """Return the factor over ``depth`` layers, ``gradient_factor^depth``."""
        return self.gradient_factor ** depth

    @cached_property
    def _same(self) -> float:
        return self._expect(lambda x, y: self.phi(x) ** 2, self._power)

    @cached_property
    def _cross(self) -> float:
        return self._expect(lambda x, y: self.phi(x) * self.phi(y), self._power)

    @property
    def _power(self) -> float | None:
        return None if self.phi.degree is None else 2 * float(self.phi.degree)

    def _expect(self, fn: Callable, power: float | None) -> float:
        """Return ``E fn(x_a, x_b)``; ``power`` is the degree of fn if it is homogeneous."""
        kinks = [float(k) for k in self.phi.kinks]
        if math.isinf(self.batch):
            return expect(fn, [0, 0], [[1, 0], [0, 1]], [kinks, kinks]).value
        dim = int(self.batch) - 1
        rho = -1 / dim
        if power is not None:
            # a Gaussian vector is its length, of known moments, times its direction
            moment = math.exp(math.lgamma((dim + power) / 2) - math.lgamma(dim / 2)) * 2 ** (power / 2)
            value = expect(fn, [0, 0], [[1, rho], [rho, 1]], [kinks, kinks]).value
            return value * dim ** (power / 2) / moment
        return _sphere(fn, dim, [k / math.sqrt(dim) for k in kinks])


def _sphere(fn: Callable, dim: int, kinks: list[float]) -> float:
    """Return ``E fn(x_a, x_b)``, ``sqrt(dim)`` times two coordinates, of correlation -1/dim, of a point on a sphere.

    The first coordinate is sin(s), s of density cos(s)^(dim - 2); the second, given the first, a multiple of sin(t),
    t of density cos(t)^(dim - 3): two points if dim = 2.
    """
    rho = -1 / dim
    slant = math.sqrt(1 - rho * rho)
    # where a kink of x_a is, and where one of x_b enters or leaves the circle left by x_a
    cuts = [math.asin(k) for k in kinks if abs(k) < 1]
    cuts += [math.asin(max(-1.0, min(1.0, k * rho + sign * math.sqrt(1 - k * k) * slant)))
             for k in kinks if abs(k) < 1 for sign in (-1, 1)]
    s, w = _angles(np.array(cuts)[None, :], dim - 2)
    s, w = s[0], w[0]
    x, rest = np.sin(s), np.cos(s)
    if dim == 2:
        t, v = np.broadcast_to([-math.pi / 2, math.pi / 2], (len(s), 2)), np.full((len(s), 2), 0.5)
    else:
        turn = (np.array(kinks)[None, :] - rho * x[:, None]) / (slant * rest[:, None])
        t, v = _angles(np.arcsin(np.clip(turn, -1, 1)), dim - 3)
    y = rho * x[:, None] + slant * rest[:, None] * np.sin(t)
    size = math.sqrt(dim)
    return float(w @ np.sum(fn(size * np.broadcast_to(x[:, None], y.shape), size * y) * v, axis=1))


def _angles(cuts: np.ndarray, power: int) -> tuple[np.ndarray, np.ndarray]:
    # Nodes and weights of the probability density ~ cos^power on (-pi/2, pi/2), for each row of cuts.
    z, weight = np.polynomial.legendre.leggauss(_NODES)
    z, weight = z * (3 - z * z) / 2, weight * 1.5 * (1 - z * z)  # flat at the ends: roots there do no harm
    reach = math.pi / 2 if power < 30 else min(math.pi / 2, 9.5 / math.sqrt(power))
    plain = np.broadcast_to(np.linspace(-reach, reach, _PANELS + 1), (len(cuts), _PANELS + 1))
    edges = np.sort(np.concatenate([plain, np.clip(cuts, -reach, reach)], axis=1), axis=1)
    half = np.diff(edges)[:, :, None] / 2
    s = (edges[:, :-1, None] + half * (1 + z)).reshape(len(cuts), -1)
    w = (half * weight).reshape(len(cuts), -1) * np.cos(s) ** power
    log_total = math.lgamma((power + 1) / 2) - math.lgamma(power / 2 + 1) + math.log(math.pi) / 2
    return s, w * math.exp(-log_total)
