"""What a derivation or a classification says of each weight, and the gauges in which tables present it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from tensorprog.errors import ParseError
from tensorprog.program.dims import Dim

HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Weight:
    """The scaling of one weight: ``W = n^-a w``, ``w ~ N(0, n^-2b)``, learning rate ``n^-c``, all exact.

    ``c`` is None if nothing determines it. ``eps`` is the exponent e of an adaptive optimizer's ``epsilon n^-e``,
    ``wd`` that of a decoupled weight decay ``lambda n^-wd`` per step (in a library where the decay is multiplied by
    the learning rate, lambda must scale like n^(c - wd) instead).
    """

    name: str
    role: str
    rows: Dim
    cols: Dim
    a: Fraction
    b: Fraction
    c: Fraction | None
    init: str = "normal"
    eps: Fraction | None = None
    wd: Fraction | None = None

    @property
    def kind(self) -> str:
        """"matrix-like" (both axes grow), "vector-like" (one does) or "scalar-like"."""
        return ("scalar-like", "vector-like", "matrix-like")[(self.rows.growth > 0) + (self.cols.growth > 0)]

    @property
    def position(self) -> str:
        """"input", "hidden", "output" or "scalar": by which of its axes grow."""
        return {(True, False): "input", (True, True): "hidden", (False, True): "output", (False, False): "scalar"}[
            (self.rows.growth > 0, self.cols.growth > 0)]

    def shifted(self, theta: Fraction, k: int) -> Weight:
        """Return the same training written differently: ``(a, b, c) -> (a + theta, b - theta, c - k theta)``.

        k is 2 for optimizers linear in the gradient and 1 for scale-free ones, whose epsilon exponent moves by theta.
        Source: Tensor Programs V, Lemma J.1.
        """
        return replace(self, a=self.a + theta, b=self.b - theta, c=None if self.c is None else self.c - k * theta,
                       eps=None if self.eps is None else self.eps + theta)


def present(weights: dict[str, Weight], form: str, k: int) -> dict[str, Weight]:
    """Return the weights in one of the published gauges.

    "table3": no multipliers (a = 0). "table8": vector-like weights have initial variance 1 (b = 0). "table9": they
    have variance 1/n (b = 1/2). "global": one learning rate exponent for all weights, that of the matrix-like ones
    without multiplier (0 for SGD).

    Raises:
        ParseError: no such form.

    Source: Tensor Programs V, Tables 3, 8 and 9; Tensor Programs IV (one global learning rate).
    """
    if form not in FORMS:
        raise ParseError("form", form, "unknown form", "use " + ", ".join(FORMS))
    bare = {name: w.shifted(-w.a, k) for name, w in weights.items()}
    if form == "table3":
        return bare
    if form == "global":
        rates = [w.c for w in bare.values() if w.kind == "matrix-like" and w.c is not None]
        shared = max(set(rates), key=rates.count) if rates else Fraction(0)
        return {name: w if w.c is None else w.shifted((w.c - shared) / k, k) for name, w in bare.items()}
    b = Fraction(0) if form == "table8" else HALF
    return {name: w.shifted(w.b - b, k) if w.kind == "vector-like" else w for name, w in bare.items()}


#: The gauges: the published tables, and one global learning rate.
FORMS = ("global", "table3", "table8", "table9")


def power(e: Fraction | None, base: str = "n") -> str:
    """Return ``n^e`` for people.

    >>> power(Fraction(-1, 2)), power(Fraction(0)), power(Fraction(1)), power(None)
    ('1/√n', '1', 'n', '0')
    """
    if e is None:
        return "0"
    if e == 0:
        return "1"
    size = abs(e)
    if size == 1:
        text = base
    elif size == HALF:
        text = f"√{base}"
    else:
        text = f"{base}^{size}" if size.denominator == 1 else f"{base}^({size})"
    return text if e > 0 else f"1/{text}"
