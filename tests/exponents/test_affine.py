"""Exact exponents and coefficients: the laws of a vector space and of a group, and values in exact arithmetic."""

import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import ONE, Scale

NAMES = ("a[W]", "b[W]", "alpha")
rationals = st.fractions(min_value=-3, max_value=3, max_denominator=6)
#: An affine form as a plain mapping: symbol -> coefficient, "" the constant.
plains = st.dictionaries(st.sampled_from(("", *NAMES)), rationals)
points = st.fixed_dictionaries(dict.fromkeys(NAMES, rationals))


def affine(plain) -> Affine:
    return sum((c * Affine.symbol(s) for s, c in plain.items() if s), Affine.of(plain.get("", 0)))


def at(plain, point) -> Fraction:
    return sum((c * point[s] if s else c for s, c in plain.items()), Fraction(0))


@given(plains, plains, rationals, points)
def test_affine_forms_are_their_values(p, q, k, point):
    x, y = affine(p), affine(q)
    assert x.value(point) == at(p, point)
    assert (x + y).value(point) == at(p, point) + at(q, point)
    assert (x - y).value(point) == at(p, point) - at(q, point)
    assert (k - x).value(point) == k - at(p, point)
    assert (k * x).value(point) == (x * k).value(point) == k * at(p, point)
    assert (-x).value(point) == -at(p, point)


@given(plains, plains)
def test_equal_forms_are_equal_values(p, q):
    x, y = affine(p), affine(q)
    same = {s: c for s, c in p.items() if c} == {s: c for s, c in q.items() if c}
    assert (x == y) == same and (not same or hash(x) == hash(y))
    assert (x - x).is_zero and x - x == Affine()
    assert x.symbols == tuple(sorted(s for s, c in p.items() if s and c))
    assert pickle.loads(pickle.dumps(x)) == x


def test_an_unknown_without_a_value_is_named():
    with pytest.raises(NotCoveredError, match=r"b\[W\]"):
        (1 - Affine.symbol("b[W]")).value({"a[W]": Fraction(1)})
    with pytest.raises(ValueError):
        Affine.of("one half")


dims = st.sampled_from(("n", "m", "d"))
scales = st.builds(
    lambda number, powers: Scale(number) * _powers(powers),
    rationals.filter(bool), st.dictionaries(dims, plains, max_size=2),
)
GROWTH = {"n": Fraction(1), "m": Fraction(1, 2), "d": Fraction(0)}
SIZES = {"n": 64, "m": 8, "d": 3}


def _powers(powers) -> Scale:
    out = ONE
    for d, p in powers.items():
        out = out * Scale.power(d, affine(p))
    return out


@given(scales, scales, points)
def test_scales_are_a_group_and_the_exponent_is_a_homomorphism(x, y, point):
    assert (x * y).exponent(GROWTH, point) == x.exponent(GROWTH, point) + y.exponent(GROWTH, point)
    assert (x / y).exponent(GROWTH, point) == x.exponent(GROWTH, point) - y.exponent(GROWTH, point)
    assert (x**3).exponent(GROWTH, point) == 3 * x.exponent(GROWTH, point)
    assert (x * y).at(SIZES, point) == pytest.approx(x.at(SIZES, point) * y.at(SIZES, point), rel=1e-12)
    assert x * y == y * x and x / x == ONE and x * ONE == x and x * x**-1 == ONE
    assert -1 * -x == x and (-x).number == -x.number
    assert set((x * y).symbols) <= {*x.symbols, *y.symbols}


def test_fixed_axes_do_not_count_and_ask_for_nothing():
    x = Scale.power("d", -Affine.symbol("alpha"))
    assert x.exponent(GROWTH, {}) == 0
    assert x.at(SIZES, {"alpha": Fraction(1)}) == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [0.5, True, 1.0])
def test_floats_are_no_coefficients(bad):
    with pytest.raises(TypeError, match="exact"):
        Scale.of(bad)


def test_zero_is_its_own_value():
    zero = Scale.of(0)
    assert zero.is_zero and (zero * Scale.power("n", 5)).is_zero and not ONE.is_zero


def test_irrational_numbers_stay_exact():
    import sympy

    root = Scale.of(sympy.sqrt(2))
    assert root * root == Scale.of(2)
    assert root**2 == Scale.of(2) and Scale.of(2) ** Fraction(1, 2) == root
    assert (Scale.of(4) ** Fraction(1, 2)).number == Fraction(2)
    assert root.at({}, {}) == pytest.approx(2**0.5)
