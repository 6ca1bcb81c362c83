"""Parities: which sign flips a random quantity is odd under, as cosets over GF(2).

Every Gaussian family (the hats of one matrix, an initial vector) is symmetric under a flip of its sign. A generic
nonlinearity mixes what it is given, so a parity is a coset ``o + V``: ``o`` a bit mask of the flips under which the
quantity is odd, ``V`` the subspace of masks that have been mixed together. An expectation can be nonzero only if the
coset contains 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

#: A subspace of GF(2)^k in canonical form ``(units, classes, rows)``. ``units`` is a mask of the unit vectors in it;
#: a class is a mask of flips that are equal modulo the subspace (their differences lie in it); ``rows`` is the reduced
#: echelon form of the rest, in which each class is stood for by its lowest bit. Networks mix either single flips
#: (nonlinearities) or equal ones (sums), so nearly everything is in the masks: that is what keeps deep programs cheap.
Space = tuple[int, tuple[int, ...], tuple[int, ...]]

NOTHING: Space = (0, (), ())


def reduce(space: Space, v: int) -> int:
    """Return the canonical representative of ``v`` modulo the subspace.

    >>> reduce((0b001, (0b110,), ()), 0b111)
    0
    """
    v &= ~space[0]
    if v:
        v = _fold(space[1], v)
        for row in space[2]:
            if v >> (row.bit_length() - 1) & 1:
                v ^= row
    return v


def _fold(classes: Iterable[int], v: int) -> int:
    """Replace the bits of each class by its lowest one, or none if they are even in number."""
    out = 0
    for c in classes:
        own = v & c
        if own:
            v ^= own
            if own.bit_count() & 1:
                out |= c & -c
            if not v:
                break
    return out | v


def extend(space: Space, v: int) -> Space:
    """Return the span of a subspace and one more vector.

    >>> extend(extend(NOTHING, 0b11), 0b01)
    (3, (), ())
    """
    v = reduce(space, v)
    return _insert(space, [v]) if v else space


def _insert(space: Space, todo: list[int]) -> Space:
    units, classes, rows = space[0], list(space[1]), list(space[2])
    while todo:
        v = _fold(classes, todo.pop() & ~units)
        for row in rows:
            if v >> (row.bit_length() - 1) & 1:
                v ^= row
        if not v:
            continue
        bits = v.bit_count()
        if bits > 2:
            pivot = 1 << (v.bit_length() - 1)
            rows = sorted([row ^ v if row & pivot else row for row in rows] + [v], reverse=True)
            thin = [row for row in rows if row.bit_count() < 3]
            if thin:
                rows = [row for row in rows if row.bit_count() > 2]
                todo += thin
            tails: dict[int, int] = {}
            for row in rows:
                tail = row ^ 1 << (row.bit_length() - 1)
                if tail in tails:
                    # rows that differ in their pivots only: their sum, popped first, makes the pivots one class
                    twin = tails[tail]
                    rows = [other for other in rows if other not in (row, twin)]
                    todo += [twin, row ^ twin]
                    break
                tails[tail] = row
            continue
        # one bit: its whole class becomes units; two: their classes become one
        touched = [c for c in classes if c & v]
        merged = v
        for c in touched:
            merged |= c
        classes = [c for c in classes if not c & v]
        if bits == 1:
            units |= merged
        else:
            classes.append(merged)
        stale = [row for row in rows if row & merged]
        if stale:
            rows = [row for row in rows if not row & merged]
            todo += stale
    return (units, tuple(sorted(classes)), tuple(rows))


@lru_cache(maxsize=1 << 12)
def join(x: Space, y: Space) -> Space:
    """Return the sum of two subspaces.

    >>> join((0b01, (), ()), (0b10, (), ()))
    (3, (), ())
    """
    if x == y or y == NOTHING:
        return x
    if x == NOTHING:
        return y
    units = x[0] | y[0]
    if len(x[1]) < len(y[1]):
        x, y = y, x
    classes = x[1]
    if y[1] and y[1] != classes:
        classes = _merge(classes, y[1])
    if units and any(c & units for c in classes):
        # a class that meets a unit is all units, and that may reach further classes
        rest = list(classes)
        while True:
            met = [c for c in rest if c & units]
            if not met:
                break
            rest = [c for c in rest if not c & units]
            for c in met:
                units |= c
        classes = tuple(rest)
    if not x[2] and not y[2]:
        return (units, classes, ())
    return _insert((units, classes, ()), [*x[2], *y[2]])


def _merge(classes: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    """Return the disjoint classes that two lists of disjoint classes generate."""
    known = set(classes)
    fresh = [c for c in more if c not in known]
    if not fresh:
        return classes
    # Classes that meet mostly share their lowest bit; where all do, the result is disjoint and done.
    by_low = {c & -c: c for c in classes}
    for c in fresh:
        low = c & -c
        by_low[low] = by_low.get(low, 0) | c
    union = bits = 0
    for c in by_low.values():
        union |= c
        bits += c.bit_count()
    if bits == union.bit_count():
        return tuple(sorted(by_low.values()))
    out = known
    for c in fresh:
        met = [d for d in out if c & d]
        out.difference_update(met)
        for d in met:
            c |= d
        out.add(c)
    return tuple(sorted(out))


@lru_cache(maxsize=1 << 12)
def contains(big: Space, small: Space) -> bool:
    """Return whether one subspace contains another.

    >>> contains((0b11, (), ()), (0, (0b11,), ())), contains((0, (0b11,), ()), (0b1, (), ()))
    (True, False)
    """
    if small == NOTHING or big == small:
        return True
    strange = small[0] & ~big[0]
    if strange and (not big[2] or any(reduce(big, 1 << b) for b in _bits(strange))):
        return False
    if small[1] != big[1]:
        for c in set(small[1]).difference(big[1]):
            rest = c & ~big[0]
            if not rest:
                continue
            # the class must lie in one class of big, or wholly in its units
            low = rest & -rest
            home = next((d for d in big[1] if d & low), 0)
            if rest == c and not rest & ~home:
                continue
            low = c & -c
            if not big[2] or any(reduce(big, low ^ (1 << b)) for b in _bits(c ^ low)):
                return False
    return all(reduce(big, row) == 0 for row in small[2])


def _bits(v: int) -> list[int]:
    out = []
    while v:
        low = v & -v
        out.append(low.bit_length() - 1)
        v ^= low
    return out


class Family:
    """The flips of one Gaussian family, one a level.

    The hats of W on inputs that are themselves odd in hats of W are a family of their own: W x has level 1,
    W (W x) levels 1 and 2. ``shift`` raises the levels of this family in a mask; ``bits`` grows on demand.

    The parity of a hat is that of its input and the generator. The first input's parity is folded into the
    generator (a change of basis), so that hats of alike inputs are single flips.
    """

    __slots__ = ("_base", "_new_bit", "bits", "mask")

    def __init__(self, new_bit):
        self._new_bit = new_bit
        self.bits = [new_bit()]
        self.mask = 1 << self.bits[0]
        self._base: int | None = None

    def hat(self, o: int) -> int:
        """Return the parity of the hat of an input of parity ``o``.

        >>> from itertools import count
        >>> W = Family(count(3).__next__)
        >>> W.hat(0b1), W.hat(0b10), W.hat(W.hat(0b1))
        (8, 11, 25)
        """
        o = self.shift(o)
        if self._base is None:
            self._base = o
        return (1 << self.bits[0]) ^ o ^ self._base

    def shift(self, v: int) -> int:
        """Return ``v`` with every level of this family raised by one."""
        own = v & self.mask
        if not own:
            return v
        v ^= own
        for level, bit in enumerate(list(self.bits)):
            if own >> bit & 1:
                if level + 1 == len(self.bits):
                    self.bits.append(self._new_bit())
                    self.mask |= 1 << self.bits[-1]
                v |= 1 << self.bits[level + 1]
        return v

    def shift_space(self, space: Space) -> Space:
        """Return a subspace with every level of this family raised by one."""
        units, classes, rows = space
        own = self.mask
        if not units & own and not any(c & own for c in classes) and not any(r & own for r in rows):
            return space
        # raising levels is a bijection of flips, so units, classes and rows stay what they are
        out: Space = (self.shift(units), tuple(sorted(self.shift(c) for c in classes)), ())
        return _insert(out, [self.shift(r) for r in rows]) if rows else out
