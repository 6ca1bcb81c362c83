"""mfp, the mean field parametrization of networks with one hidden layer under SGD: output multiplier 1/n, rate n."""

from fractions import Fraction

from tensorprog.atoms.abc import ABC, Regime
from tensorprog.atoms.parametrizations import register


def _formula(fan_in, fan_out):
    return None if fan_in and fan_out else (fan_in, 0, -max(fan_in, fan_out))


MFP = register(ABC(
    name="mfp", sgd=_formula, sign=None, depth=1,
    table={"sgd": {"input": (0, 0, -1), "output": (1, 0, -1)}},
    claims={"sgd": Regime(True, True, Fraction(0))},
    sources=("mei2018mean", "chizat2018global", "yang2021feature"),
))
