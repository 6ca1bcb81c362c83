"""The published theorems on plain networks, written from their inequalities; nothing here comes from the package.

``a, b, c`` list the exponents of the L hidden layers and the readout: W^l = n^-a_l w^l, w ~ N(0, n^-2b_l), learning
rate n^-c_l.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

HALF = Fraction(1, 2)


class Standing(NamedTuple):
    stable: bool
    nontrivial: bool
    feature_learning: bool
    r: Fraction

    @property
    def verdict(self) -> str:
        if not self.stable:
            return "unstable"
        return "trivial" if not self.nontrivial else "feature_learning" if self.feature_learning else "kernel"


def starts_right(a, b) -> bool:
    """Preactivations are Theta(1) and outputs O(1) at initialization."""
    first, *middle, last = (x + y for x, y in zip(a, b, strict=True))
    return first == 0 and all(x == HALF for x in middle) and last >= HALF


def sgd(a, b, c) -> Standing:
    """Tensor Programs IV: Definition 3.2, Theorems 3.3, 3.4, 3.6 and 3.8, each layer with its own learning rate."""
    back = min(a[-1] + b[-1], 2 * a[-1] + c[-1])
    r = min(back + c[i] - 1 + 2 * a[i] + (i == 0) for i in range(len(a) - 1))
    stable = starts_right(a, b) and r >= 0 and 2 * a[-1] + c[-1] >= 1 and a[-1] + b[-1] + r >= 1
    nontrivial = stable and (a[-1] + b[-1] + r == 1 or 2 * a[-1] + c[-1] == 1)
    return Standing(stable, nontrivial, nontrivial and r == 0, r)


def sgd_exponents(a, b, c, steps: int) -> dict[str, Fraction]:
    """Tensor Programs IV, Proposition 5.3: the exponents of the changes of every preactivation and of the output.

    After one step the readout's update has not yet been backpropagated through.
    """
    back = a[-1] + b[-1] if steps == 1 else min(a[-1] + b[-1], 2 * a[-1] + c[-1])
    rs = [back + c[i] - 1 + 2 * a[i] + (i == 0) for i in range(len(a) - 1)]
    out = {f"Dh{i + 1}": -min(rs[:i + 1]) for i in range(len(rs))}
    return out | {"Df": -min(2 * a[-1] + c[-1] - 1, a[-1] + b[-1] + min(rs) - 1)}


def sign(a, b, c) -> Standing:
    """Tensor Programs IVb: Theorems 2.8.12, 2.8.15 and 2.8.19, for faithful gradient scales."""
    r = min(c[i] + a[i] - (i > 0) for i in range(len(a) - 1))
    stable = starts_right(a, b) and r >= 0 and a[-1] + c[-1] >= 1 and a[-1] + b[-1] + r >= 1
    nontrivial = stable and (a[-1] + c[-1] == 1 or a[-1] + b[-1] + r == 1)
    return Standing(stable, nontrivial, nontrivial and r == 0, r)


def faithful(b, c) -> bool:
    """Gradients keep the size they have at initialization: b <= c at the readout (IVb, Theorem 2.8.12)."""
    return b[-1] <= c[-1]


def sample(rng, depth: int, theorem: str):
    """Return random (a, b, c) on a grid of quarters, mostly near the boundaries of the theorem's regions."""

    def quarter(low, high):
        return Fraction(rng.randint(4 * low, 4 * high), 4)

    def near(x):
        return x + Fraction(rng.choice((-1, 0, 0, 0, 0, 1, 2)), 4)

    a = [quarter(-1, 1) for _ in range(depth + 1)]
    b = [-a[0], *(HALF - x for x in a[1:-1]), quarter(0, 2) - a[-1]]
    if rng.random() < 0.1:
        b[rng.randrange(depth)] += rng.choice((-HALF, HALF))
    if rng.random() < 0.25:
        return a, b, [quarter(-2, 3)] * (depth + 1)
    if theorem == "sgd":
        last = near(1 - 2 * a[-1])
        back = min(a[-1] + b[-1], 2 * a[-1] + last)
        aim = Fraction(rng.choice((0, 0, 1, 2)), 4)
        return a, b, [near(aim + 1 - 2 * a[i] - (i == 0) - back) for i in range(depth)] + [last]
    aim = Fraction(rng.choice((0, 0, 1, 2)), 4)
    if rng.random() < 0.5:
        b[-1] = near(1 - aim - a[-1])
    return a, b, [near(aim - a[i] + (i > 0)) for i in range(depth)] + [near(1 - a[-1])]
