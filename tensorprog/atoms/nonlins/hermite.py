"""hermite(x, k) = He_k(x), the probabilists' Hermite polynomial: He_{k+1} = x He_k - k He_{k-1}, He_k' = k He_{k-1}.

Not normalized: E He_j(Z) He_k(Z) = k! if j = k, else 0.
"""

from fractions import Fraction
from functools import cache

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import Family, register
from tensorprog.atoms.smooth import X, smooth
from tensorprog.errors import RecordError


@cache
def coefficients(k: int) -> tuple[int, ...]:
    """Return the coefficients of He_k, that of x^0 first.

    >>> coefficients(3)
    (0, -3, 0, 1)
    """
    if k == 0:
        return (1,)
    last, before = (0, *coefficients(k - 1)), coefficients(k - 2) if k > 1 else ()
    return tuple(c - (k - 1) * (before[i] if i < len(before) else 0) for i, c in enumerate(last))


def hermite(k: Fraction) -> Nonlinearity:
    """Return the record of He_k, k from 1 to 30."""
    if k.denominator != 1 or not 1 <= k <= 30:
        raise RecordError(f"hermite({k})", k, "the degree is a whole number from 1 to 30", "write hermite(x, 3)")
    terms = {"x" * i: c for i, c in enumerate(coefficients(int(k))) if c}
    return smooth(f"hermite({k})", terms, {"x": X}, parity="odd" if k % 2 else "even", degree=1 if k == 1 else None,
                  infinity=k, sources=("daniely2016toward",), params=(k,))


HERMITE = register(Family("hermite", hermite, examples=((1,), (2,), (3,), (4,), (5,), (8,))))
