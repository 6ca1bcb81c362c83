r"""Deep networks of homogeneous nonlinearities without biases: the whole kernel is one function of one correlation.

With ``phi(x) = u max(x, 0) + d max(-x, 0)`` and t the angle, a layer sends the correlation to

    1 - rho' = (1 - cos t) - g (sin t - t cos t)/pi,    g = (u + d)^2/(u^2 + d^2),

whatever the variances, and its slope is ``1 - g t/pi``. The distance ``1 - rho`` is what is iterated: it keeps its
digits where rho itself is 1 up to rounding. As functions of ``sqrt(1 - |rho|)`` the compositions are analytic up to
both ends, so they are tabulated there once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tensorprog.errors import NotCoveredError
from tensorprog.kernels.closed import correlation
from tensorprog.kernels.lookup import Lookup
from tensorprog.kernels.rows import share

if TYPE_CHECKING:
    from tensorprog.kernels.dual import Dual

#: Error of the tables, relative to the largest value.
TOLERANCE = 1e-13
_SERIES = np.array([(-1) ** k * (2 * k + 2) / math.factorial(2 * k + 3) for k in range(10)])


class Homogeneous(NamedTuple):
    """The dual of a homogeneous function of degree one: ``E phi phi' = second_moment sqrt(q1 q2) value(rho)``.

    Example:
        >>> relu = Homogeneous(0.5, 1.0)
        >>> relu.value(np.array([1.0, 0.0, -1.0])) * math.pi
        array([3.14159265, 1.        , 0.        ])

    Source: cho2009kernel.
    """

    second_moment: float
    bend: float

    def value(self, rho: np.ndarray) -> np.ndarray:
        """Return the next layer's correlation, shape of rho."""
        return 1 - self.gap(np.arccos(np.clip(rho, -1, 1)))

    def slope(self, rho: np.ndarray) -> np.ndarray:
        """Return its derivative, ``E phi' phi' / second_moment``."""
        return 1 - self.bend / math.pi * np.arccos(np.clip(rho, -1, 1))

    def gap(self, t: np.ndarray, rest: np.ndarray | None = None) -> np.ndarray:
        """Return 1 minus the next correlation at angle t, to full relative precision; ``rest`` is pi - t if known.

        >>> Homogeneous(0.5, 1.0).gap(np.array([0.0, 1e-9])) * 2e18
        array([0., 1.])
        """
        s = math.pi - t if rest is None else rest
        sharp = 2 * np.sin(t / 2) ** 2 - self.bend / math.pi * _bent(t)
        flat = (2 - self.bend) + 2 * (self.bend - 1) * np.sin(s / 2) ** 2 - self.bend / math.pi * _bent(s)
        return np.clip(np.where(t < math.pi / 2, sharp, flat), 0, 2)


def _bent(t: np.ndarray) -> np.ndarray:
    """Return sin t - t cos t."""
    power = t * t
    series = t * power * np.polynomial.polynomial.polyval(power, _SERIES)
    return np.where(t < 1, series, np.sin(t) - t * np.cos(t))


