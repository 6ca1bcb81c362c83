"""Losses: a value and its gradient by the network's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.atoms.function import Function
from tensorprog.errors import NotCoveredError, RecordError
from tensorprog.exponents.affine import Values

Array = np.ndarray
_OUTPUTS = np.array([[0.3, -1.2, 0.7], [2.1, 0.4, -0.5]])
_LABELS = np.array([[1.0, -1.0, 1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, slots=True)
class LossGradient(Function):
    """``chi = dL/df`` as a function of the output f and the label y, vectors along one fixed axis.

    Args:
        loss: the loss' name.
        fn: arrays (f, y) of shape (..., d_out) to chi, of the same shape.
        slopes: the derivatives by f and by y, coordinate by coordinate; None for a gradient that mixes coordinates.
        linear: (p, q) if chi = p f + q y, else None.
        order: the arguments by which it has been differentiated: () is chi itself.

    Example:
        >>> from tensorprog.atoms.losses import loss
        >>> chi = loss("logistic").gradient
        >>> chi.evaluate({}, {}, 0.0, 1.0), chi.spelled("f", "y"), chi.mixes_coordinates
        (-0.5, 'logistic_gradient(f, y)', False)
    """

    loss: str
    fn: Callable[[Array, Array], Array] = field(compare=False, repr=False)
    slopes: tuple[Callable[[Array, Array], Array], ...] | None = field(default=None, compare=False, repr=False)
    linear: tuple[Fraction, Fraction] | None = None
    order: tuple[int, ...] = ()
    key: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """``LOSS_gradient``; ``d0_LOSS_gradient`` for its derivative by the output."""
        return "".join(f"d{i}_" for i in self.order) + f"{self.loss}_gradient"

    @property
    def arity(self) -> int:
        """The output and the label."""
        return 2

    @property
    def mixes_coordinates(self) -> bool:
        """Whether a coordinate of chi depends on the other coordinates of f."""
        return self.slopes is None and not self.order

    @property
    def parity(self) -> str | None:
        """Odd in (f, y) jointly if linear."""
        return "odd" if self.linear else None

    @property
    def degree(self) -> Fraction | None:
        """Homogeneous of degree 1 in (f, y) jointly if linear."""
        return Fraction(1) if self.linear else None

    @property
    def value_at_zero_nonzero(self) -> bool:
        """Whether chi is nonzero where the output is 0 (and the label is not): a network can start to learn there."""
        return bool(np.any(self.fn(np.zeros(3), _LABELS[0])))

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return chi at arrays of shape (..., d_out), or at floats (d_out = 1)."""
        f, y = args
        if np.ndim(f) == 0 and np.ndim(y) == 0:
            return float(self.fn(np.full(1, f, float), np.full(1, y, float))[0])
        f = np.asarray(f)
        return self.fn(f, np.asarray(y, f.dtype)).astype(f.dtype, copy=False)

    def partial(self, i: int) -> LossGradient:
        """Return the derivative by f (0) or y (1).

        Raises:
            NotCoveredError: chi mixes coordinates, or it is a derivative already.
        """
        if self.slopes is None:
            raise NotCoveredError(self.name, i, "it has no coordinatewise derivative of this order",
                                  "differentiate the loss by hand")
        return LossGradient(self.loss, self.slopes[i], None, None, (*self.order, i), self.key)

    def __reduce__(self):
        # like the loss it belongs to: its functions do not travel between processes by themselves
        return _gradient_of, (self.loss if self.key is None else self.key, self.order)


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss ``L(f, y)`` of a network's output; refused if its gradient disagrees with finite differences.

    Args:
        name: as in ``loss NAME`` in the text form.
        value: arrays (f, y) of shape (d_out,) to the number L; None if it is not known.
        gradient: chi = dL/df.
        sources: keys into docs/refs.bib.

    Raises:
        RecordError: the gradient disagrees with the value, or there is no source.
    """

    name: str
    value: Callable[[Array, Array], float] | None = field(compare=False, repr=False)
    gradient: LossGradient
    sources: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.sources:
            raise RecordError(f"loss {self.name!r}", (), "no source", "add a key of docs/refs.bib to sources")
        for f, y in zip(_OUTPUTS, _LABELS, strict=True):
            self._check(f, y)

    def _check(self, f: Array, y: Array) -> None:
        told = self.gradient.fn(f, y)
        if np.shape(told) != f.shape:
            raise RecordError(f"loss {self.name!r}", np.shape(told), "the gradient has another shape than the output",
                              "return one number a coordinate")
        if self.value is not None:
            steps = 1e-5 * np.eye(len(f))
            seen = np.array([(self.value(f + h, y) - self.value(f - h, y)) / 2e-5 for h in steps])
            if not np.allclose(told, seen, rtol=1e-6, atol=1e-8):
                raise RecordError(f"loss {self.name!r}", told, "gradient disagrees with finite differences of the "
                                  f"value at f = {f}, y = {y}", f"there they are {seen}")
        for i, slope in enumerate(self.gradient.slopes or ()):
            steps = [1e-5 * (i == j) for j in range(2)]
            up, down = (self.gradient.fn(f + s * steps[0], y + s * steps[1]) for s in (1, -1))
            if not np.allclose(slope(f, y), (up - down) / 2e-5, rtol=1e-6, atol=1e-8):
                raise RecordError(f"loss {self.name!r}", slope(f, y), f"derivative {i} of the gradient disagrees with "
                                  f"finite differences at f = {f}, y = {y}", f"there they are {(up - down) / 2e-5}")

    def __str__(self) -> str:
        return self.name

    def __reduce__(self):
        if self.gradient.key is not None:
            make, *args = self.gradient.key
            return make, tuple(args)
        return _look_up, (self.name,)


def _look_up(name: str) -> Loss:
    from tensorprog.atoms.losses import loss

    return loss(name)


def _gradient_of(source: str | tuple, order: tuple[int, ...]) -> LossGradient:
    out = (_look_up(source) if isinstance(source, str) else source[0](*source[1:])).gradient
    for i in order:
        out = out.partial(i)
    return out
