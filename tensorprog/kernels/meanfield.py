r"""The mean-field reading of a deep network: variances and correlations from layer to layer, gradients back.

In ``h^{l+1} = W phi(h^l) + b``, W_ij ~ N(0, sigma_w2 / n), b_i ~ N(0, sigma_b2), the preactivations of two inputs are
Gaussian with variance q and correlation c:

    q' = sigma_w2 E phi(sqrt(q) Z)^2 + sigma_b2,      c' q* = sigma_w2 E phi(u) phi(v) + sigma_b2,

and a gradient grows by ``chi = sigma_w2 E phi'(u)^2`` a layer. It is also the slope of the map of correlations at
c = 1: below 1 all inputs become one (order), above 1 near ones part (chaos), and at 1, the edge of chaos, depth costs
least. Correlations are kept as distances ``e = 1 - c``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import NotCoveredError, UnsolvableError
from tensorprog.kernels import variances as vs
from tensorprog.kernels.table import Table, root

#: Variances among which fixed points and edges are looked for.
_SCAN = np.concatenate([[0.0], 10.0 ** np.arange(-6, 6.01, 0.25)])
#: A network of slope this near 1 is critical.
_CRITICAL = 1e-9


class Rate(NamedTuple):
    """``1 - c_l ~ constant / l^power``."""

    constant: float
    power: int


@dataclass(frozen=True)
class MeanField:
    r"""A nonlinearity between Gaussian weights and biases, in the limit of infinite width.

    Args:
        phi: a nonlinearity or its name.
        sigma_w2: variance of the weights, times the width; order n^0.
        sigma_b2: variance of the biases.
        q0: variance of the first preactivations, from which the fixed point is reached (where there are several, or,
            as for relu at its edge of chaos, every variance is one).

    Raises:
        NotCoveredError: an expectation diverges.
        UnsolvableError: a negative variance.

    Example:
        >>> net = MeanField("tanh", 2.0, 0.1)
        >>> print(net)
        tanh, sigma_w^2 = 2, sigma_b^2 = 0.1: chaotic, q* = 0.8146, chi = 1.003, c* = 0.988, correlation length 336
        >>> MeanField("relu", 2).phase, MeanField("relu", 2).chi()
        ('critical', 1.0)

    Source: poole2016exponential, schoenholz2017deep (variances, correlations, gradients).
    """

    phi: Nonlinearity
    sigma_w2: float
    sigma_b2: float = 0.0
    q0: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "phi", vs.named(self.phi))
        for name in ("sigma_w2", "sigma_b2", "q0"):
            value = float(getattr(self, name))
            if not 0 <= value < math.inf:
                raise UnsolvableError(f"MeanField({self.phi}, ...)", value, f"{name} is a variance",
                                      "give a number >= 0")
            object.__setattr__(self, name, value)

    @classmethod
    def at(cls, phi: Nonlinearity | str, q: float, sigma_b2: float = 0.0) -> MeanField:
        """Return the network whose preactivations keep the variance q: ``sigma_w2 = (q - sigma_b2) / E phi^2``.

        >>> round(MeanField.at("relu", 3.0).sigma_w2, 12)
        2.0
        """
        record = vs.named(phi)
        size = vs.second(record, q)
        if not (q > sigma_b2 or q == sigma_b2 == 0) or size == 0:
            raise UnsolvableError(f"MeanField.at({record}, {q})", sigma_b2, "no sigma_w^2 > 0 keeps this variance",
                                  "give q > sigma_b2, and a function that is not zero")
        return cls(record, (q - sigma_b2) / size, sigma_b2, q)

    # ------------------------------------------------------------------------------------------- variances

    def variance(self, q: float) -> float:
        """Return the variance one layer on, ``sigma_w2 E phi(sqrt(q) Z)^2 + sigma_b2``."""
        return self.sigma_w2 * vs.second(self.phi, q) + self.sigma_b2

    def variances(self, depth: int) -> np.ndarray:
        """Return q_0, ..., q_depth from ``q0``, shape (depth + 1,).

        >>> MeanField("relu", 1.0).variances(3).round(12).tolist()
        [1.0, 0.5, 0.25, 0.125]
        """
        out = [self.q0]
        for _ in range(depth):
            out.append(self.variance(out[-1]))
        return np.array(out)

    @cached_property
    def fixed_points(self) -> tuple[float, ...]:
        """The variances that the map keeps, between 0 and 1e6, each once; if it keeps all (relu at 2, 0): ``q0``."""
        off = np.array([self._grown(q) - q for q in _SCAN])
        if np.all(np.abs(off) <= 1e-12 * (1 + _SCAN)):
            return (self.q0,)
        found = [float(q) for q, d in zip(_SCAN, off, strict=True) if d == 0]
        for i in np.flatnonzero(off[1:] * off[:-1] < 0):
            found.append(root(lambda q: self.variance(q) - q, float(_SCAN[i]), float(_SCAN[i + 1])))
        return tuple(sorted(found))

    @cached_property
    def q(self) -> float:
        """The fixed point q* reached from ``q0``; infinite if the variance grows without bound.

        >>> MeanField("erf", 0.5).q, MeanField("relu", 3).q, round(MeanField("relu", 1, 0.5).q, 12)
        (0.0, inf, 1.0)

        Raises:
            NotCoveredError: the variances neither settle nor run off (they may oscillate).
        """
        before, now = self.q0, self.q0
        for _ in range(30):
            before, now = now, self._grown(now)
            if math.isinf(now) or abs(now - before) <= 1e-15 * now:
                return now
        ahead = [p for p in self.fixed_points if (p - now) * (now - before) >= -1e-12 * now * abs(now - before)]
        if not ahead:
            if now > before:
                return math.inf
            raise NotCoveredError(self._title, now, "the variances do not settle", "start elsewhere: q0=...")
        near = min(ahead, key=lambda p: abs(p - now))
        if abs(self._drift(near)) > 1 + 1e-6 and near > 0:
            raise NotCoveredError(self._title, now, f"the variances do not settle: {near} repels",
                                  "start elsewhere: q0=...")
        return near

    def _grown(self, q: float) -> float:
        # the variance one layer on; infinite where doubles do not hold it
        try:
            return self.variance(q)
        except NotCoveredError:
            return math.inf

    def _drift(self, q: float) -> float:
        # the slope of the map of variances
        h = 1e-4 * q
        return (self.variance(q + h) - self.variance(q - h)) / (2 * h) if q else self.variance(1e-8) / 1e-8

    @property
    def variance_length(self) -> float:
        """Layers over which a deviation from q* falls by e: ``-1/log`` of the slope of the map of variances at q*."""
        return _length(abs(self._drift(self._settled)))

    @property
    def _settled(self) -> float:
        if math.isinf(self.q):
            raise NotCoveredError(self._title, self.q, "the variances grow without bound", "a smaller sigma_w2")
        return self.q

    # ---------------------------------------------------------------------------------------- correlations

    def chi(self, c: float = 1.0) -> float:
        """Return ``sigma_w2 E phi'(u) phi'(v)`` at q* and correlation c: the slope of the map of correlations there.

        At c = 1 it is the factor by which the square of a gradient grows in one layer backwards. Where phi jumps its
        derivative is the weak one: infinite at c = 1.

        >>> MeanField("sign", 1.0).chi(0.0) == 2 / math.pi, MeanField("sign", 1.0).chi()
        (True, inf)
        """
        return self.sigma_w2 * vs.slopes(self.phi, 1.0 if self.phi.degree == 1 else self._settled, c)

    def distance(self, e):
        """Return ``1 - c'`` from ``1 - c`` at the fixed point q*, for an array of any shape; exact for small ones.

        The map is tabulated once: ``(1 - c') / (1 - c)`` is smooth in the angle arccos(c), kinks or not.

        >>> net = MeanField("relu", 2)
        >>> e = np.array([1e-8, 0.5, 1.0])
        >>> t = np.arccos(1 - e)
        >>> np.allclose(net.distance(e)[1:], 1 - ((np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi)[1:], rtol=1e-12)
        True
        """
        if self._settled == 0 and self.phi.degree != 1:
            return e  # linear around 0: variances shrink, angles stay
        if np.ndim(e) == 0:
            angle = 2 * math.asin(math.sqrt(e / 2))
            return self._table(angle > math.pi / 2)(angle) * (angle if self.phi.jumps else float(e))
        angle = 2 * np.arcsin(np.sqrt(np.asarray(e, float) / 2))
        far, out = angle > math.pi / 2, np.empty_like(angle)
        for half in (False, True):
            if np.any(far == half):
                out[far == half] = self._table(half)(angle[far == half])
        return out * (angle if self.phi.jumps else e)

    def distances(self, c0, depth: int) -> np.ndarray:
        """Return ``1 - c_l`` for l = 0, ..., depth, shape (depth + 1, *shape of c0), at the fixed point q*.

        >>> e = MeanField("relu", 2).distances(0.0, 1000)
        >>> bool(0.95 < e[1000] * 1000**2 / MeanField("relu", 2).rate.constant < 1)
        True
        """
        out: list = [1.0 - (float(c0) if np.ndim(c0) == 0 else np.asarray(c0, float))]
        for _ in range(depth):
            out.append(self.distance(out[-1]))
        return np.array(out)

    def correlations(self, c0, depth: int) -> np.ndarray:
        """Return c_0, ..., c_depth, along a first axis of length depth + 1.

        >>> MeanField("tanh", 1.5, 0.1).correlations(0.2, 2).round(4).tolist()
        [0.2, 0.3..., 0.4...]
        """
        return 1.0 - self.distances(c0, depth)

    def _table(self, half: bool) -> Table:
        tables = self.__dict__.setdefault("_tables", {})
        if half not in tables:
            tables[half] = Table(self._quotient, half * math.pi / 2, (half + 1) * math.pi / 2)
        return tables[half]

    def _quotient(self, angle: float) -> float:
        # (1 - c') / (1 - c), by the angle where phi jumps: (1 - c') / angle
        q, w = self._settled, self.sigma_w2
        if q == 0:
            q, w = 1.0, 1 / vs.second(self.phi, 1.0)  # of degree 1: variances shrink, angles go their own way
        if angle == 0:
            if not self.phi.jumps:
                return w * vs.slopes(self.phi, q)
            at, by = vs.jumps(self.phi)
            return w / math.sqrt(2 * math.pi * q) * float(by**2 @ vs.density(at, q))
        e = 2 * math.sin(angle / 2) ** 2
        return w * vs.gap(self.phi, q, e) / q / (angle if self.phi.jumps else e)

    @cached_property
    def c(self) -> float:
        """The correlation c* that inputs of correlation in [0, 1) tend to.

        The map is convex on [0, 1], since its derivatives are positive there, and keeps 1: it has at most one more
        fixed point, and that one attracts if chi > 1.

        >>> MeanField("relu", 1, 1).c, MeanField("tanh", 3).c, round(MeanField("tanh", 2, 0.1).c, 3)
        (1.0, 0.0, 0.988)
        """
        q = self._settled
        if self.chi() <= 1 + _CRITICAL:
            return 1.0
        if (self.phi.parity == "odd" and self.sigma_b2 == 0) or q == 0:
            return 0.0

        def excess(angle: float) -> float:
            e = 2 * math.sin(angle / 2) ** 2
            return self.sigma_w2 * vs.gap(self.phi, q, e) / (q * e) - 1

        low = 1e-5
        if excess(low) <= 0:
            return 1.0
        return math.cos(root(excess, low, math.pi / 2)) if excess(math.pi / 2) < 0 else 0.0

    @property
    def phase(self) -> str:
        """ "ordered" (chi < 1), "critical" (chi = 1, to 1e-9) or "chaotic"."""
        chi = self.chi()
        return "critical" if abs(chi - 1) <= _CRITICAL else "ordered" if chi < 1 else "chaotic"

    @property
    def correlation_length(self) -> float:
        """Layers over which the inputs' correlation is forgotten by a factor e: ``-1 / log chi(c*)``.

        Infinite at the edge of chaos. With variances that go to 0 it is the limit of small biases.

        >>> round(MeanField("sign", 1.0).correlation_length, 6) == round(-1 / math.log(2 / math.pi), 6)
        True

        Source: schoenholz2017deep (the depth scale of correlations).
        """
        if self.phase == "critical":
            return math.inf
        return _length(self.chi(self.c))

    def trainable_depth(self, factor: float = 6.0) -> float:
        """Return the depth beyond which training fails: ``factor`` correlation lengths.

        The law is the proportionality, of depth to correlation length; the factor was read off experiments with SGD.

        >>> MeanField("relu", 2).trainable_depth(), round(MeanField("relu", 1.5, 1).trainable_depth(), 2)
        (inf, 20.86)

        Source: schoenholz2017deep (experiments); blumenfeld2019mean (the proportionality).
        """
        return factor * self.correlation_length

    # ------------------------------------------------------------------------------------------- gradients

    def gradient(self, depth: float) -> float:
        """Return the factor by which the mean square of a gradient grows over ``depth`` layers, ``chi^depth``.

        Raises:
            NotCoveredError: phi jumps; its derivative almost everywhere is not the one that chi is made of.

        >>> round(MeanField("relu", 1.8).gradient(10), 12) == round(0.9**10, 12)
        True
        """
        if self.phi.jumps:
            raise NotCoveredError(self._title, self.phi.name, "it jumps: backpropagation does not see its slope",
                                  "train through a smooth surrogate, and read its MeanField")
        return self.chi() ** depth

    @property
    def gradient_length(self) -> float:
        """Layers over which the mean square of a gradient changes by e: ``1 / |log chi|``."""
        return _length(self.gradient(1))

    @property
    def rate(self) -> Rate:
        r"""How correlations approach 1 at the edge of chaos.

        ``1 - c_l ~ beta / l`` for smooth phi, ``beta = 2 / (sigma_w2 q E phi''^2)``; with slopes that jump by h_j at
        t_j ``4 / (s l)^2``, ``s = sqrt(2) / (3 pi) sigma_w2 sum_j h_j^2 exp(-t_j^2 / 2 q)``.

        Raises:
            NotCoveredError: away from the edge (there it is exponential: ``correlation_length``), or at variance 0.

        >>> r = MeanField("relu", 2).rate
        >>> r.power, math.isclose(r.constant, 4.5 * math.pi**2)
        (2, True)

        Source: hayou2019impact.
        """
        if self.phase != "critical" or self.q == 0:
            raise NotCoveredError(self._title, self.chi(), "an algebraic rate belongs to the edge of chaos, at q* > 0",
                                  "start from edge_of_chaos(phi, sigma_b2), or read correlation_length")
        at, by = vs.bends(self.phi)
        if len(at):
            s = self.sigma_w2 * float(by**2 @ np.exp(-at**2 / (2 * self.q))) * math.sqrt(2) / (3 * math.pi)
            return Rate(4 / s**2, 2)
        bent = self.sigma_w2 * self.q * vs.curvature(self.phi, self.q)
        if bent == 0:
            raise NotCoveredError(self._title, bent, "it is linear: correlations stay", "a nonlinearity")
        return Rate(2 / bent, 1)

    @property
    def _title(self) -> str:
        return f"{self.phi}, sigma_w^2 = {self.sigma_w2:g}, sigma_b^2 = {self.sigma_b2:g}"

    def __str__(self) -> str:
        if math.isinf(self.q):
            return f"{self._title}: the variance grows without bound"
        return (f"{self._title}: {self.phase}, q* = {self.q:.4g}, chi = {self.chi():.4g}, c* = {self.c:.4g}, "
                f"correlation length {self.correlation_length:.4g}")


def edge_of_chaos(phi: Nonlinearity | str, sigma_b2: float = 0.0, *, attracting: bool = True) -> MeanField:
    """Return the network at the edge of chaos: chi = 1 at a fixed point q* of the variances, the smallest one.

    Solves ``q = E phi^2 / E phi'^2 + sigma_b2`` with ``sigma_w2 = 1 / E phi'^2``.

    Args:
        phi: a nonlinearity or its name.
        sigma_b2: variance of the biases.
        attracting: whether variances near q* must tend to it. Those of gelu and silu do not: from q* itself they stay
            there for some layers, in the end they run off.

    Raises:
        UnsolvableError: there is none with this sigma_b2 (relu: only with sigma_b2 = 0), or it repels.
        NotCoveredError: phi jumps: chi is infinite.

    Example:
        >>> net = edge_of_chaos("tanh", 0.05)
        >>> round(net.sigma_w2, 9), round(net.q, 9)
        (1.76095464, 0.570047882)
        >>> edge_of_chaos("relu").sigma_w2, math.isclose(edge_of_chaos("erf").sigma_w2, math.pi / 4)
        (2.0, True)
        >>> edge_of_chaos("relu", 0.1)
        Traceback (most recent call last):
        tensorprog.errors.UnsolvableError: line edge of chaos of relu: no sigma_w^2 is critical with these biases (...

    Source: schoenholz2017deep, hayou2019impact.
    """
    record = vs.named(phi)
    if record.jumps:
        raise NotCoveredError(f"edge of chaos of {record}", record.name, "it jumps: chi is infinite",
                              "MeanField(...).chi(c) for c < 1, or longest(...)")

    def slope(q: float) -> float:
        return vs.slopes(record, q)

    def excess(q: float) -> float:
        return q - vs.second(record, q) / slope(q) - sigma_b2

    if record.degree == 1:
        if sigma_b2 == 0:
            return MeanField(record, 1 / slope(1.0), 0.0)
        raise _no_edge(record, sigma_b2)
    if sigma_b2 == 0 and not vs.bends(record)[0].size and not record(0.0) and slope(0.0):
        start = MeanField(record, 1 / slope(0.0), 0.0, 1e-4)
        if start.variance(1e-4) < 1e-4:
            return start
    grid = _SCAN[1:]
    off, repelling = np.array([excess(q) if slope(q) > 0 else np.nan for q in grid]), []
    for i in np.flatnonzero(off[1:] * off[:-1] <= 0):
        q = root(excess, float(grid[i]), float(grid[i + 1]))
        net = MeanField(record, 1 / slope(q), sigma_b2, q)
        if abs(net._drift(q)) < 1 or not attracting:
            net.__dict__["q"] = q
            return net
        repelling.append(net)
    if repelling:
        w, q = repelling[0].sigma_w2, repelling[0].q0
        raise UnsolvableError(f"edge of chaos of {record}", sigma_b2, f"chi = 1 at q* = {q:.6g} (sigma_w^2 = {w:.6g}), "
                              "from which variances run off", "attracting=False to have it anyway")
    raise _no_edge(record, sigma_b2)


def _no_edge(record: Nonlinearity, sigma_b2: float) -> UnsolvableError:
    return UnsolvableError(f"edge of chaos of {record}", sigma_b2, "no sigma_w^2 is critical with these biases",
                           "another sigma_b2; relu and its kind have sigma_b2 = 0 only")


def edge_curve(phi: Nonlinearity | str, sigma_b2: Iterable[float]) -> np.ndarray:
    """Return the critical sigma_w2 for each sigma_b2, shape (N,).

    >>> edge_curve("tanh", [0.0, 0.05]).round(6).tolist()
    [1.0, 1.760955]
    """
    return np.array([edge_of_chaos(phi, b).sigma_w2 for b in sigma_b2])


def longest(phi: Nonlinearity | str, sigma_b2: float = 0.0, span: tuple[float, float] = (1e-2, 1e2)) -> MeanField:
    """Return the network with the longest correlation length, over fixed points q* in ``span``.

    Of a quantizer this is the best spacing of its levels: what counts is the spacing in units of sqrt(q*).

    >>> net = longest("quantizer(4)")
    >>> round(1 - net.chi(net.c), 6), round(2 / 3 / math.sqrt(net.q), 4)         # spacing 2/3
    (0.118846, 0.9957)

    Source: blumenfeld2019mean.
    """
    from scipy.optimize import minimize_scalar

    record = vs.named(phi)

    def loss(log_q: float) -> float:
        net = MeanField.at(record, math.exp(log_q), sigma_b2)
        net.__dict__["q"] = net.q0
        return net.chi(net.c)

    low, high = (math.log(max(x, (1 + 1e-6) * sigma_b2)) for x in span)
    grid = np.linspace(low, high, 25)
    best = int(np.argmax([loss(x) for x in grid]))
    found = minimize_scalar(lambda x: -loss(x), bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 24)]),
                            method="bounded", options={"xatol": 1e-10})
    return MeanField.at(record, math.exp(found.x), sigma_b2)


def _length(factor: float) -> float:
    return math.inf if factor == 1 else 0.0 if factor in (0, math.inf) else 1 / abs(math.log(factor))
