"""Exact numbers in front of terms: which are accepted, and how they are spelled."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import isfinite, prod

from tensorprog.errors import ProgramError
from tensorprog.exponents.scale import Number, Scale
from tensorprog.program.dims import Dim

#: What coefficients are bounded by, so that no program is slow: bits of a rational, size of an exponent of n, size of
#: the exponents within an irrational number, its operations, and roots of sums in each other.
MAX_BITS, MAX_EXPONENT, MAX_ROOT, MAX_OPS, MAX_NESTING = 4096, 10**6, 64, 200, 2
#: An irrational number smaller than this is not told from 0.
ALMOST_ZERO = 1e-12


def settled(x: Scale) -> Scale:
    """Return a coefficient with its number multiplied out; raises ProgramError if it is too large to be exact.

    Example:
        >>> import sympy
        >>> settled(Scale((1 + sympy.sqrt(2)) * (1 - sympy.sqrt(2)))).number
        Fraction(-1, 1)
    """
    for _, e in x.powers:
        if any(max(abs(c.numerator), c.denominator) > MAX_EXPONENT for c in (e.const, *(c for _, c in e.terms))):
            raise _too_large(f"exponents are fractions of numbers up to {MAX_EXPONENT}")
    number = x.number if isinstance(x.number, Fraction) else _expanded(x.number)
    if isinstance(number, Fraction) and max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise _too_large(f"numbers have at most {MAX_BITS} bits")
    return x if number is x.number else Scale(number, x.powers)


def _too_large(reason: str) -> ProgramError:
    return ProgramError("a coefficient", "a larger one", reason, "use a smaller number, or a power of n")


@lru_cache(maxsize=1024)
def _expanded(x: Number) -> Number:
    import sympy

    _check_parts(x)
    spelled_number(x)
    y: Number = sympy.expand(x)
    _check_parts(y)
    return coefficient(y).number if y.is_Rational else y


def _check_parts(x: Number) -> None:
    import sympy

    for count, part in enumerate(sympy.preorder_traversal(x)):
        root: Number = part.exp if isinstance(part, sympy.Pow) else sympy.S.One
        rational = isinstance(part, sympy.Rational)
        if count > MAX_OPS or not root.is_Rational or max(abs(root.p), root.q) > MAX_ROOT or (
                rational and max(int(part.p).bit_length(), int(part.q).bit_length()) > MAX_BITS):
            raise _too_large("this number has too many parts to be exact")
    if _nesting(x) > MAX_NESTING or _summands(x) > MAX_OPS:
        raise _too_large("this number has too many parts to be exact")


def _nesting(x: Number) -> int:
    """Return how deep roots and reciprocals of sums stand in each other; sympy takes exponential time in it."""
    inner = max((_nesting(a) for a in x.args), default=0)
    return inner + (x.is_Pow and x.args[0].is_Add)


def _summands(x: Number) -> int:
    """Return how many summands there are once products are multiplied out, at most."""
    if x.is_Add:
        return sum(_summands(a) for a in x.args)
    if x.is_Mul:
        return prod(_summands(a) for a in x.args)
    return _summands(x.args[0]) ** int(x.args[1]) if x.is_Pow and x.args[1].is_Integer and x.args[1] > 0 else 1


def sign(x: Number) -> int:
    """Return the sign of an exact number; raises ProgramError for an irrational one that is 0 to fifteen digits."""
    if isinstance(x, Fraction):
        return (x > 0) - (x < 0)
    value = float(x)
    if abs(value) < ALMOST_ZERO:
        raise ProgramError(str(x)[:60], str(value), "this number cannot be told from 0", "simplify it by hand")
    return 1 if value > 0 else -1


def coefficient(x, what: str = "a coefficient") -> Scale:
    """Return an int, Fraction, exact sympy number, dimension or Scale as a Scale.

    Raises:
        ProgramError: for a float (the message says which Fraction to write), and for what is not a finite number.

    Example:
        >>> str(coefficient(Fraction(1, 2))), str(coefficient(Dim("n") ** -1))
        ('1/2', 'n^-1')
        >>> coefficient(0.1)
        Traceback (most recent call last):
        tensorprog.errors.ProgramError: line 0.1: a coefficient is exact, never a float (got 0.1)
          fix: write Fraction(1, 10)
    """
    if isinstance(x, Scale):
        return x
    if isinstance(x, Dim):
        return Scale.power(x.name, 1)
    if isinstance(x, bool):
        raise ProgramError(x, x, f"{what} is a number", f"write {int(x)}")
    if isinstance(x, int | Fraction):
        return Scale(Fraction(x))
    if isinstance(x, float) or _is_real(x):
        raise ProgramError(x, x, f"{what} is exact, never a float", _exact_fix(float(x)))
    if getattr(x, "is_Rational", False):
        return Scale(Fraction(int(x.p), int(x.q)))
    if getattr(x, "is_number", False):
        return settled(Scale(x))
    if type(x).__module__ == "numpy" and hasattr(x, "__index__") and getattr(x, "shape", None) == ():
        return Scale(Fraction(int(x)))
    raise ProgramError(
        x, type(x).__name__, f"{what} is an exact number", "use int, Fraction, sympy.sqrt(2), or n**Fraction(1, 2)"
    )


def _is_real(x) -> bool:
    return (type(x).__module__ == "numpy" and getattr(getattr(x, "dtype", None), "kind", "") == "f"
            and getattr(x, "shape", None) == ()) or bool(getattr(x, "is_Float", False))


def _exact_fix(x: float) -> str:
    if not isfinite(x):
        return "give a finite exact number"
    near = Fraction(x).limit_denominator(10**6)
    return (
        f"write {near.numerator}" if near.denominator == 1 else f"write Fraction({near.numerator}, {near.denominator})"
    )


def spelled_number(x: Number) -> str:
    """Return an exact number in the text form: rationals, ``sqrt``, ``pi``, sums, products and rational powers.

    Raises:
        ProgramError: for any other number (sines, logarithms, infinities, complex numbers).

    Example:
        >>> import sympy
        >>> spelled_number(Fraction(-1, 2)), spelled_number(sympy.sqrt(2) / 3 + sympy.pi)
        ('-1/2', 'sqrt(2)/3 + pi')
    """
    if isinstance(x, Fraction | int):
        return str(x)
    bad = ProgramError(x, str(x), "this number has no exact spelling", "use rationals, sqrt(2), pi and their powers")
    if not getattr(x, "is_number", False):
        raise bad
    import sympy

    for part in sympy.preorder_traversal(x):
        known = isinstance(part, sympy.Add | sympy.Mul) or part is sympy.pi or (part.is_Rational and part.is_finite)
        if not known and not (isinstance(part, sympy.Pow) and part.exp.is_Rational):
            raise bad
    if not x.evalf().is_Float:  # not a real number
        raise bad
    return str(x).replace("**", "^")
