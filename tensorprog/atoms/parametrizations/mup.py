"""mup, the maximal update parametrization.

Between axes of other growths than 0 and 1 the formulas follow the spectral condition: initial entries of size
min(1, sqrt(fan_out/fan_in)) / sqrt(fan_in), updates as large as stability allows.
"""

from fractions import Fraction

from tensorprog.atoms.abc import ABC, Regime
from tensorprog.atoms.parametrizations import register

HALF = Fraction(1, 2)
MAXIMAL = Regime(True, True, Fraction(0))


def _sign(fan_in, fan_out):
    narrow = min(fan_in, fan_out)
    return fan_in - narrow, narrow / 2, narrow


MUP = register(ABC(
    name="mup",
    sgd=lambda fan_in, fan_out: ((fan_in - fan_out) / 2, max(fan_in, fan_out) / 2, 0),
    sign=_sign,
    table={
        "sgd": {"input": (-HALF, HALF, 0), "hidden": (0, HALF, 0), "output": (HALF, HALF, 0)},
        "sign": {"input": (0, 0, 0), "hidden": (0, HALF, 1), "output": (1, 0, 0)},
    },
    claims={"sgd": MAXIMAL, "sign": MAXIMAL},
    sources=("yang2021feature", "yang2023adaptive", "yang2023spectral"),
))
