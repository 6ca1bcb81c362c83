"""Dimensions: axes of vectors and matrices, and how they grow with the one scale parameter n."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tensorprog.errors import ProgramError
from tensorprog.exponents.scale import Scale


@dataclass(frozen=True, slots=True)
class Dim:
    """An axis of size ``round(factor * n^growth)``: a width has growth 1, a fixed axis growth 0.

    Args:
        name: the axis's name.
        growth: its power of n, an exact rational >= 0.
        factor: the ratio to ``n^growth``, an exact rational > 0; of a fixed axis, its size.

    Raises:
        ProgramError: if growth is negative, the factor is not positive, or a fixed size is not whole.

    Example:
        >>> Dim("m", Fraction(1), Fraction(2)).at(64), Dim("h", Fraction(1, 2)).at(64), Dim.fixed("d", 3).at(64)
        (128, 8, 3)
    """

    name: str
    growth: Fraction = Fraction(1)
    factor: Fraction = Fraction(1)

    def __post_init__(self):
        object.__setattr__(self, "growth", Fraction(self.growth))
        object.__setattr__(self, "factor", Fraction(self.factor))
        if self.growth < 0:
            raise ProgramError(
                f"dim {self.name}", str(self.growth), "an axis cannot shrink as n grows", "use growth >= 0"
            )
        if self.factor <= 0:
            raise ProgramError(
                f"dim {self.name}", str(self.factor), "an axis needs a positive size", "use a factor > 0"
            )
        if self.growth == 0 and self.factor.denominator != 1:
            raise ProgramError(f"dim {self.name}", str(self.factor), "a fixed axis has a whole size", "use an integer")

    @staticmethod
    def fixed(name: str, size: int) -> Dim:
        """Return the axis of ``size`` coordinates whatever n is."""
        return Dim(name, Fraction(0), Fraction(size))

    @property
    def is_fixed(self) -> bool:
        """Whether its size does not depend on n."""
        return self.growth == 0

    def at(self, n: int) -> int:
        """Return its size at scale n, at least 1."""
        return max(1, round(float(self.factor) * float(n) ** float(self.growth)))

    def __pow__(self, exponent) -> Scale:
        """Return ``dim^exponent``, a coefficient; the exponent is an int, Fraction, "1/2" or Affine, never a float."""
        if isinstance(exponent, float):
            near = Fraction(exponent).limit_denominator(10**6)
            raise ProgramError(f"{self.name}^{exponent}", exponent, "exponents are exact, never floats",
                               f"write Fraction({near.numerator}, {near.denominator})")
        return Scale.power(self.name, exponent)

    def __mul__(self, other) -> Scale:
        return Scale.power(self.name, 1) * (Scale.power(other.name, 1) if isinstance(other, Dim) else other)

    __rmul__ = __mul__

    def __truediv__(self, other) -> Scale:
        return Scale.power(self.name, 1) / (Scale.power(other.name, 1) if isinstance(other, Dim) else other)

    def __rtruediv__(self, other) -> Scale:
        return Scale.power(self.name, -1) * other

    def declaration(self) -> str:
        """Return its line of the text form."""
        if self.is_fixed:
            return f"dim {self.name} = {self.factor}"
        power = (
            "n" if self.growth == 1 else f"n^{self.growth}" if self.growth.denominator == 1 else f"n^({self.growth})"
        )
        if self.growth == 1 and self.factor == 1:
            return f"dim {self.name}" if self.name == "n" else f"dim {self.name} ~ n"
        return f"dim {self.name} ~ " + (power if self.factor == 1 else f"{self.factor}*{power}")
