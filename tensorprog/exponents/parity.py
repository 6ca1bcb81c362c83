"""Parities: which sign flips a random quantity is odd under, as cosets over GF(2).

Every Gaussian family (the hats of one matrix, an initial vector) is symmetric under a flip of its sign. A generic
nonlinearity mixes what it is given, so a parity is a coset ``o + V``: ``o`` a bit mask of the flips under which the
quantity is odd, ``V`` the subspace of masks that have been mixed together. An expectation can be nonzero only if the
coset contains 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary

import numpy as np


class Space:
    """A subspace of GF(2)^k, one object a subspace: equal is identical.

    Networks mix either single flips (nonlinearities) or equal ones (sums), so nearly every subspace is spanned by
    unit vectors and sums of two: it is a partition of zero and the flips into those that are equal modulo it.
    ``labels[1 + b]`` is the least member of the class of flip b, ``labels[0] = 0`` stands for zero; flips beyond the
    array are classes of their own. ``rows`` is the reduced echelon form of the rest, in which each class is stood
    for by its least member. Joining partitions costs a few array operations; that keeps deep programs cheap.

    Iteration gives the mask of the units, the masks of the other classes of more than one, and the rows.

    >>> units, classes, rows = extend(extend(NOTHING, 0b001), 0b110)
    >>> units, classes, rows
    (1, (6,), ())
    """

    __slots__ = ("__weakref__", "_joins", "_moved", "_support", "labels", "rows")

    labels: np.ndarray
    rows: tuple[int, ...]

    def __new__(cls, labels: np.ndarray, rows: tuple[int, ...] = ()) -> Space:
        """Return the subspace of labels (each the least of its class) and a reduced echelon form."""
        own = np.arange(len(labels))
        differ = labels != own
        size = len(labels) - int(differ[::-1].argmax()) if differ.any() else 1
        # 16 bits do for nearly all: subspaces are what a deep program holds most of
        key = labels[:size].astype(np.uint16 if size <= 1 << 16 else np.uint32).tobytes(), rows
        known = _SPACES.get(key)
        if known is None:
            known = _SPACES[key] = super().__new__(cls)
            known.labels = np.frombuffer(key[0], np.uint16 if size <= 1 << 16 else np.uint32)
            known.rows, known._joins, known._support = rows, {}, None
            known._moved = _mask(differ[1:size])
            for row in rows:
                known._moved |= row
        return known

    def __reduce__(self):
        return Space, (self.labels, self.rows)

    def __iter__(self) -> Iterator:
        members: dict[int, int] = {}
        for b, label in enumerate(self.labels[1:].tolist()):
            members[label] = members.get(label, 0) | 1 << b
        units = members.pop(0, 0)
        yield from (units, tuple(sorted(c for c in members.values() if c & (c - 1))), self.rows)

    def __repr__(self) -> str:
        return f"Space{tuple(self)}"

    @property
    def support(self) -> int:
        """The flips that occur in any of its vectors."""
        if self._support is None:
            own = np.zeros(len(self.labels), bool)
            own[self.labels[self.labels != np.arange(len(self.labels))]] = True
            self._support = self._moved | _mask(own[1:])
        return self._support


_SPACES: WeakValueDictionary = WeakValueDictionary()


def _mask(flags: np.ndarray) -> int:
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


NOTHING = Space(np.zeros(1, int))


def reduce(space: Space, v: int) -> int:
    """Return the canonical representative of ``v`` modulo the subspace.

    >>> reduce(extend(extend(NOTHING, 0b001), 0b110), 0b111)
    0
    """
    if not v & space._moved:
        return v
    return _eliminate(space.rows, _fold(space.labels, v))


def _fold(labels: np.ndarray, v: int) -> int:
    """Replace flips by the least of their class, or by none if that is zero."""
    out = 0
    for b in _bits(v):
        label = int(labels[b + 1]) if b + 1 < len(labels) else b + 1
        if label:
            out ^= 1 << (label - 1)
    return out


def _eliminate(rows: Iterable[int], v: int) -> int:
    for row in rows:
        if v >> (row.bit_length() - 1) & 1:
            v ^= row
    return v


def _bits(v: int) -> list[int]:
    out = []
    while v:
        low = v & -v
        out.append(low.bit_length() - 1)
        v ^= low
    return out


def extend(space: Space, v: int) -> Space:
    """Return the span of a subspace and one more vector.

    >>> tuple(extend(extend(NOTHING, 0b11), 0b01))
    (3, (), ())
    """
    v = reduce(space, v)
    if not v:
        return space
    if v.bit_count() < 3 and not space.rows:
        return Space(_united(space.labels, [_ends(v)]))
    return _insert(space.labels, space.rows, [v])


def _ends(v: int) -> tuple[int, int]:
    """Return the two elements that a vector of one or two flips makes equal."""
    low = v & -v
    return (0 if v == low else low.bit_length()), v.bit_length()


def _united(labels: np.ndarray, edges: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return the labels after classes, given by their least members, have become one along each edge."""
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while i in root:
            i = root[i]
        return i

    for edge in edges:
        low, high = sorted(map(find, edge))
        if low != high:
            root[high] = low
    size = max(len(labels), 1 + max(root, default=0))
    table = np.arange(size)
    for i in root:
        table[i] = find(i)
    out = table.copy()
    out[: len(labels)] = table[labels]
    return out


