"""monomial(x, k) = x^k for a whole k >= 1."""

from fractions import Fraction

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import Family, register
from tensorprog.atoms.smooth import X, smooth
from tensorprog.errors import RecordError


def monomial(k: Fraction) -> Nonlinearity:
    """Return the record of x^k, k from 1 to 16."""
    if k.denominator != 1 or not 1 <= k <= 16:
        raise RecordError(f"monomial({k})", k, "the power is a whole number from 1 to 16", "use power(x, p) for x > 0")
    return smooth(f"monomial({k})", {"x" * int(k): 1}, {"x": X}, parity="odd" if k % 2 else "even", degree=k,
                  infinity=k, sources=("daniely2016toward",), params=(k,))


MONOMIAL = register(Family("monomial", monomial, examples=((1,), (2,), (3,), (4,), (5,))))
