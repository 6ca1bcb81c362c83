"""Losses: one a file, named like it."""

from __future__ import annotations

from collections.abc import Callable

from tensorprog.atoms.loss import Loss, LossGradient
from tensorprog.atoms.registry import Folder

_LOSSES = Folder("losses", "loss")


def register(record: Loss) -> Loss:
    """Register a loss under its name; returns it."""
    return _LOSSES.add(record)


def loss(name: str) -> Loss:
    """Return a loss by name; raises ParseError listing near names.

    >>> import numpy as np
    >>> loss("squared").gradient.evaluate({}, {}, np.array([2.0, 1.0]), np.array([1.0, 1.0]))
    array([1., 0.])
    """
    return _LOSSES.get(name)


def losses() -> tuple[Loss, ...]:
    """Return every registered loss."""
    return _LOSSES.all()


def generic(gradient: Callable, *, value: Callable | None = None, name: str = "generic",
            mixes_coordinates: bool = False, sources: tuple[str, ...] = ("user",)) -> Loss:
    """Return a user's loss from its gradient ``chi(f, y)``, a numpy function of arrays of shape (..., d_out).

    Args:
        value: the loss itself; if given, the gradient is checked against it.
        mixes_coordinates: whether a coordinate of chi depends on others of f. If not, chi has derivatives
            (by central differences).

    Raises:
        RecordError: the gradient disagrees with the value.

    Example:
        >>> import numpy as np
        >>> huber = generic(lambda f, y: np.clip(f - y, -1, 1), name="huber")
        >>> huber.gradient.evaluate({}, {}, 3.0, 0.0), huber.gradient.name
        (1.0, 'huber_gradient')
    """
    slopes = None if mixes_coordinates else tuple(_slope(gradient, i) for i in range(2))
    key = (_generic, gradient, value, name, mixes_coordinates, sources)
    return Loss(name, value, LossGradient(name, gradient, slopes, key=key), sources)


def _generic(gradient, value, name, mixes_coordinates, sources) -> Loss:
    return generic(gradient, value=value, name=name, mixes_coordinates=mixes_coordinates, sources=sources)


def _slope(fn: Callable, i: int) -> Callable:
    def slope(f, y):
        h = 1e-5
        up, down = (fn(f + s * h * (i == 0), y + s * h * (i == 1)) for s in (1, -1))
        return (up - down) / (2 * h)

    return slope
