"""sp, the standard parametrization: weights N(0, 1/fan_in), one learning rate; the multipliers and c are 0.

With the learning rate of width 1 it is unstable; ``with_lr(1)`` (SGD) is stable, in the kernel regime. For sign-like
optimizers no global learning rate is stable and moves features: see Tensor Programs IVb, Theorem 2.8.12.
"""

from fractions import Fraction

from tensorprog.atoms.abc import ABC, Regime
from tensorprog.atoms.parametrizations import register

HALF = Fraction(1, 2)
TABLE = {"input": (0, 0, 0), "hidden": (0, HALF, 0), "output": (0, HALF, 0)}


def _formula(fan_in, fan_out):
    return 0, fan_in / 2, 0


SP = register(ABC(
    name="sp", sgd=_formula, sign=_formula, table={"sgd": TABLE, "sign": TABLE},
    claims={"sgd": Regime(False, False, Fraction(-1)), "sign": Regime(False, False, Fraction(-1))},
    sources=("yang2021feature", "yang2023adaptive"),
))
