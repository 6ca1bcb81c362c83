"""Parities: which sign flips a random quantity is odd under, as cosets over GF(2).

Every Gaussian family (the hats of one matrix, an initial vector) is symmetric under a flip of its sign. A generic
nonlinearity mixes what it is given, so a parity is a coset ``o + V``: ``o`` a bit mask of the flips under which the
quantity is odd, ``V`` the subspace of masks that have been mixed together. An expectation can be nonzero only if the
coset contains 0.
"""

from __future__ import annotations

#: A subspace of GF(2)^k in canonical form: a mask of the unit vectors in it, and the other rows of its reduced
#: echelon form (pivot = highest bit), largest first. Deep networks mix nearly every generator on its own, so
#: nearly all of a subspace is in the mask; this is what keeps joins cheap.
Space = tuple[int, tuple[int, ...]]

NOTHING: Space = (0, ())


def reduce(space: Space, v: int) -> int:
    """Return the canonical representative of ``v`` modulo the subspace.

    >>> reduce((0b001, (0b110,)), 0b111)
    0
    """
    v &= ~space[0]
    if v:
        for row in space[1]:
            if v >> (row.bit_length() - 1) & 1:
                v ^= row
    return v


def extend(space: Space, v: int) -> Space:
    """Return the span of a subspace and one more vector.

    >>> extend(extend(NOTHING, 0b11), 0b01)
    (3, ())
    """
    v = reduce(space, v)
    if not v:
        return space
    mask, rows = space
    pivot = 1 << (v.bit_length() - 1)
    rows = [row ^ v if row & pivot else row for row in rows]
    rows.append(v)
    return _canonical(mask, rows)


def _canonical(mask: int, rows: list[int]) -> Space:
    # A row with a single bit is a unit vector: it moves to the mask and clears its bit elsewhere.
    units = [r for r in rows if not r & (r - 1)]
    while units:
        for u in units:
            mask |= u
        rows = [r & ~mask for r in rows if r & (r - 1)]
        rows = [r for r in rows if r]
        units = [r for r in rows if not r & (r - 1)]
    return (mask, tuple(sorted(rows, reverse=True)))


def join(x: Space, y: Space) -> Space:
    """Return the sum of two subspaces.

    >>> join((0b01, ()), (0b10, ()))
    (3, ())
    """
    if x == y or y == NOTHING:
        return x
    if x == NOTHING:
        return y
    if not x[1] and not y[1]:
        return (x[0] | y[0], ())
    if len(x[1]) < len(y[1]):
        x, y = y, x
    out = _absorb(x, y[0])
    for row in y[1]:
        out = extend(out, row)
    return out


def _absorb(space: Space, mask: int) -> Space:
    new = mask & ~space[0]
    if not new:
        return space
    if not space[1]:
        return (space[0] | new, ())
    touched = [r for r in space[1] if r & new]
    if not touched:
        return (space[0] | new, space[1])
    out: Space = (space[0] | new, tuple(r for r in space[1] if not r & new))
    for row in touched:
        out = extend(out, row)
    return out


def contains(big: Space, small: Space) -> bool:
    """Return whether one subspace contains another."""
    if small[0] & ~big[0]:
        return False
    return all(reduce(big, row) == 0 for row in small[1])


class Family:
    """The flips of one Gaussian family, one a level.

    The hats of W on inputs that are themselves odd in hats of W are a family of their own: W x has level 1,
    W (W x) levels 1 and 2. ``shift`` raises the levels of this family in a mask; ``bits`` grows on demand.
    """

    __slots__ = ("_new_bit", "bits", "mask")

    def __init__(self, new_bit):
        self._new_bit = new_bit
        self.bits = [new_bit()]
        self.mask = 1 << self.bits[0]

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
        mask, rows = space
        if not mask & self.mask and not any(r & self.mask for r in rows):
            return space
        out: Space = (self.shift(mask), ())
        for row in rows:
            out = extend(out, self.shift(row))
        return out

    @property
    def generator(self) -> int:
        """The mask of level 1."""
        return 1 << self.bits[0]
