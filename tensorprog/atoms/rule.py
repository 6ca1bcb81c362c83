"""Update rules: how an optimizer turns the gradients so far into the direction of its next step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tensorprog.errors import NotCoveredError, RecordError

#: The directions are checked on these gradients, one a step; a zero entry (a dead unit) must give a zero direction.
_GRADIENTS = np.array([[0.7, -1.3, 0.0, 0.02], [-0.4, -0.9, 0.0, 1.7], [1.1, 0.3, 0.0, -0.6]])


@dataclass(frozen=True, slots=True)
class Rule:
    """An entrywise update rule: ``w <- w - lr * direction(G_0, ..., G_t)``, decay apart.

    Args:
        name: as in ``optimizer(name)``.
        degree: how the direction scales with all gradients: 1 (linear) or 0 (Adam, sign); gauge and tables follow.
        direction_of: (gradients, eps) -> direction; gradients are arrays of one shape, the last one is the newest.
        weights: for linear rules t -> the exact weights of G_0, ..., G_t; None if the rule is not linear.
        has_eps: whether the rule has an epsilon, which must scale like the gradient to matter.
        weight_decay: the decoupled decay lambda of ``w <- (1 - lr*lambda) w``; None without one.
        sources: keys into docs/refs.bib.

    Raises:
        RecordError: the direction is not linear with these weights, not invariant under rescaling of the gradients,
            not odd in them, not zero where they are zero, or there is no source.

    Example:
        >>> from tensorprog.atoms.optimizers import optimizer
        >>> optimizer("momentum").linear_weights(2), optimizer("adam").degree, optimizer("sgd").lr_gauge
        ((Fraction(81, 100), Fraction(9, 10), Fraction(1, 1)), Fraction(0, 1), 2)
    """

    name: str
    degree: Fraction
    direction_of: Callable[[Sequence[np.ndarray], float], np.ndarray] = field(compare=False, repr=False)
    weights: Callable[[int], tuple[Fraction, ...]] | None = field(default=None, compare=False, repr=False)
    has_eps: bool = False
    weight_decay: Fraction | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.sources:
            raise self._refuse((), "no source", "add a key of docs/refs.bib to sources")
        if self.degree not in (0, 1):
            raise self._refuse(self.degree, "the degree is 1 (linear) or 0 (scale-free)", "declare one of them")
        if (self.degree == 1) != self.linear:
            raise self._refuse(self.degree, "a rule of degree 1 is linear and states its weights",
                               "give weights, or declare degree 0")
        for t in range(len(_GRADIENTS)):
            self._check(list(_GRADIENTS[: t + 1]), t)

    @property
    def linear(self) -> bool:
        """Whether the direction is a fixed linear combination of the gradients."""
        return self.weights is not None

    @property
    def family(self) -> str:
        """The family in tables: "sgd" (degree 1) or "sign" (degree 0)."""
        return "sgd" if self.degree == 1 else "sign"

    @property
    def lr_gauge(self) -> int:
        """The k of the symmetry (a, b, c) -> (a + theta, b - theta, c - k*theta): 1 + degree."""
        return 1 + int(self.degree)

    def linear_weights(self, t: int) -> tuple[Fraction, ...]:
        """Return the weights of G_0, ..., G_t in the direction of step t; NotCoveredError for nonlinear rules."""
        if self.weights is None:
            raise NotCoveredError(self.name, t, f"{self.name} is not linear in the gradients", "use direction")
        return self.weights(t)

    def direction(self, gradients: Sequence[np.ndarray], eps: float = 0.0) -> np.ndarray:
        """Return the direction of step t, entrywise, from ``gradients`` G_0, ..., G_t of one shape; 0/0 is 0."""
        return self.direction_of(gradients, eps)

    def _check(self, g: list[np.ndarray], t: int) -> None:
        d = self.direction(g, 0.0)
        if self.linear:
            told = sum(float(w) * x for w, x in zip(self.linear_weights(t), g, strict=True))
            if not np.allclose(d, told, rtol=1e-9, atol=1e-12):
                raise self._refuse(d, f"direction disagrees with linear_weights({t}), which give {told}", "correct one")
        elif not np.allclose(self.direction([3.0 * x for x in g], 0.0), d, rtol=1e-9, atol=1e-12):
            raise self._refuse(self.degree, f"the direction of step {t} changes when the gradients are rescaled",
                               "a rule of degree 0 does not; declare another degree")
        if not np.allclose(self.direction([-x for x in g], 0.0), -d, rtol=1e-9, atol=1e-12):
            raise self._refuse(d, f"the direction of step {t} is not odd in the gradients", "a descent direction is")
        if d[2] != 0:
            raise self._refuse(d[2], "zero gradients move the weight", "return 0 for 0/0")

    def _refuse(self, value, reason: str, fix: str) -> RecordError:
        return RecordError(f"optimizer {self.name!r}", value, reason, fix)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self):
        from tensorprog.atoms.optimizers import optimizer

        return optimizer, (self.name,)


def over(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x/y entrywise, with 0/0 = 0."""
    return np.divide(x, y, out=np.zeros_like(x), where=y != 0)


def discounted(xs: Sequence[np.ndarray], beta: float) -> np.ndarray:
    """Return ``sum_s beta^(t-s) xs[s]``, t the last step."""
    total = xs[0]
    for x in xs[1:]:
        total = beta * total + x
    return total
