"""Subspaces of GF(2)^k against their definition: the set of all sums of the generators."""

import random
from itertools import count, product

import pytest

from tensorprog.exponents.parity import NOTHING, Family, contains, extend, join, reduce

K = 7


def span(vectors) -> frozenset[int]:
    """Return every sum of the vectors."""
    out = {0}
    for v in vectors:
        out |= {x ^ v for x in out}
    return frozenset(out)


def space_of(vectors):
    out = NOTHING
    for v in vectors:
        out = extend(out, v)
    return out


def generators(space) -> list[int]:
    """Return vectors that span a space, read from its representation."""
    units, classes, rows = space
    out = [1 << b for b in range(units.bit_length()) if units >> b & 1]
    for c in classes:
        low = c & -c
        out += [low | 1 << b for b in range(c.bit_length()) if (c ^ low) >> b & 1]
    return out + list(rows)


def random_vectors(rng: random.Random) -> list[int]:
    """Return a few vectors: single flips, equal flips and generic ones, as networks make them, mixed."""
    kinds = rng.choice([(1,), (2,), (1, 2), (1, 2, 3), (3, 4, 5), (1, 2, 3, 4, 5, 6, 7), (2, 4, 6)])
    out = []
    for _ in range(rng.randint(0, 6)):
        bits = rng.sample(range(K), rng.choice(kinds))
        out.append(sum(1 << b for b in bits))
    return out


def assert_canonical(space):
    units, classes, rows = space
    assert list(classes) == sorted(classes)
    taken = units
    for c in classes:
        assert c.bit_count() >= 2
        assert not c & taken, "classes are disjoint, from each other and from the units"
        taken |= c
    others = sum(c ^ (c & -c) for c in classes)
    pivots = [1 << (row.bit_length() - 1) for row in rows]
    assert pivots == sorted(pivots, reverse=True) and len(set(pivots)) == len(pivots)
    for row, pivot in zip(rows, pivots, strict=True):
        assert row.bit_count() > 2
        assert not row & (units | others), "a row holds no unit, and of a class its lowest bit only"
        assert sum(bool(other & pivot) for other in rows) == 1, "the echelon form is reduced"


@pytest.mark.parametrize("seed", range(60))
def test_spaces_are_the_sums_of_their_generators(seed):
    rng = random.Random(seed)
    for _ in range(10):
        vectors = random_vectors(rng)
        space, whole = space_of(vectors), span(vectors)
        assert_canonical(space)
        assert span(generators(space)) == whole
        # reduction names one element of each coset
        cosets: dict[int, set[int]] = {}
        for v in range(1 << K):
            r = reduce(space, v)
            assert r ^ v in whole
            cosets.setdefault(r, set()).add(v)
        assert all(len(c) == len(whole) for c in cosets.values())
        assert reduce(space, 0) == 0


@pytest.mark.parametrize("seed", range(60))
def test_the_representation_depends_on_the_space_only(seed):
    rng = random.Random(1000 + seed)
    for _ in range(10):
        vectors = random_vectors(rng)
        other = sorted(span(vectors))
        rng.shuffle(other)
        assert space_of(other) == space_of(vectors)
        assert space_of(vectors[::-1]) == space_of(vectors)


@pytest.mark.parametrize("seed", range(60))
def test_join_and_contains_are_the_set_operations(seed):
    rng = random.Random(2000 + seed)
    for _ in range(20):
        u, v = random_vectors(rng), random_vectors(rng)
        x, y = space_of(u), space_of(v)
        both = join(x, y)
        assert_canonical(both)
        assert both == space_of([*u, *v]) == join(y, x)
        assert contains(x, y) == (span(v) <= span(u))
        assert contains(both, x) and contains(both, y)
        part = space_of(rng.sample(sorted(span(u)), min(3, len(span(u)))))
        assert contains(x, part)


def test_extend_by_what_is_there_changes_nothing():
    rng = random.Random(5)
    for _ in range(200):
        space = space_of(random_vectors(rng))
        for v in generators(space):
            assert extend(space, v) == space


def naive_shift(v: int, levels: list[int]) -> int:
    """Return ``v`` with each of the family's bits replaced by the next; ``levels`` lists them by level."""
    out = 0
    for b in range(v.bit_length()):
        if v >> b & 1:
            out ^= 1 << (levels[levels.index(b) + 1] if b in levels else b)
    return out


@pytest.mark.parametrize("seed", range(40))
def test_levels_of_a_family_rise_by_one(seed):
    rng = random.Random(3000 + seed)
    bits = count(4)  # four flips belong to initial vectors
    families = Family(bits.__next__), Family(bits.__next__)
    for _ in range(3):
        for family in families:
            known = [0, 1, 2, 3, *families[0].bits, *families[1].bits]
            masks = [sum(1 << b for b in rng.sample(known, rng.randint(1, 3))) for _ in range(rng.randint(0, 4))]
            family.shift(family.mask)  # makes the next level, so that the naive shift finds one
            space = space_of(masks)
            raised = family.shift_space(space)
            assert_canonical(raised)
            assert span(generators(raised)) == {naive_shift(x, family.bits) for x in span(generators(space))}
            for v in masks:
                assert family.shift(v) == naive_shift(v, family.bits)
            assert family.mask == sum(1 << b for b in family.bits)


def test_hats_differ_exactly_as_their_inputs_do():
    # the change of basis may rename generators, never make two hats of unlike inputs alike
    for first in (0b00, 0b01, 0b11):
        W = Family(count(2).__next__)
        hats = {o: W.hat(o) for o in [first, *(o for o in range(4))]}
        assert len(set(hats.values())) == 4
        for x, y in product(hats, repeat=2):
            assert hats[x] ^ hats[y] == x ^ y
        assert all(h >> 2 for h in hats.values()), "a hat has a flip of its own"


def test_a_power_of_a_matrix_has_all_levels():
    W = Family(count().__next__)
    once = W.hat(0)
    twice = W.hat(once)
    thrice = W.hat(twice)
    assert len({0, once, twice, thrice}) == 4
    assert reduce(space_of([once, twice]), thrice) != 0
