"""Z-variables: polynomials with exact coefficients in numbered atoms."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from tensorprog.errors import NoClosedFormError
from tensorprog.gauss.chain import Number, add, mul

Monomial = tuple[tuple[int, int], ...]  # (atom, power), by atom
UNIT: Monomial = ()

#: Products of Z-variables are multiplied out up to this many terms.
MAX_TERMS = 20_000
class ZVar:
    """A polynomial in atoms: monomial -> coefficient, zero coefficients absent."""

    __slots__ = ("_key", "terms")

    def __init__(self, terms: Mapping[Monomial, Number]):
        self.terms = {m: c for m, c in terms.items() if c != 0}
        self._key: tuple | None = None

    @property
    def key(self) -> tuple:
        """What equal Z-variables share."""
        if self._key is None:
            self._key = tuple(sorted(self.terms.items(), key=lambda t: t[0]))
        return self._key

    @property
    def number(self) -> Number | None:
        """The number that it is, None if it is random."""
        if not self.terms:
            return Fraction(0)
        return self.terms[UNIT] if len(self.terms) == 1 and UNIT in self.terms else None

    @property
    def affine(self) -> bool:
        """Whether it has degree at most 1 in atoms."""
        return all(len(m) == 0 or (len(m) == 1 and m[0][1] == 1) for m in self.terms)

    def __eq__(self, other) -> bool:
        return isinstance(other, ZVar) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __add__(self, other: ZVar) -> ZVar:
        terms = dict(self.terms)
        for m, c in other.terms.items():
            terms[m] = add(terms[m], c) if m in terms else c
        return ZVar(terms)

    def scaled(self, number: Number) -> ZVar:
        """Return a multiple."""
        if number == 1:
            return self
        return ZVar({m: mul(c, number) for m, c in self.terms.items()} if number != 0 else {})

    def __mul__(self, other: ZVar) -> ZVar:
        if len(self.terms) * len(other.terms) > MAX_TERMS:
            raise NoClosedFormError("a product", f"{len(self.terms)} x {len(other.terms)} terms",
                                    "its exact form is too long", "take the sampled limit: method='sampled'")
        terms: dict[Monomial, Number] = {}
        for m, c in self.terms.items():
            for k, d in other.terms.items():
                both = join(m, k)
                product = mul(c, d)
                terms[both] = add(terms[both], product) if both in terms else product
        return ZVar(terms)


def join(m: Monomial, k: Monomial) -> Monomial:
    """Return the product of monomials.

    >>> join(((0, 1), (2, 1)), ((2, 2),))
    ((0, 1), (2, 3))
    """
    if not m or not k:
        return m or k
    powers = dict(m)
    for atom, p in k:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items()))


def constant(number: Number) -> ZVar:
    """Return the Z-variable that is a number."""
    return ZVar({UNIT: number})


def single(atom: int) -> ZVar:
    """Return the Z-variable that is an atom."""
    return ZVar({((atom, 1),): Fraction(1)})
