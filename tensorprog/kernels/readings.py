"""What a network's variables are for the recursion of covariances, if they are not vectors along a width (``Z``)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tensorprog.kernels.plan import Node
from tensorprog.program.dims import Dim


@dataclass(frozen=True, slots=True)
class Number:
    """A scalar: ``node * n^power``; ``node`` is None if it stays random in the limit."""

    power: Fraction
    node: Node | None


@dataclass(frozen=True, slots=True)
class Fixed:
    """A vector along a fixed axis that is not random: ``node * n^power``."""

    power: Fraction
    node: Node


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix with entries ``mean n^mean_power + N(0, variance n^(2 power))``.

    ``rate n^rate_power``: learning rate times the squared multiplier; 0 if it is not trained.
    """

    name: str
    rows: Dim
    cols: Dim
    variance: float
    power: Fraction
    mean: float
    mean_power: Fraction
    rate: float
    rate_power: Fraction
