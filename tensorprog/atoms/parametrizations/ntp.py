"""ntp, the neural tangent parametrization: weights N(0, 1) behind a multiplier 1/sqrt(fan_in)."""

from fractions import Fraction

from tensorprog.atoms.abc import ABC, Regime
from tensorprog.atoms.parametrizations import register

HALF = Fraction(1, 2)

NTP = register(ABC(
    name="ntp",
    sgd=lambda fan_in, fan_out: (fan_in / 2, 0, 0),
    sign=lambda fan_in, fan_out: (fan_in / 2, 0, (fan_in + fan_out) / 2),
    table={
        "sgd": {"input": (0, 0, 0), "hidden": (HALF, 0, 0), "output": (HALF, 0, 0)},
        "sign": {"input": (0, 0, HALF), "hidden": (HALF, 0, 1), "output": (HALF, 0, HALF)},
    },
    claims={"sgd": Regime(True, True, HALF), "sign": Regime(True, True, HALF)},
    sources=("jacot2018neural", "yang2021feature", "yang2023adaptive"),
))
