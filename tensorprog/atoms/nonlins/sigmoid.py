"""sigmoid(x) = 1/(1 + exp(-x)), with r(x) = sigmoid(-x): s' = r s, r' = -r s."""

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth
from tensorprog.atoms.special import sigmoid


def _sympy(x):
    import sympy

    return 1 / (1 + sympy.exp(-x))


LETTERS = {
    "s": Generator(sigmoid, {"rs": 1}, _sympy),
    "r": Generator(lambda x: sigmoid(-x), {"rs": -1}, lambda x: _sympy(-x)),
}

SIGMOID = register(smooth("sigmoid", {"s": 1}, LETTERS, infinity=0, sources=("cybenko1989approximation",)))
