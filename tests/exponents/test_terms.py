"""The max-plus algebra of terms against brute force over all elements of the cosets."""

import random
from fractions import Fraction

import pytest

from tensorprog.exponents.parity import NOTHING, reduce
from tensorprog.exponents.terms import (
    MERGE_ABOVE,
    Term,
    contract,
    even_hull,
    full_hull,
    hull,
    inside,
    leading,
    matches,
    numeric,
    product,
    prune,
    scaled,
    times,
    total,
    vanishing_mean,
)

from .test_parity import generators, random_vectors, space_of, span

QUARTERS = [Fraction(k, 4) for k in range(-4, 5)]
ONE, HALF, ZERO = Fraction(1), Fraction(1, 2), Fraction(0)


def coset(t: Term) -> frozenset[int]:
    return frozenset(t.o ^ v for v in span(generators(t.space)))


def random_term(rng: random.Random, exponents=QUARTERS) -> Term:
    return Term(rng.choice(exponents), rng.getrandbits(5), space_of(random_vectors(rng)[:2]))


def random_terms(rng, most=5):
    return tuple(random_term(rng) for _ in range(rng.randint(1, most)))


@pytest.mark.parametrize("seed", range(60))
def test_relations_of_cosets(seed):
    rng = random.Random(seed)
    for _ in range(10):
        x, y = random_term(rng), random_term(rng)
        # E[x y] can be nonzero iff some flip pattern of x occurs in y
        assert matches(x, y) == bool(coset(x) & coset(y)) == matches(y, x)
        assert vanishing_mean(x) == (0 not in coset(x)) == (not matches(x, Term(ZERO)))
        assert inside(x, y) == (coset(x) <= coset(y))
        xy = times(x, y)
        assert xy.e == x.e + y.e
        assert coset(xy) == {a ^ b for a in coset(x) for b in coset(y)}
        assert reduce(xy.space, xy.o) == xy.o


def odd_sums(cosets) -> set[int]:
    """Return all sums of an odd number of elements of the cosets."""
    odd, even = set(), {0}
    elements = set().union(*cosets)
    while True:
        more_odd = odd | {a ^ b for a in even for b in elements}
        more_even = even | {a ^ b for a in odd for b in elements}
        if (more_odd, more_even) == (odd, even):
            return odd
        odd, even = more_odd, more_even


@pytest.mark.parametrize("seed", range(40))
def test_hulls_are_the_monomials_of_odd_even_and_generic_functions(seed):
    rng = random.Random(seed)
    terms = [random_term(rng) for _ in range(rng.randint(1, 4))]
    cosets = [coset(t) for t in terms]
    odd = odd_sums(cosets)
    elements = set().union(*cosets)
    even = {a ^ b for a in odd for b in elements}
    assert coset(Term(ZERO, *hull(terms))) == odd
    assert coset(Term(ZERO, *even_hull(terms))) == even
    assert coset(Term(ZERO, *full_hull(terms))) == odd | even == span(elements)
    assert even_hull([]) == full_hull([]) == (0, NOTHING)


def naive_contract(x, y, growth):
    """Return the exponent of sum_i x_i y_i: every pair adds n^growth if correlated and n^(growth/2) if not."""
    return max(s.e + t.e + (growth if coset(s) & coset(t) else growth / 2) for s in x for t in y)


@pytest.mark.parametrize("growth", [ONE, HALF, ZERO, Fraction(3, 2)])
def test_contract_is_the_largest_of_the_pairs(growth):
    rng = random.Random(7)
    for _ in range(400):
        x, y = prune(random_terms(rng), growth), prune(random_terms(rng), growth)
        e, law = contract(x, y, growth)
        assert e == naive_contract(x, y, growth)
        clt = leading(x) + leading(y) + growth / 2
        assert law == ("LLN" if e > clt else "CLT" if growth else "sum")
        assert total(x, growth)[0] == naive_contract(x, (Term(ZERO),), growth)
    assert contract((), x, growth)[0] is None and contract(x, (), growth)[0] is None


@pytest.mark.parametrize("growth", [ONE, HALF, Fraction(2)])
def test_pruning_changes_no_contraction(growth):
    """A dropped term is never the one that decides, whatever the vector is contracted with (without merging)."""
    rng = random.Random(11)
    for _ in range(400):
        x = random_terms(rng, MERGE_ABOVE)
        y = random_terms(rng, MERGE_ABOVE)
        kept = prune(x, growth)
        assert set(kept) <= set(x) and leading(kept) == max(t.e for t in x)
        assert naive_contract(kept, y, growth) == naive_contract(x, y, growth)
        assert list(kept) == sorted(kept, key=lambda t: -t.e)
        assert prune(kept, growth) == kept


def test_merging_only_overestimates():
    rng = random.Random(13)
    merged = 0
    for _ in range(300):
        x = tuple(random_term(rng, [ZERO, ZERO, Fraction(-1, 4)]) for _ in range(12))
        y = random_terms(rng, 3)
        kept = prune(x, ONE)
        merged += not set(kept) <= set(x)
        assert leading(kept) == max(t.e for t in x)
        assert naive_contract(kept, y, ONE) >= naive_contract(x, y, ONE)
        for t in x:
            assert t.e <= leading(kept) - HALF or any(inside(t, k) and t.e <= k.e for k in kept)
    assert merged > 30, "the test must see merged terms"


def test_a_fixed_axis_keeps_the_size_only():
    assert prune([Term(ZERO, 1), Term(Fraction(-1, 4), 2)], ZERO) == (Term(ZERO),)
    assert prune([], ONE) == () and leading(()) is None


@pytest.mark.parametrize("growth", [ONE, HALF])
def test_products_match_the_product_of_all_pairs(growth):
    rng = random.Random(17)
    for _ in range(300):
        x, y, z = (prune(random_terms(rng, 2), growth) for _ in range(3))
        full = [times(s, t) for s in x for t in y]
        assert naive_contract(product(x, y, growth), z, growth) == naive_contract(full, z, growth)
    assert product((), x, growth) == ()
    assert product(x, numeric(None), growth) == ()


def test_scaled_and_numeric():
    x = (Term(ZERO, 1), Term(-HALF, 2))
    assert scaled(x, HALF) == (Term(HALF, 1), Term(ZERO, 2))
    assert numeric(HALF) == (Term(HALF),) and numeric(None) == ()