class Composition:
    r"""Kernels of a network of such layers, as functions of the correlation of the inputs; made by ``compose``.

    ``nngp(rho) = rho_L`` and ``ntk(rho) = tau_L``, with ``rho_{l+1} = kappa_l(rho_l)``, ``tau_0 = w_0 rho`` and
    ``tau_{l+1} = w_{l+1} rho_{l+1} + kappa_l'(rho_l) tau_l``.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> from tensorprog.kernels.dual import dual
        >>> deep = compose([dual(nonlinearity("relu"))] * 3)
        >>> rho = np.array([1.0, 0.5])
        >>> deep.nngp(rho).round(6), deep.ntk(rho).round(6)
        (array([1.      , 0.738128]), array([4.      , 1.737845]))

    Source: cho2009kernel; jacot2018neural.
    """

    def __init__(self, layers: tuple[Homogeneous, ...], rates: tuple[float, ...]):
        self.layers, self.rates = layers, rates
        #: Correlations bend at 1 - rho of the order of 1/depth^2; half of the panels are on this side of its root.
        self.grade = min(1.0, 50 / max(1, len(layers)))

    def exact(self, t: np.ndarray, rest: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return ``rho_L`` and ``tau_L`` at angles t (rest: pi - t), layer by layer: what the tables are made of."""
        rho = np.cos(t)
        tau = self.rates[0] * rho
        for layer, rate in zip(self.layers, self.rates[1:], strict=True):
            tau *= 1 - layer.bend / math.pi * t
            gap, rest = layer.gap(t, rest), None
            t = 2 * np.arcsin(np.sqrt(gap / 2))
            rho = 1 - gap
            tau += rate * rho
        return rho, tau

    def _table(self, ntk: bool) -> Lookup:
        if ntk not in self._tables:
            noise = max(TOLERANCE, 1e-15 * len(self.layers))
            self._tables[ntk] = Lookup.fit(lambda x: self.exact(*self._angles(x))[ntk], noise)
        return self._tables[ntk]

    @cached_property
    def _tables(self) -> dict[bool, Lookup]:
        return {}

    def _position(self, rho: np.ndarray) -> np.ndarray:
        # From 0 at rho = 1 over 1/2 at 0 to 1 at -1: 2x = y (1 + a)/(y + a), y = sqrt(1 - |rho|), on the first half.
        x = np.abs(rho)
        np.subtract(1, x, out=x)
        np.sqrt(x, out=x)
        rest = x + self.grade
        x *= (1 + self.grade) / 2
        x /= rest
        np.subtract(0.5, x, out=x)
        np.copysign(x, rho, out=x)
        return np.subtract(0.5, x, out=x)

    def _angles(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The angle t at a position, and pi - t.
        z = 2 * np.minimum(x, 1 - x)
        y = np.minimum(self.grade * z / (1 + self.grade - z), 1)
        near = 2 * np.arcsin(y / math.sqrt(2))
        return np.where(x <= 0.5, near, math.pi - near), np.where(x <= 0.5, math.pi - near, near)

    def nngp(self, rho: np.ndarray) -> np.ndarray:
        """Return the correlation of the last layer, shape of rho; rho within [-1, 1]."""
        return self._table(False)(self._position(np.array(rho)))

    def ntk(self, rho: np.ndarray) -> np.ndarray:
        """Return the tangent kernel in units of the last layer's standard deviations."""
        return self._table(True)(self._position(np.array(rho)))

    def kernel(self, q1, q2, c, scale: float = 1.0, *, ntk: bool = False, out=None) -> np.ndarray:
        """Return ``scale sqrt(q1 q2) f(c/sqrt(q1 q2))`` for every pair, f the NNGP's function or the NTK's.

        Args:
            q1: variances of the first preactivations, shape (N1,); ``q2``: (N2,); ``c``: covariances, (N1, N2).
            scale: the last layer's variance at q = 1: the product of sigma_w^2 E phi(Z)^2 over the layers.
            out: where to write; may be c.
        """
        table = self._table(ntk)
        c = np.asarray(c)
        q1, q2 = (np.asarray(q).astype(c.dtype, copy=False) for q in (q1, q2))
        out = np.empty_like(c) if out is None else out
        left, right = np.sqrt(q1)[:, None] * c.dtype.type(scale), np.sqrt(q2)

        def block(rows):
            value = table(self._position(correlation(q1[rows, None], q2[None], c[rows])))
            value *= left[rows]
            np.multiply(value, right, out=out[rows])

        share(block, *c.shape)
        return out


def compose(duals: Dual | Sequence[Dual], depth: int | None = None, *, rates: Sequence[float] | None = None
            ) -> Composition:
    """Return the composition of a network's layers; the tables are made when first used, and kept.

    Args:
        duals: one for each layer, or one for all ``depth`` layers.
        rates: what each weight's tangents count, first layer first, one more than layers; 1 unless given.

    Raises:
        NotCoveredError: a nonlinearity is not homogeneous of degree one (then its variances matter).

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> from tensorprog.kernels.dual import dual
        >>> compose(dual(nonlinearity("tanh")), 2)
        Traceback (most recent call last):
        tensorprog.errors.NotCoveredError: line tanh: not homogeneous of degree one, so its kernel needs the ...
    """
    chain = (duals,) * (1 if depth is None else depth) if not isinstance(duals, Sequence) else tuple(duals)
    layers = []
    for d in chain:
        if (layer := d.homogeneous) is None:
            raise NotCoveredError(d.phi.name, d.phi.degree,
                                  "not homogeneous of degree one, so its kernel needs the variances, too",
                                  "go layer by layer with Dual.with_slope")
        layers.append(layer)
    weights = (1.0,) * (len(layers) + 1) if rates is None else tuple(float(r) for r in rates)
    return _made(tuple(layers), weights)


@lru_cache(maxsize=64)
def _made(layers, rates) -> Composition:
    return Composition(layers, rates)