def _insert(labels: np.ndarray, rows: Iterable[int], todo: list[int]) -> Space:
    """Return the span of a partition, an echelon form over it, and further vectors."""
    rows = list(rows)
    while todo:
        v = _eliminate(rows, _fold(labels, todo.pop()))
        if not v:
            continue
        if v.bit_count() > 2:
            pivot = 1 << (v.bit_length() - 1)
            rows = sorted([row ^ v if row & pivot else row for row in rows] + [v], reverse=True)
            todo += [row for row in rows if row.bit_count() < 3]
            rows = [row for row in rows if row.bit_count() > 2]
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
        labels = _united(labels, [_ends(v)])
        # rows that hold a flip which is no longer the least of its class are reduced anew
        todo += [row for row in rows if row & v]
        rows = [row for row in rows if not row & v]
    return Space(labels, tuple(rows))


def join(x: Space, y: Space) -> Space:
    """Return the sum of two subspaces.

    >>> join(extend(NOTHING, 0b01), extend(NOTHING, 0b10)) is extend(extend(NOTHING, 0b11), 0b10)
    True
    """
    if x is y or y is NOTHING:
        return x
    if x is NOTHING:
        return y
    known = x._joins.get(y)
    if known is None:
        known = x._joins[y] = y._joins[x] = _join(x, y)
    return known


def _join(x: Space, y: Space) -> Space:
    if len(x.labels) < len(y.labels):
        x, y = y, x
    mine, theirs = x.labels[: len(y.labels)], x.labels[y.labels]
    differ = np.flatnonzero(mine != theirs)
    if len(differ):
        pairs = set(zip(mine[differ].tolist(), theirs[differ].tolist(), strict=True))
        labels = _united(x.labels, pairs)
    elif not y.rows:
        return x
    else:
        labels = x.labels
    return _insert(labels, (), [*x.rows, *y.rows]) if x.rows or y.rows else Space(labels)


def contains(big: Space, small: Space) -> bool:
    """Return whether one subspace contains another.

    >>> pair, one = extend(NOTHING, 0b11), extend(NOTHING, 0b01)
    >>> contains(extend(one, 0b10), pair), contains(pair, one)
    (True, False)
    """
    if small is NOTHING or big is small:
        return True
    known = big._joins.get(small)
    if known is None and not big.rows and not small.rows:
        size = len(small.labels)
        return size <= len(big.labels) and bool((big.labels[small.labels] == big.labels[:size]).all())
    return (known or join(big, small)) is big


def span(flips: int) -> Space:
    """Return the subspace of all masks of some flips.

    >>> tuple(span(0b1011))
    (11, (), ())
    """
    labels = np.arange(flips.bit_length() + 1)
    labels[1:][[flips >> b & 1 == 1 for b in range(flips.bit_length())]] = 0
    return Space(labels)


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
        if not space.support & self.mask:
            return space
        self.shift(space.support)  # makes a next level if there is need of one
        # a permutation of the flips, for the top level is not in the space: classes stay classes
        ring = 1 + np.array(self.bits)
        size = max(len(space.labels), 1 + int(ring.max()))
        where, old, new = np.arange(size), np.arange(size), np.arange(size)
        where[ring] = np.roll(ring, -1)
        old[: len(space.labels)] = space.labels
        least = np.full(size, size)
        np.minimum.at(least, old, where)
        new[where] = least[old]
        return _insert(new, (), [self.shift(r) for r in space.rows]) if space.rows else Space(new)
