"""softplus(x) = log(1 + exp(x)); its derivative is sigmoid."""

from tensorprog.atoms.nonlins.sigmoid import LETTERS
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth
from tensorprog.atoms.special import softplus


def _sympy(x):
    import sympy

    return sympy.log(1 + sympy.exp(x))


SOFTPLUS = register(smooth("softplus", {"l": 1}, LETTERS | {"l": Generator(softplus, {"s": 1}, _sympy)}, infinity=1,
                           sources=("dugas2001incorporating",)))
