"""gelu_tanh(x) = x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3): the approximation of gelu in many programs.

(1 + tanh u)/2 = sigmoid(2u), which neither cancels nor overflows.
"""

import math
from fractions import Fraction

import numpy as np

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, X, constant, smooth
from tensorprog.atoms.special import sigmoid

CUBIC = Fraction(44715, 1_000_000)
K = math.sqrt(2 / math.pi)
#: s' = r s (2u)', with (2u)' = 2k + 6 CUBIC k x^2 and k = sqrt(2/pi).
SLOPE = {"krs": Fraction(2), "krsxx": 6 * CUBIC}


def _argument(x):
    y = np.clip(x, -100, 100)
    return (2 * K) * (y + float(CUBIC) * y * y * y)


def _k():
    import sympy

    return sympy.sqrt(2 / sympy.pi)


def _sigmoid(sign):
    def formula(x):
        import sympy

        u = _k() * (x + sympy.Rational(CUBIC.numerator, CUBIC.denominator) * x**3)
        return (1 + sign * sympy.tanh(u)) / 2

    return formula


LETTERS = {
    "s": Generator(lambda x: sigmoid(_argument(x)), SLOPE, _sigmoid(1)),
    "r": Generator(lambda x: sigmoid(-_argument(x)), {m: -c for m, c in SLOPE.items()}, _sigmoid(-1)),
    "k": constant(K, _k),
    "x": X,
}

GELU_TANH = register(smooth("gelu_tanh", {"sx": 1}, LETTERS, infinity=1, radius=100,
                            taylor=(False, True, True, False, True, False, True), sources=("hendrycks2016gelu",)))
